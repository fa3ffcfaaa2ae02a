"""Takes the last migration of a store back, so that it is as the Coffer before it left it."""

import sqlite3
import sys

db = sqlite3.connect(sys.argv[1])
db.executescript("""
    ALTER TABLE volume_types DROP COLUMN read_iops_sec;
    ALTER TABLE volume_types DROP COLUMN write_iops_sec;
    ALTER TABLE volume_types DROP COLUMN read_bytes_sec;
    ALTER TABLE volume_types DROP COLUMN write_bytes_sec;
    DELETE FROM schema_version WHERE version = 6;
""")
db.close()
