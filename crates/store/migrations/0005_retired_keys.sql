-- A project has one key in use, and others that are kept until what they sealed is sealed anew.
ALTER TABLE project_keys ADD COLUMN retired_at BIGINT;
DROP INDEX project_keys_one_in_use;
CREATE UNIQUE INDEX project_keys_one_in_use ON project_keys (tenant_id)
    WHERE destroyed_at IS NULL AND retired_at IS NULL;
