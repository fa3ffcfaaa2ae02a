"""Writes to a store for ever: in each transaction a pair of settings that say the same, and a project
with a user that refers to it, of which the oldest go again."""

import itertools
import sqlite3
import sys
import uuid

KEPT = 100

db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute("PRAGMA foreign_keys = ON")
for n in itertools.count(1):
    tenant, user = str(uuid.uuid4()), str(uuid.uuid4())
    db.execute("BEGIN IMMEDIATE")
    for name in ("late/a", "late/z"):
        db.execute(
            "INSERT INTO settings (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, str(n)),
        )
    db.execute(
        "INSERT INTO tenants (id, name, is_enabled, description, created_at)"
        " VALUES (?, ?, 0, ?, ?)",
        (tenant, f"late-{n}", "x" * 2000, n),
    )
    db.execute(
        "INSERT INTO users (id, name, password_hash, is_enabled, default_tenant_id, created_at)"
        " VALUES (?, ?, '', 0, ?, ?)",
        (user, f"late-{n}", tenant, n),
    )
    for table in ("users", "tenants"):
        db.execute(f"DELETE FROM {table} WHERE name = ?", (f"late-{n - KEPT}",))
    db.execute("COMMIT")
