"""openstacksdk's database proxy, verb by verb, against a real Coffer."""

import sys
import time

import openstack

conn = openstack.connect()
db = conn.database


def wait_for(what, ask, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ask():
            return
        time.sleep(0.2)
    sys.exit(f"{what}: not within {seconds} s")


def healthy(instance_id):
    raw = db.get(f"/instances/{instance_id}").json()["instance"]
    assert raw["status"] != "ERROR", raw
    return raw["status"] == "ACTIVE" and raw["operating_status"] == "HEALTHY"


def names(rows):
    return sorted(row.name for row in rows)


flavors = list(db.flavors())
assert "small" in names(flavors), flavors
assert db.find_flavor("small").name == "small"

# On real Trove the SDK can create nothing: it sends `flavor` for `flavorRef`.
made = db.create_instance(
    name="sdk1",
    flavor="small",
    volume={"size": 1},
    datastore={"type": "postgresql", "version": "17"},
)
wait_for("sdk1 healthy", lambda: healthy(made.id))
assert db.get_instance(made.id).name == "sdk1"
assert db.find_instance("sdk1").id == made.id
assert [one.id for one in db.instances()] == [made.id]
db.update_instance(made, name="sdk2")
assert db.get_instance(made.id).name == "sdk2"

# `{"database": {…}}` is a 500 of real Trove, a user posted to its name a 404.
db.create_database(made, name="shop")
assert names(db.databases(made)) == ["shop"], names(db.databases(made))
db.create_user(made, name="ann", password="a-password", databases=[{"name": "shop"}])
users = list(db.users(made))
assert names(users) == ["ann"] and users[0].databases == [{"name": "shop"}], users
# `find_user` and `find_database` ask nothing: the SDK's own resources cannot be fetched.
db.delete_user("ann", made)
wait_for("ann gone", lambda: names(db.users(made)) == [])
db.delete_database("shop", made)
wait_for("shop gone", lambda: names(db.databases(made)) == [])

assert made.is_root_enabled(db) is False
root = made.enable_root_user(db)
assert root["name"] == "postgres" and root["password"], root
assert made.is_root_enabled(db) is True

# `{"restart": null}` is a 400 of real Trove that nobody is told of.
made.restart(db)
wait_for("sdk2 healthy again", lambda: healthy(made.id))

db.delete_instance(made)
db.wait_for_delete(made, interval=1, wait=120)
assert list(db.instances()) == []
print("sdk done")
