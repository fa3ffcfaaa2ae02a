//! What is wrong is said in words, and mended it goes on.

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::run::Program;

#[test]
fn a_second_coffer_names_the_holder() -> Result<()> {
    let coffer = Coffer::start()?;
    let dir = coffer.dir().display().to_string();
    let words = ["up", "--state-dir", &dir, "--listen", "127.0.0.1:0"];
    let second = Program::new(&binary("coffer")?.display().to_string(), words).run()?;
    let pid = coffer.pid().context("it runs")?.to_string();
    ensure!(second.code != 0 && second.err.contains(&pid), "{second:?}");
    Ok(())
}

#[test]
fn mistakes_in_the_configuration_are_told_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("coffer.toml");
    std::fs::write(
        &file,
        "[api]\nlisten_adress = \"127.0.0.1:1\"\n[log]\nformat = \"xml\"\n",
    )?;
    let path = file.display().to_string();
    let coffer = binary("coffer")?.display().to_string();
    let refused = Program::new(&coffer, ["config", "--config", &path]).run()?;
    for word in ["listen_adress", "listen", "format"] {
        ensure!(
            refused.code != 0 && refused.err.contains(word),
            "{word}: {refused:?}"
        );
    }
    Ok(())
}

#[test]
fn bad_requests_are_refused_and_change_nothing() -> Result<()> {
    let coffer = Coffer::start()?;
    let create = |extra: &[&str]| {
        let words = ["database", "instance", "create", "bad", "--size", "1"];
        let all: Vec<&str> = words.into_iter().chain(extra.iter().copied()).collect();
        coffer.openstack(&all)
    };
    let base = ["--datastore", "postgresql", "--datastore-version", "17"];
    let with = |extra: &[&'static str]| [&base[..], extra].concat();
    for words in [
        with(&["--flavor", "no-such-flavor"]),
        with(&[
            "--flavor",
            "small",
            "--nic",
            "net-id=00000000-0000-0000-0000-000000000000",
        ]),
        vec![
            "--flavor",
            "small",
            "--datastore",
            "postgresql",
            "--datastore-version",
            "3",
        ],
        vec![
            "--flavor",
            "small",
            "--datastore",
            "dbase",
            "--datastore-version",
            "3",
        ],
    ] {
        let refused = create(&words)?;
        ensure!(refused.code != 0, "{refused:?}");
    }
    let listed = coffer.coffer(&["--json", "instance", "list"])?.json()?;
    ensure!(listed.as_array().is_some_and(Vec::is_empty), "{listed}");
    let quota = coffer.coffer(&["status"])?.ok()?;
    let line = quota
        .lines()
        .find(|l| l.starts_with("instances"))
        .context("no quota")?;
    let held: Vec<_> = line.split_whitespace().collect();
    ensure!(held[1] == "0" && held[2] == "0", "{line}");
    Ok(())
}

#[test]
fn a_damaged_root_is_named_and_mended() -> Result<()> {
    let roots = tempfile::Builder::new()
        .prefix("coffer-roots-")
        .tempdir_in("/var/tmp")?;
    let shared = std::path::Path::new("/var/cache/coffer/roots");
    let source = shared.display().to_string();
    let target = roots.path().display().to_string();
    Program::new("cp", ["-a", &format!("{source}/."), &target])
        .run()?
        .ok()?;
    let set = format!("local.roots_dir={target}");
    let coffer = Coffer::start_with(&["--set", &set])?;
    let listed = coffer.coffer(&["--json", "image", "list", "--set", &set])?;
    let listed = listed.json()?;
    let is_meant = |root: &&serde_json::Value| {
        root["image"] == "postgresql-17" && root["is_latest"] == serde_json::json!(true)
    };
    let mut roots = listed.as_array().into_iter().flatten();
    let checksum = roots
        .find(is_meant)
        .and_then(|root| root["checksum"].as_str());
    let checksum = checksum.context("no root of PostgreSQL 17")?;
    let file = format!("{target}/{checksum}/tree/usr/lib/postgresql/17/bin/postgres");
    std::fs::rename(&file, format!("{file}.away"))?;
    let words = ["instance", "create", "db1", "--flavor", "small", "--wait"];
    let failed = coffer.coffer(&words)?;
    ensure!(failed.code != 0, "{failed:?}");
    let shown = coffer.coffer(&["instance", "explain", "db1"])?.ok()?;
    ensure!(shown.contains("ERROR") && shown.contains("root"), "{shown}");
    std::fs::rename(format!("{file}.away"), &file)?;
    coffer
        .coffer(&["instance", "delete", "db1", "--wait"])?
        .ok()?;
    coffer.create("db2")?;
    Ok(())
}
