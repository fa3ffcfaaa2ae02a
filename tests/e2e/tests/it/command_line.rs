//! The command line where no other test uses it: Coffer's own CA, networks, plain HTTP.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::run::Program;

/// What was said cannot be meant.
const USAGE: i32 = 2;
/// What was named is not there.
const ABSENT: i32 = 3;
/// Understood, and not done.
const REFUSED: i32 = 4;

#[test]
fn the_ca_of_coffer_is_printed_and_networks_are_shown_by_name_and_id() -> Result<()> {
    let coffer = Coffer::start()?;
    let dir = coffer.dir().display().to_string();
    let printed = coffer.coffer(&["ca", "--state-dir", &dir])?.ok()?;
    ensure!(printed.contains("BEGIN CERTIFICATE"), "{printed}");
    let kept = fs::read_to_string(coffer.dir().join("ca.pem"))?;
    ensure!(printed.trim() == kept.trim(), "{printed}\n{kept}");
    let of_project = fs::read_to_string(coffer.project_ca("demo")?)?;
    ensure!(of_project.trim() != printed.trim(), "both have one CA");

    let listed = coffer.coffer(&["--json", "network", "list"])?.json()?;
    let all = listed.as_array().context("no list")?;
    ensure!(all.len() == 1, "{listed}");
    let text = |key: &str| all[0][key].as_str().with_context(|| format!("no {key}"));
    let (id, name) = (text("id")?, text("name")?);
    for word in [id, name] {
        let shown = coffer.coffer(&["--json", "network", "show", word])?;
        let shown = shown.json()?;
        ensure!(
            shown["id"] == id && shown["name"] == name,
            "{word}: {shown}"
        );
        let table = coffer.coffer(&["network", "show", word])?.ok()?;
        ensure!(
            table.contains(id) && table.contains(name),
            "{word}: {table}"
        );
    }
    let absent = coffer.coffer(&["network", "show", "nothing"])?;
    ensure!(absent.code == ABSENT, "{absent:?}");
    Ok(())
}

#[test]
fn tools_of_the_host_end_with_the_codes_that_the_help_promises() -> Result<()> {
    let coffer = Coffer::start()?;
    let dir = coffer.dir().display().to_string();
    let backups = tempfile::tempdir()?;
    let target = backups.path().join("one.backup").display().to_string();
    let run = |words: &[&str]| {
        let words = words.iter().copied();
        Program::new(&binary("coffer")?.display().to_string(), words).run()
    };
    let place = ["--state-dir", dir.as_str()];
    let [no_state, elsewhere] = ["none", "else"].map(|name| {
        let path = backups.path().join(name);
        path.display().to_string()
    });
    run(&["state", place[0], place[1], "backup", &target])?.ok()?;
    let rotated = run(&["key", place[0], place[1], "rotate", "--project", "admin"])?;
    ensure!(rotated.ok()?.contains("has sealed nothing"));
    let cases: &[(&[&str], i32)] = &[
        (&["config", "--set", "log.level=inof"], USAGE),
        (&["up", "--set", "loud"], USAGE),
        (&["doctor", "--state-dir", &no_state], USAGE),
        (&["up", "--config", &no_state], USAGE),
        (
            &[
                "state",
                place[0],
                place[1],
                "backup",
                &elsewhere,
                "--passphrase-file",
                &no_state,
            ],
            USAGE,
        ),
        (
            &["key", place[0], place[1], "rotate", "--project", "nothing"],
            ABSENT,
        ),
        (&["ca", place[0], place[1], "--project", "nothing"], ABSENT),
        (&["up", place[0], place[1]], REFUSED),
        (&["upgrade", place[0], place[1]], REFUSED),
        (&["state", place[0], place[1], "restore", &target], REFUSED),
        (&["state", place[0], place[1], "backup", &target], REFUSED),
        (&["state", place[0], place[1], "confirm"], REFUSED),
    ];
    for (words, code) in cases {
        let ended = run(words)?;
        ensure!(ended.code == *code, "{code} is promised: {ended:?}");
    }
    Ok(())
}

#[test]
fn plain_http_is_refused_off_loopback_and_works_on_it() -> Result<()> {
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let place = dir.path().display().to_string();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let words = [
            "up",
            "--state-dir",
            &place,
            "--listen",
            listen,
            "--insecure-http",
        ];
        let refused = Program::new(&binary("coffer")?.display().to_string(), words).run()?;
        let told = "api.insecure_http is allowed on a loopback address only";
        ensure!(
            refused.code != 0 && refused.err.contains(told),
            "{listen}: {refused:?}"
        );
    }
    ensure!(fs::read_dir(&place)?.next().is_none(), "it left something");

    let coffer = Coffer::start_with(&["--insecure-http"])?;
    let variables = coffer.variables("demo")?;
    let url = format!("http://127.0.0.1:{}", coffer.port());
    let named = variables.get("OS_AUTH_URL").context("no OS_AUTH_URL")?;
    ensure!(named.starts_with(&url), "{variables:?}");
    ensure!(!variables.contains_key("OS_CACERT"), "{variables:?}");
    let health = format!("{url}/healthcheck");
    let answer = Program::new("curl", ["-s", "-m", "5", &health]).run()?;
    ensure!(answer.clone().ok()? == "OK", "{answer:?}");
    let words = ["database", "flavor", "list", "-f", "value"];
    coffer.openstack(&words)?.ok()?;
    coffer.coffer(&["instance", "list"])?.ok().map(drop)
}
