//! schemathesis against the OpenAPI document that Coffer serves, with an administrator's token:
//! whatever it makes of the document, no answer is a server error.
//!
//! 501 is not one: Trove's contract has it for what is known and not offered.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::run::Program;
use serde_json::Value;

/// Where xtask installs it, beside the stock clients, whose libraries are of other versions.
const PROGRAM: &str = "/var/cache/coffer/schemathesis/bin/schemathesis";
/// How long it may go on; unit: seconds.
const SECONDS: u64 = 60;
/// Fewer requests than that mean that it did not work; a busy machine makes three times as many.
const REQUESTS_MIN: u64 = 500;
/// Routes of which at least one request has to be accepted: token and ids are good.
const ROUTES_MIN: usize = 30;

/// An instance that is not there: the answer of a visit lasts as long as the visit, and who reads
/// to its end waits for ever.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// Ids that exist, for paths that would end in 404 otherwise.
struct Known {
    token: String,
    project: String,
    instance: String,
    /// An instance that requests may delete.
    victim: String,
    /// A user whom requests may change: another password would end the administrator's tokens.
    user: String,
}

/// What schemathesis is told. Half of the names in paths are real ones.
fn settings(coffer: &Coffer, known: &Known) -> String {
    let Known {
        token,
        project,
        instance,
        victim,
        user,
    } = known;
    let (port, ca) = (coffer.port(), coffer.dir().join("ca.pem"));
    let ca = ca.display();
    format!(
        r#"
base-url = "https://127.0.0.1:{port}"
tls-verify = "{ca}"
headers = {{ X-Auth-Token = "{token}" }}
seed = 42
max-time = {SECONDS}
workers = 2
continue-on-failure = true
request-timeout = 30
warnings = false
cache = {{ enabled = false }}

[dictionaries]
instances = {{ values = ["{instance}", "{victim}"] }}
names = {{ values = ["app", "joe", "demo", "admin", "small", "postgresql", "17", "nova"] }}

[parameters]
"path.project_id" = "{project}"
"path.instance_id" = {{ dictionary = "instances", probability = 0.9 }}
"path.user" = {{ dictionary = "names", probability = 0.5 }}
"path.name" = {{ dictionary = "names", probability = 0.5 }}
"path.flavor" = {{ dictionary = "names", probability = 0.5 }}
"path.datastore" = {{ dictionary = "names", probability = 0.5 }}
"path.version" = {{ dictionary = "names", probability = 0.5 }}

[[operations]]
include-path = "/v1.0/{{project_id}}/instances/{{instance_id}}"
include-method = "DELETE"
parameters = {{ "path.instance_id" = "{victim}" }}

[[operations]]
include-path = "/v1.0/{{project_id}}/admin/users/{{user}}"
include-method = "PATCH"
parameters = {{ "path.user" = "{user}" }}

[[operations]]
include-path = "/v1.0/{{project_id}}/instances/{{instance_id}}/visits"
parameters = {{ "path.instance_id" = "{NOBODY}" }}

[checks]
enabled = false
not_a_server_error = {{ enabled = true, expected-statuses = ["2xx", "3xx", "4xx", 501] }}

[phases]
examples = {{ enabled = false }}
stateful = {{ enabled = false }}

[generation]
database = "none"
"#
    )
}

fn known(coffer: &Coffer) -> Result<Known> {
    let words = ["token", "issue", "-f", "json"];
    let issued = coffer.client_of("admin", "openstack", &words)?.json()?;
    let text = |name: &str| {
        let text = issued[name].as_str().map(str::to_owned);
        text.with_context(|| format!("the token has no {name}"))
    };
    let create = |name: &str| -> Result<String> {
        let words = [
            "--json", "instance", "create", name, "--flavor", "small", "--wait",
        ];
        let more = ["--database", "app", "--user", "joe"];
        let made = coffer.admin(&[&words[..], &more].concat())?.json()?;
        Ok(made["id"]
            .as_str()
            .context("the answer has no id")?
            .to_owned())
    };
    let users = coffer.admin(&["--json", "user", "list"])?.json()?;
    let mut users = users.as_array().into_iter().flatten();
    let user = users.find(|user| user["name"] == "demo");
    let user = user
        .and_then(|user| user["id"].as_str())
        .context("no user demo")?;
    Ok(Known {
        user: user.to_owned(),
        token: text("id")?,
        project: text("project_id")?,
        instance: create("stays")?,
        victim: create("goes")?,
    })
}

/// Whether the report tells of a run that reached the API's inside.
fn check(report: &Path) -> Result<()> {
    let report: Value = serde_json::from_str(&fs::read_to_string(report)?)?;
    let made = report["test_cases"]["generated"].as_u64();
    let made = made.context("the report counts no requests")?;
    ensure!(made >= REQUESTS_MIN, "{made} requests only: {report}");
    let is_accepted = |route: &&Value| {
        let phases = route
            .as_object()
            .into_iter()
            .flat_map(|route| route.values());
        phases
            .filter_map(|phase| phase["accepted"].as_u64())
            .sum::<u64>()
            > 0
    };
    let routes = report["valid_rates"].as_object().context("no routes")?;
    let accepted = routes.values().filter(is_accepted).count();
    println!("{made} requests; {accepted} routes accepted some");
    ensure!(accepted >= ROUTES_MIN, "{accepted} routes only: {report}");
    Ok(())
}

#[test]
fn schemathesis_finds_no_server_error() -> Result<()> {
    let coffer = Coffer::start()?;
    let known = known(&coffer)?;
    let (config, report) = (
        coffer.dir().join("schemathesis.toml"),
        coffer.dir().join("schemathesis.json"),
    );
    fs::write(&config, settings(&coffer, &known))?;
    let (config, report_words) = (config.display().to_string(), report.display().to_string());
    let url = format!("https://127.0.0.1:{}/openapi.json", coffer.port());
    let words = [
        "--config-file",
        &config,
        "run",
        &url,
        "--report-json-path",
        &report_words,
    ];
    let ended = Program::new(PROGRAM, words)
        .limit_seconds(SECONDS * 3)
        .run()?;
    ensure!(ended.code == 0, "{ended:?}\n{}", coffer.log());
    check(&report)?;
    // It is still there, and so is what was not to be deleted.
    let shown = coffer.admin(&["--json", "instance", "show", &known.instance])?;
    shown.json().map(drop)
}
