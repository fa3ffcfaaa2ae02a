-- What is removed when it is old is found by its age.
CREATE INDEX tasks_ended ON tasks (updated_at) WHERE state IN ('done', 'failed', 'cancelled');
CREATE INDEX events_by_time ON events (at);
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX instances_deleted ON instances (deleted_at) WHERE is_deleted = 1;
