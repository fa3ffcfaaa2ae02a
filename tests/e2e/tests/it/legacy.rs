//! The legacy `trove` program, word for word.

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;

#[test]
fn trove_create_with_every_word() -> Result<()> {
    let coffer = Coffer::start_with(&["--set", "local.cow_pool_gib=24"])?;
    let zone = "az01.cell01.qhzwy";
    coffer.admin(&["zone", "create", zone])?.ok()?;
    coffer
        .admin(&[
            "flavor", "create", "six-one", "--id", "6.1", "--ram", "512", "--vcpus", "1",
        ])?
        .ok()?;
    let datastores = coffer.coffer(&["--json", "datastore", "list"])?.json()?;
    let all = datastores.as_array().context("no datastores")?;
    let version = all
        .iter()
        .find(|v| v["version"] == "17")
        .context("no version 17")?;
    let version = version["id"].as_str().context("no id")?;
    let shown = coffer
        .openstack(&["datastore", "show", "postgresql", "-f", "json"])?
        .json()?;
    let datastore = shown["id"].as_str().context("no datastore id")?;
    let networks = coffer.coffer(&["--json", "network", "list"])?.json()?;
    let network = networks[0]["id"].as_str().context("no network")?;
    let nic = format!("net-id={network}");
    let words = [
        "create",
        "m1",
        "6.1",
        "--datastore",
        datastore,
        "--datastore_version",
        version,
        "--nic",
        &nic,
        "--size",
        "20",
        "--availability_zone",
        zone,
    ];
    coffer.client("trove", &words)?.ok()?;
    let listed = coffer.coffer(&["--json", "instance", "list"])?.json()?;
    let id = listed[0]["id"].as_str().context("no instance")?.to_owned();
    coffer.await_active(&id)?;
    let shown = coffer.client("trove", &["show", "m1"])?.ok()?;
    ensure!(shown.contains("ACTIVE") && shown.contains("6.1"), "{shown}");
    coffer.client("trove", &["delete", "m1"])?.ok()?;
    coffer.await_gone(&id)?;

    let form = [
        "database",
        "instance",
        "create",
        "m2",
        "--flavor",
        "6.1",
        "--datastore",
        datastore,
        "--datastore-version",
        version,
        "--nic",
        &nic,
        "--size",
        "20",
        "--availability-zone",
        zone,
        "-f",
        "json",
    ];
    let made = coffer.openstack(&form)?.json()?;
    let id = made["id"].as_str().context("no id")?.to_owned();
    coffer.await_active(&id)?;
    coffer
        .openstack(&["database", "instance", "delete", "m2"])?
        .ok()?;
    coffer.await_gone(&id)?;

    let unknown = [
        "database",
        "instance",
        "create",
        "m3",
        "--flavor",
        "6.1",
        "--datastore",
        datastore,
        "--datastore-version",
        version,
        "--size",
        "1",
        "--availability-zone",
        "nowhere",
    ];
    let refused = coffer.openstack(&unknown)?;
    ensure!(
        refused.code != 0 && refused.err.contains("nowhere"),
        "{refused:?}"
    );
    Ok(())
}
