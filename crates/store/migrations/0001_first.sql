-- The first layout: everything that later work would otherwise have to cut anew.
--
-- Four column types only, so that one text serves SQLite and PostgreSQL. Ids, names, words and
-- lists (JSON arrays of strings) are texts; times are microseconds since 1970 UTC; truth values
-- are 0 or 1. Tables are plural, because "set" and "user" are reserved words. Where a real cloud
-- owns projects, users, flavors, networks and the like their tables stay empty, so nothing of an
-- instance refers to them by foreign key.

-- Identity -------------------------------------------------------------------------------------

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    is_enabled BIGINT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    is_enabled BIGINT NOT NULL,
    default_tenant_id TEXT REFERENCES tenants (id) ON DELETE SET NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE roles (
    name TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE assignments (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    role TEXT NOT NULL REFERENCES roles (name),
    PRIMARY KEY (user_id, tenant_id, role)
);
CREATE INDEX assignments_by_tenant ON assignments (tenant_id);
CREATE INDEX assignments_by_role ON assignments (role);

CREATE TABLE tokens (
    hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant_id TEXT REFERENCES tenants (id) ON DELETE CASCADE,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_tenant ON tokens (tenant_id);
CREATE INDEX tokens_by_expiry ON tokens (expires_at);

-- Catalogue ------------------------------------------------------------------------------------

CREATE TABLE flavors (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    memory_mib BIGINT NOT NULL,
    vcpus BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE volume_types (
    name TEXT NOT NULL PRIMARY KEY,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE zones (
    name TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL
);

-- default_version_id has no foreign key: each of the two tables would need the other first.
CREATE TABLE datastores (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    default_version_id TEXT,
    created_at BIGINT NOT NULL
);

CREATE TABLE roots (
    checksum TEXT NOT NULL PRIMARY KEY,
    image TEXT NOT NULL,
    manifest TEXT NOT NULL,
    built_at BIGINT NOT NULL
);

CREATE TABLE datastore_versions (
    id TEXT NOT NULL PRIMARY KEY,
    datastore_id TEXT NOT NULL REFERENCES datastores (id),
    name TEXT NOT NULL,
    number TEXT NOT NULL,
    manager TEXT NOT NULL,
    is_active BIGINT NOT NULL,
    image TEXT NOT NULL,
    root TEXT REFERENCES roots (checksum),
    created_at BIGINT NOT NULL,
    UNIQUE (datastore_id, name)
);
CREATE INDEX datastore_versions_by_root ON datastore_versions (root);

CREATE TABLE templates (
    root TEXT NOT NULL REFERENCES roots (checksum) ON DELETE CASCADE,
    format TEXT NOT NULL,
    provider TEXT NOT NULL,
    provider_ref TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (root, format, provider)
);

-- Networks -------------------------------------------------------------------------------------

CREATE TABLE networks (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    subnet TEXT NOT NULL,
    is_default BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (tenant_id, name)
);
CREATE UNIQUE INDEX networks_one_default ON networks (tenant_id) WHERE is_default = 1;

-- Who holds which address; the key is what makes an address unique in its network.
CREATE TABLE network_addresses (
    network_id TEXT NOT NULL REFERENCES networks (id),
    address TEXT NOT NULL,
    endpoint_id TEXT NOT NULL,
    PRIMARY KEY (network_id, address)
);
CREATE INDEX network_addresses_by_endpoint ON network_addresses (endpoint_id);

CREATE TABLE published_addresses (
    address TEXT NOT NULL PRIMARY KEY,
    pool TEXT NOT NULL,
    endpoint_id TEXT NOT NULL UNIQUE
);

-- Instances ------------------------------------------------------------------------------------

-- One column names the primary: a set of mode single-primary cannot have two. Every change of it
-- needs a newer generation.
CREATE TABLE sets (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    mode TEXT NOT NULL,
    generation BIGINT NOT NULL,
    timeline BIGINT NOT NULL,
    primary_instance_id TEXT,
    quorum BIGINT,
    failover_policy TEXT,
    cluster_id TEXT,
    shard TEXT
);

-- A deleted instance keeps its row: its history still names it.
CREATE TABLE instances (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    set_id TEXT NOT NULL,
    name TEXT NOT NULL,
    flavor_id TEXT NOT NULL,
    volume_gib BIGINT NOT NULL,
    volume_type TEXT,
    datastore_version_id TEXT NOT NULL REFERENCES datastore_versions (id),
    network_id TEXT NOT NULL,
    zone TEXT,
    is_public BIGINT NOT NULL,
    allowed_cidrs TEXT NOT NULL,
    tags TEXT,
    configuration_id TEXT,
    expires_at BIGINT,
    is_protected BIGINT NOT NULL,
    replica_of TEXT,
    lifecycle TEXT NOT NULL,
    incarnation BIGINT NOT NULL,
    fault_message TEXT,
    fault_details TEXT,
    fault_at BIGINT,
    delete_task_id TEXT,
    root_enabled_at BIGINT,
    is_deleted BIGINT NOT NULL,
    deleted_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX instances_by_tenant ON instances (tenant_id, is_deleted, id);
CREATE INDEX instances_all ON instances (is_deleted, id);
CREATE INDEX instances_by_set ON instances (set_id, is_deleted);
CREATE INDEX instances_by_version ON instances (datastore_version_id);

-- What an instance took of its project's quotas, to be given back when it is gone.
CREATE TABLE charges (
    instance_id TEXT NOT NULL REFERENCES instances (id),
    resource TEXT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (instance_id, resource)
);

CREATE TABLE endpoints (
    id TEXT NOT NULL PRIMARY KEY,
    set_id TEXT NOT NULL REFERENCES sets (id),
    kind TEXT NOT NULL,
    network_id TEXT NOT NULL,
    network_address TEXT NOT NULL,
    port BIGINT NOT NULL,
    published_address TEXT,
    published_port BIGINT,
    allowed_cidrs TEXT NOT NULL,
    target_instance_id TEXT
);
CREATE INDEX endpoints_by_set ON endpoints (set_id, kind);
CREATE UNIQUE INDEX endpoints_one_write ON endpoints (set_id) WHERE kind = 'write';

CREATE TABLE servers (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    purpose TEXT NOT NULL,
    provider TEXT NOT NULL,
    provider_ref TEXT,
    incarnation BIGINT NOT NULL,
    zone TEXT,
    host TEXT,
    presence TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX servers_by_instance ON servers (instance_id);

-- The read-only roots a server mounts, the engine's own first.
CREATE TABLE server_roots (
    server_id TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    ordinal BIGINT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (server_id, ordinal)
);
CREATE INDEX server_roots_by_checksum ON server_roots (checksum);

-- A volume may outlive its server and its instance, so it refers to neither by foreign key.
CREATE TABLE volumes (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    server_id TEXT,
    role TEXT NOT NULL,
    provider TEXT NOT NULL,
    provider_ref TEXT,
    incarnation BIGINT NOT NULL,
    size_gib BIGINT NOT NULL,
    volume_type TEXT,
    mode TEXT,
    parent_id TEXT,
    template TEXT,
    presence TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX volumes_by_instance ON volumes (instance_id);
CREATE INDEX volumes_by_parent ON volumes (parent_id);

CREATE TABLE links (
    id TEXT NOT NULL PRIMARY KEY,
    server_id TEXT NOT NULL UNIQUE REFERENCES servers (id) ON DELETE CASCADE,
    form TEXT NOT NULL,
    address TEXT NOT NULL,
    key_fingerprint TEXT,
    agent_version TEXT,
    position BIGINT NOT NULL
);

-- What guests say; only the conductor writes it -------------------------------------------------

CREATE TABLE statuses (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES instances (id),
    health TEXT NOT NULL,
    health_at BIGINT NOT NULL,
    role TEXT,
    generation BIGINT NOT NULL,
    replication_position TEXT,
    volume_used_bytes BIGINT,
    volume_total_bytes BIGINT,
    inventory_counter BIGINT NOT NULL,
    -- The engine's process and its start time: tells another run from the one heard last.
    engine_run TEXT
);

CREATE TABLE inventories (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES instances (id),
    counter BIGINT NOT NULL,
    is_root_enabled BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE inventory_databases (
    instance_id TEXT NOT NULL REFERENCES inventories (instance_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    character_set TEXT NOT NULL,
    collate_name TEXT NOT NULL,
    PRIMARY KEY (instance_id, name)
);

CREATE TABLE inventory_users (
    instance_id TEXT NOT NULL REFERENCES inventories (instance_id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    PRIMARY KEY (instance_id, name, host)
);

CREATE TABLE inventory_grants (
    instance_id TEXT NOT NULL,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    database_name TEXT NOT NULL,
    PRIMARY KEY (instance_id, name, host, database_name),
    FOREIGN KEY (instance_id, name, host)
        REFERENCES inventory_users (instance_id, name, host) ON DELETE CASCADE
);

-- Durable work ---------------------------------------------------------------------------------

-- A task has at most one wait, which is written and read with it: the wait_* columns.
CREATE TABLE tasks (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    workflow TEXT NOT NULL,
    input TEXT NOT NULL,
    step TEXT NOT NULL,
    state TEXT NOT NULL,
    version BIGINT NOT NULL,
    owner TEXT,
    lease BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    has_locks BIGINT NOT NULL,
    wait_reason TEXT,
    wait_message TEXT,
    wait_unblocked_by TEXT,
    wait_since BIGINT,
    step_at BIGINT NOT NULL,
    deadline BIGINT,
    error TEXT,
    output TEXT,
    actor_tenant_id TEXT NOT NULL,
    actor_user_id TEXT NOT NULL,
    actor_roles TEXT NOT NULL,
    actor_request_id TEXT NOT NULL,
    actor_client_address TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX tasks_to_claim ON tasks (priority DESC, run_at, id) WHERE state = 'ready';
CREATE INDEX tasks_due ON tasks (run_at) WHERE state = 'ready';
CREATE INDEX tasks_running ON tasks (id) WHERE state = 'running';
CREATE INDEX tasks_stuck ON tasks (updated_at) WHERE state = 'stuck';
CREATE INDEX tasks_by_instance ON tasks (instance_id, state);

CREATE TABLE task_steps (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    step TEXT NOT NULL,
    outcome TEXT NOT NULL,
    message TEXT NOT NULL,
    source TEXT NOT NULL,
    took_ms BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (task_id, version)
);

-- is_seen: a worker claimed the task after the signal came; an unseen one ends the next wait.
CREATE TABLE signals (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    signal TEXT NOT NULL,
    is_seen BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (task_id, signal)
);

CREATE TABLE locks (
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    mode TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (kind, object_id, task_id)
);
CREATE UNIQUE INDEX locks_one_exclusive ON locks (kind, object_id) WHERE mode = 'exclusive';
CREATE INDEX locks_by_task ON locks (task_id);

-- Who wants to hear that a lock was let go.
CREATE TABLE lock_waits (
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    PRIMARY KEY (kind, object_id, task_id)
);
CREATE INDEX lock_waits_by_task ON lock_waits (task_id);

CREATE TABLE singletons (
    role TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    counter BIGINT NOT NULL
);

CREATE TABLE transfers (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    task_id TEXT,
    instance_id TEXT,
    purpose TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    state TEXT NOT NULL,
    mover TEXT,
    lease BIGINT NOT NULL,
    bytes_done BIGINT NOT NULL,
    bytes_total BIGINT,
    error TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX transfers_by_task ON transfers (task_id);
CREATE INDEX transfers_by_state ON transfers (state);

-- Backups --------------------------------------------------------------------------------------

-- Of a set and timeline, so that an archive outlives any instance in the set.
CREATE TABLE archives (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    set_id TEXT NOT NULL,
    timeline BIGINT NOT NULL,
    state TEXT NOT NULL,
    location TEXT NOT NULL,
    key_id TEXT,
    begins_at BIGINT,
    begin_position TEXT,
    ends_at BIGINT,
    end_position TEXT,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (set_id, timeline)
);

CREATE TABLE backup_chains (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    set_id TEXT NOT NULL,
    timeline BIGINT NOT NULL,
    strategy TEXT NOT NULL,
    location TEXT NOT NULL,
    key_id TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX backup_chains_by_set ON backup_chains (set_id);

CREATE TABLE backups (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    chain_id TEXT NOT NULL REFERENCES backup_chains (id),
    parent_id TEXT REFERENCES backups (id),
    datastore_version_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    state TEXT NOT NULL,
    location TEXT,
    checksum TEXT,
    bytes BIGINT,
    size_gib BIGINT,
    begin_position TEXT,
    end_position TEXT,
    is_deleted BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX backups_by_tenant ON backups (tenant_id, is_deleted, id);
CREATE INDEX backups_by_instance ON backups (instance_id);
CREATE INDEX backups_by_chain ON backups (chain_id);
CREATE INDEX backups_by_parent ON backups (parent_id);

CREATE TABLE proofs (
    id TEXT NOT NULL PRIMARY KEY,
    backup_id TEXT NOT NULL REFERENCES backups (id) ON DELETE CASCADE,
    server_id TEXT,
    state TEXT NOT NULL,
    report TEXT,
    took_ms BIGINT,
    at BIGINT NOT NULL
);
CREATE INDEX proofs_by_backup ON proofs (backup_id);

-- Schedules of every kind.
CREATE TABLE schedules (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    purpose TEXT NOT NULL,
    rule TEXT NOT NULL,
    input TEXT NOT NULL,
    is_enabled BIGINT NOT NULL,
    last_at BIGINT,
    last_task_id TEXT,
    next_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX schedules_by_instance ON schedules (instance_id);
CREATE INDEX schedules_due ON schedules (next_at) WHERE is_enabled = 1;

-- What happened --------------------------------------------------------------------------------

CREATE TABLE alarms (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    code TEXT NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL,
    raised_at BIGINT NOT NULL,
    cleared_at BIGINT
);
CREATE INDEX alarms_by_instance ON alarms (instance_id);
CREATE INDEX alarms_raised ON alarms (tenant_id, id) WHERE cleared_at IS NULL;

CREATE TABLE events (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    task_id TEXT,
    code TEXT NOT NULL,
    severity TEXT NOT NULL,
    message TEXT NOT NULL,
    actor_tenant_id TEXT,
    actor_user_id TEXT,
    actor_roles TEXT,
    actor_request_id TEXT,
    actor_client_address TEXT,
    at BIGINT NOT NULL
);
CREATE INDEX events_by_instance ON events (instance_id, id);
CREATE INDEX events_by_tenant ON events (tenant_id, id);

CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    actor_tenant_id TEXT NOT NULL,
    actor_user_id TEXT NOT NULL,
    actor_roles TEXT NOT NULL,
    actor_request_id TEXT NOT NULL,
    actor_client_address TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome BIGINT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (actor_tenant_id, id);

-- Quotas ---------------------------------------------------------------------------------------

-- limit_value is NULL where the configured default holds.
CREATE TABLE quotas (
    tenant_id TEXT NOT NULL,
    resource TEXT NOT NULL,
    limit_value BIGINT,
    in_use BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, resource)
);

-- What a running task has reserved beyond what its instance is charged for.
CREATE TABLE reservations (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL,
    resource TEXT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (task_id, resource)
);

-- Secrets --------------------------------------------------------------------------------------

CREATE TABLE project_keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    wrapped BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    destroyed_at BIGINT
);
CREATE UNIQUE INDEX project_keys_one_in_use ON project_keys (tenant_id) WHERE destroyed_at IS NULL;

-- Every ciphertext names its key: destroying the key destroys what it protected.
CREATE TABLE secrets (
    id TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES project_keys (id),
    tenant_id TEXT NOT NULL,
    instance_id TEXT,
    purpose TEXT NOT NULL,
    ciphertext BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX secrets_by_instance ON secrets (instance_id, purpose);
CREATE INDEX secrets_by_key ON secrets (key_id);

-- Values that all processes on one store share.
CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
