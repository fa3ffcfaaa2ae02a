//! What is wrong is said in words, and mended it goes on.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::run::Program;
use serde_json::{Value, json};

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
fn a_taken_port_is_told_and_the_start_works_once_it_is_free() -> Result<()> {
    let mut coffer = Coffer::prepare("up", &[])?;
    let listen = format!("127.0.0.1:{}", coffer.port());
    let held = TcpListener::bind(&listen)?;
    let dir = coffer.dir().display().to_string();
    let words = [
        "up",
        "--state-dir",
        &dir,
        "--listen",
        &listen,
        "--set",
        "local.cow_pool_gib=8",
    ];
    let refused = Program::new(&binary("coffer")?.display().to_string(), words).run()?;
    ensure!(refused.code != 0, "{refused:?}");
    let told = format!("listen on {listen}: is another Coffer there? give another api.listen");
    ensure!(refused.err.contains(&told), "{refused:?}");
    drop(held);
    coffer.up()?;
    // A start that came to nothing is in the way of nothing.
    coffer.create("db1").map(drop)
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
    let coffer = Coffer::start_with(&["--set", "limits.max_volume_gib=2"])?;
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
    // The last size of the line counts, and the cap is the configuration's.
    let refused = create(&with(&["--flavor", "small", "--size", "3"]))?;
    ensure!(
        refused.code != 0 && refused.err.contains("cannot exceed maximum of 2 GB"),
        "{refused:?}"
    );
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

/// Copies the root that a recipe made last, and nothing that other tests are building beside it.
fn copy_root(recipe: &str, to: &Path) -> Result<String> {
    let shared = Path::new("/var/cache/coffer/roots");
    let coffer = binary("coffer")?.display().to_string();
    let listed = Program::new(&coffer, ["--json", "image", "list"])
        .run()?
        .json()?;
    let is_meant = |root: &&Value| root["image"] == recipe && root["is_latest"] == json!(true);
    let mut all = listed.as_array().into_iter().flatten();
    let checksum = all
        .find(is_meant)
        .and_then(|root| root["checksum"].as_str());
    let checksum = checksum.with_context(|| format!("no root of {recipe}"))?;
    let from = shared.join(checksum).display().to_string();
    Program::new("cp", ["-a", &from, &to.display().to_string()])
        .run()?
        .ok()?;
    fs::create_dir(to.join(".recipes"))?;
    for link in fs::read_dir(shared.join(".recipes"))?.flatten() {
        let leads_to = fs::read_link(link.path()).unwrap_or_default();
        if leads_to.file_name().is_some_and(|name| name == checksum) {
            symlink(&leads_to, to.join(".recipes").join(link.file_name()))?;
        }
    }
    Ok(checksum.to_owned())
}

#[test]
fn a_damaged_root_is_named_and_mended() -> Result<()> {
    let roots = tempfile::Builder::new()
        .prefix("coffer-roots-")
        .tempdir_in("/var/tmp")?;
    let target = roots.path().display().to_string();
    let checksum = copy_root("postgresql-17", roots.path())?;
    let set = format!("local.roots_dir={target}");
    let coffer = Coffer::start_with(&["--set", &set])?;
    let file = format!("{target}/{checksum}/tree/usr/lib/postgresql/17/bin/postgres");
    fs::rename(&file, format!("{file}.away"))?;
    let words = ["instance", "create", "db1", "--flavor", "small", "--wait"];
    let failed = coffer.coffer(&words)?;
    ensure!(failed.code != 0, "{failed:?}");
    let shown = coffer.coffer(&["instance", "explain", "db1"])?.ok()?;
    ensure!(shown.contains("ERROR") && shown.contains("root"), "{shown}");
    ensure!(shown.contains("coffer image build"), "what to do: {shown}");
    fs::rename(format!("{file}.away"), &file)?;
    coffer
        .coffer(&["instance", "delete", "db1", "--wait"])?
        .ok()?;
    coffer.create("db2")?;
    Ok(())
}
