//! Two clones of one template have nothing in common that should be a secret or an identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database};
use e2e::run::wait_until;

/// Files up to this size are compared.
const BYTES_MAX: u64 = 1 << 20;

/// What is compared: the volume, and what the sandbox is given beside it.
const PLACES: [&str; 3] = ["data", "run/coffer", "etc/machine-id"];

/// What may be equal in two clones, by the beginning of the path, and why.
const EQUAL: &[(&str, &str)] = &[
    (
        "data/engine/pgdata/base/",
        "catalogs as initdb wrote them: no row of a tenant, no secret",
    ),
    (
        "data/engine/pgdata/global/",
        "shared catalogs; pg_control and pg_authid are checked by name",
    ),
    ("data/engine/pgdata/PG_VERSION", "the version"),
    (
        "data/engine/pgdata/postgresql.auto.conf",
        "a comment: ALTER SYSTEM is off",
    ),
    (
        "data/engine/pgdata/postgresql.conf",
        "initdb's sample, not read",
    ),
    (
        "data/engine/pgdata/pg_hba.conf",
        "initdb's sample, not read",
    ),
    (
        "data/engine/pgdata/pg_ident.conf",
        "initdb's sample, not read",
    ),
    (
        "data/engine/pgdata/pg_xact/",
        "which transactions ended well: the same few in both",
    ),
    (
        "data/engine/pgdata/pg_multixact/",
        "empty pages of counters",
    ),
    ("data/engine/pgdata/pg_subtrans/", "empty pages of counters"),
    ("data/engine/pgdata/pg_logical/", "a mark without content"),
    (
        "data/engine/pgdata/pg_wal/",
        "summaries of the log that was there before the clones",
    ),
    (
        "data/engine/pgdata/postmaster.opts",
        "the command line, which names paths inside the sandbox",
    ),
    (
        "data/config/",
        "rendered from flavor and volume, which are the same; no secret in it",
    ),
    (
        "data/tls/ca.crt",
        "the project's CA: one for all its databases",
    ),
];

/// What has to be there in each clone and be its own.
const OWN: &[&str] = &[
    "data/engine/pgdata/global/pg_control",
    "data/engine/pgdata/global/1260",
    "data/engine/pgdata/coffer.identity",
    "data/tls/engine.key",
    "data/tls/engine.crt",
    "run/coffer/machine-id",
    "run/coffer/boot.json",
    "etc/machine-id",
];

/// Files of a sandbox, by their path in it.
fn files(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left: Vec<_> = PLACES.iter().map(|place| root.join(place)).collect();
    while let Some(path) = left.pop() {
        // What the engine removes meanwhile is not there to compare.
        let Ok(facts) = fs::symlink_metadata(&path) else {
            continue;
        };
        if facts.is_dir() {
            let entries = fs::read_dir(&path)?;
            left.extend(entries.flatten().map(|entry| entry.path()));
        } else if facts.is_file() && (1..BYTES_MAX).contains(&facts.len()) {
            let name = path.strip_prefix(root)?.display().to_string();
            found.insert(name, fs::read(&path)?);
        }
    }
    Ok(found)
}

/// Writes everything that the engine holds in memory to its files.
fn flush(coffer: &Coffer, db: &Database) -> Result<()> {
    let root = coffer
        .coffer(&["--json", "root", "enable", &db.id])?
        .json()?;
    let word = |key: &str| {
        root[key]
            .as_str()
            .with_context(|| format!("no {key}: {root}"))
    };
    let superuser = Database {
        password: word("password")?.to_owned(),
        ..db.clone()
    };
    let line = format!("user={} sslmode=require", word("name")?);
    superuser.psql_with(&line, "CHECKPOINT")?.ok().map(drop)
}

/// Waits until the clock shows another second.
fn outlast_the_second() -> Result<()> {
    let second = || anyhow::Ok(UNIX_EPOCH.elapsed()?.as_secs());
    let now = second()?;
    wait_until(Duration::from_secs(5), || {
        Ok((second()? != now).then_some(()))
    })
}

#[test]
fn clones_share_only_what_is_explained() -> Result<()> {
    let coffer = Coffer::start()?;
    let mut clones = Vec::new();
    for name in ["a", "b"] {
        let db = coffer.create(name)?;
        flush(&coffer, &db)?;
        let root = format!("/proc/{}/root", coffer.sandbox(&db.id)?);
        clones.push(files(Path::new(&root))?);
        // The engine names its log by the second of its start and writes that into its pid file:
        // two that start in one second would be the same in that without sharing anything.
        outlast_the_second()?;
    }
    let (a, b) = (&clones[0], &clones[1]);
    ensure!(a.len() > 500, "only {} files were seen", a.len());
    let equal: Vec<&String> = a
        .iter()
        .filter(|(name, content)| b.get(*name) == Some(content))
        .map(|(name, _)| name)
        .collect();
    let reason = |name: &&&String| EQUAL.iter().position(|(start, _)| name.starts_with(start));
    let unexplained: Vec<_> = equal.iter().filter(|name| reason(name).is_none()).collect();
    ensure!(
        unexplained.is_empty(),
        "the same in both clones: {unexplained:#?}"
    );
    let reasons: BTreeSet<_> = equal.iter().filter_map(|name| reason(&name)).collect();
    let unused: Vec<_> = (0..EQUAL.len())
        .filter(|n| !reasons.contains(n))
        .map(|n| EQUAL[n])
        .collect();
    ensure!(
        unused.is_empty(),
        "nothing needs these reasons any more: {unused:?}"
    );
    for name in OWN {
        ensure!(
            a.contains_key(*name) && b.contains_key(*name),
            "{name} is not there"
        );
        ensure!(
            !equal.iter().any(|e| e == name),
            "{name} is the same in both clones"
        );
    }
    let agents = |of: &BTreeMap<String, Vec<u8>>| {
        of.keys()
            .filter(|name| name.starts_with("data/agent/"))
            .count()
    };
    ensure!(
        agents(a) > 0 && agents(b) > 0,
        "the agent keeps its keys elsewhere"
    );
    Ok(())
}
