-- Who brings the control side into instances by hand. A tracker that starts again is another
-- row; one whose counter stands still is removed by the next that saw it stand.
CREATE TABLE trackers (
    id TEXT NOT NULL PRIMARY KEY,
    provider TEXT NOT NULL,
    address TEXT NOT NULL,
    beat BIGINT NOT NULL,
    started_at BIGINT NOT NULL
);

-- The tracker whose relay leads to the guest.
ALTER TABLE links ADD COLUMN tracker_id TEXT REFERENCES trackers (id) ON DELETE SET NULL;
CREATE INDEX links_by_tracker ON links (tracker_id);

-- Leave to use a relay once. A grant ends with its instance, its tracker, or when the tracker's
-- counter comes to `until_beat`.
CREATE TABLE relay_grants (
    hash TEXT NOT NULL PRIMARY KEY,
    tracker_id TEXT NOT NULL REFERENCES trackers (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL,
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    purpose TEXT NOT NULL,
    until_beat BIGINT NOT NULL,
    actor_tenant_id TEXT NOT NULL,
    actor_user_id TEXT NOT NULL,
    actor_roles TEXT NOT NULL,
    actor_request_id TEXT NOT NULL,
    actor_client_address TEXT NOT NULL
);
CREATE INDEX relay_grants_by_tracker ON relay_grants (tracker_id, until_beat);
CREATE INDEX relay_grants_by_instance ON relay_grants (instance_id);
