"""What is to be known of a copy of a store that `store_writer.py` writes to, as JSON."""

import json
import sqlite3
import sys

db = sqlite3.connect(sys.argv[1], timeout=30)


def one(sql):
    return db.execute(sql).fetchone()[0]


print(
    json.dumps(
        {
            "integrity": one("PRAGMA integrity_check"),
            "broken": len(db.execute("PRAGMA foreign_key_check").fetchall()),
            "a": int(one("SELECT value FROM settings WHERE name = 'late/a'")),
            "z": int(one("SELECT value FROM settings WHERE name = 'late/z'")),
            "tenants": one("SELECT count(*) FROM tenants WHERE name LIKE 'late-%'"),
            "users": one("SELECT count(*) FROM users WHERE name LIKE 'late-%'"),
            "newest": one("SELECT max(created_at) FROM tenants WHERE name LIKE 'late-%'"),
        }
    )
)
