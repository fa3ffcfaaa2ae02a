"""Takes the last migration of a store back, so that it is as the Coffer before it left it."""

import sqlite3
import sys

db = sqlite3.connect(sys.argv[1])
db.executescript("""
    DROP INDEX project_keys_one_in_use;
    ALTER TABLE project_keys DROP COLUMN retired_at;
    CREATE UNIQUE INDEX project_keys_one_in_use ON project_keys (tenant_id)
        WHERE destroyed_at IS NULL;
    DELETE FROM schema_version WHERE version = 5;
""")
db.close()
