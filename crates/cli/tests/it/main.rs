//! The verbs against an HTTP server that answers as written down here: what is asked of it, what
//! is followed, and how each ends. The real API is met in the end-to-end tests.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic on purpose")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;
use coffer_cli::credentials::Credentials;
use coffer_cli::{Options, Verb};
use serde_json::{Value, json};

const DB1: &str = "11111111-1111-4111-8111-111111111111";

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    verb: Verb,
}

/// Answers by method and path; more than one are given in turn, the last one for ever.
type Answers = BTreeMap<&'static str, Vec<(u16, Value)>>;

/// A server, and what it was asked: method, path and body.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, base) = (Arc::clone(&asked), url.clone());
        thread::spawn(move || {
            let mut answers = answers;
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &base, &mut answers, &log);
            }
        });
        Self {
            url,
            asked,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs a command line against it.
    async fn run(&self, line: &[&str]) -> ExitCode {
        let path = self.dir.path().join("demo.toml");
        let credentials = Credentials {
            auth_url: self.url.clone(),
            username: "demo".to_owned(),
            password: "secret".to_owned(),
            project_name: "demo".to_owned(),
            region_name: "RegionOne".to_owned(),
            ca_file: None,
        };
        credentials.write(&path).unwrap();
        let path = path.to_str().unwrap();
        let head = ["coffer", "--json", "--credentials", path];
        let parsed = CommandLine::try_parse_from(head.iter().chain(line)).unwrap();
        coffer_cli::run(parsed.verb, &parsed.options).await
    }

    /// Method and path of each request after the login.
    fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .skip(1)
            .map(|(line, _)| line.clone())
            .collect()
    }

    fn body_of(&self, line: &str) -> Value {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .find(|(l, _)| l == line)
            .map(|(_, body)| body.clone())
            .unwrap()
    }
}

fn answer(
    mut stream: TcpStream,
    base: &str,
    answers: &mut Answers,
    log: &Mutex<Vec<(String, Value)>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let length = headers.iter().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")
            .map(|n| n.parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let line = first.trim_end_matches(" HTTP/1.1").to_owned();
    let (status, value) = match line.as_str() {
        "POST /v3/auth/tokens" => (201, token(base)),
        _ => next(answers, &line.replacen("/v1.0/p", "", 1)),
    };
    log.lock().unwrap().push((
        line.replacen("/v1.0/p", "", 1),
        serde_json::from_slice(&body).unwrap_or(Value::Null),
    ));
    let text = if value.is_null() {
        String::new()
    } else {
        value.to_string()
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} x\r\nconnection: close\r\nx-subject-token: t\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
}

fn next(answers: &mut Answers, line: &str) -> (u16, Value) {
    match answers.get_mut(line) {
        Some(given) if given.len() > 1 => given.remove(0),
        Some(given) => given[0].clone(),
        None => (
            404,
            json!({"itemNotFound": {"code": 404, "message": "not there"}}),
        ),
    }
}

fn token(base: &str) -> Value {
    let endpoint = json!({
        "id": "e", "interface": "public", "region": "RegionOne", "region_id": "RegionOne",
        "url": format!("{base}/v1.0/p"),
    });
    let domain = json!({"id": "default", "name": "Default"});
    json!({"token": {
        "methods": ["password"], "audit_ids": [],
        "user": {"id": "u", "name": "demo", "domain": domain},
        "project": {"id": "p", "name": "demo", "domain": domain},
        "expires_at": "2030-01-01T00:00:00.000000Z", "issued_at": "2029-01-01T00:00:00.000000Z",
        "catalog": [{"id": "s", "type": "database", "name": "coffer", "endpoints": [endpoint]}],
    }})
}

fn ok(value: Value) -> Vec<(u16, Value)> {
    vec![(200, value)]
}

fn explanation(status: &str, operating: &str) -> (u16, Value) {
    let task = if status == "BUILD" {
        json!({"step": "await_guest"})
    } else {
        Value::Null
    };
    (
        200,
        json!({"explanation": {
            "status": status, "operating_status": operating, "summary": "in words", "task": task,
        }}),
    )
}

#[tokio::test]
async fn a_name_is_looked_up_over_all_pages() {
    let href = "https://elsewhere/v1.0/p/instances?limit=1&marker=a%2525b";
    let answers = BTreeMap::from([
        (
            "GET /instances",
            ok(json!({"instances": [{"id": "x", "name": "other"}],
                      "links": [{"rel": "next", "href": href}]})),
        ),
        (
            "GET /instances?limit=1&marker=a%25b",
            ok(json!({"instances": [{"id": DB1, "name": "db 1"}]})),
        ),
        (
            "GET /instances/11111111-1111-4111-8111-111111111111",
            ok(json!({"instance": {}})),
        ),
    ]);
    let server = Server::start(answers);
    assert_eq!(
        server.run(&["instance", "show", "db 1"]).await,
        ExitCode::SUCCESS
    );
    assert_eq!(server.asked()[0], "GET /instances/db%201");
    assert_eq!(server.asked()[3], format!("GET /instances/{DB1}"));
    assert_eq!(
        server.run(&["instance", "show", "nobody"]).await,
        ExitCode::from(3)
    );
}

#[tokio::test]
async fn create_sends_what_was_asked_and_waits_until_the_engine_is_healthy() {
    let answers = BTreeMap::from([
        (
            "GET /flavors",
            ok(json!({"flavors": [{"str_id": "6.1", "ram": 512}, {"str_id": "1", "ram": 1024}]})),
        ),
        ("POST /instances", ok(json!({"instance": {"id": DB1}}))),
        (
            "GET /instances/11111111-1111-4111-8111-111111111111/explain",
            vec![
                explanation("BUILD", ""),
                explanation("ACTIVE", ""),
                explanation("ACTIVE", "HEALTHY"),
            ],
        ),
        (
            "GET /instances/11111111-1111-4111-8111-111111111111",
            ok(json!({"instance": {"id": DB1, "name": "db1"}})),
        ),
    ]);
    let server = Server::start(answers);
    let line = [
        "instance",
        "create",
        "db1",
        "--size",
        "2",
        "--database",
        "shop",
        "--user",
        "app",
        "--public",
        "--allow",
        "10.0.0.0/8",
        "--zone",
        "z1",
        "--wait",
    ];
    assert_eq!(server.run(&line).await, ExitCode::SUCCESS);
    let mut body = server.body_of("POST /instances");
    let password = body["instance"]["users"][0]["password"].take();
    assert_eq!(password.as_str().unwrap().len(), 24);
    let expected = json!({"instance": {
        "name": "db1", "flavorRef": "6.1", "volume": {"size": 2},
        "databases": [{"name": "shop"}],
        "users": [{"name": "app", "password": null, "databases": [{"name": "shop"}]}],
        "availability_zone": "z1",
        "access": {"is_public": true, "allowed_cidrs": ["10.0.0.0/8"]},
    }});
    assert_eq!(body, expected);
    let looks = server
        .asked()
        .iter()
        .filter(|line| line.ends_with("/explain"))
        .count();
    assert_eq!(looks, 3);
}

#[tokio::test]
async fn a_create_that_ends_in_error_or_takes_too_long_fails() {
    let base = |last: (u16, Value)| {
        Server::start(BTreeMap::from([
            ("POST /instances", ok(json!({"instance": {"id": DB1}}))),
            (
                "GET /instances/11111111-1111-4111-8111-111111111111",
                ok(json!({"instance": {}})),
            ),
            (
                "GET /instances/11111111-1111-4111-8111-111111111111/explain",
                vec![last],
            ),
        ]))
    };
    let line = [
        "instance",
        "create",
        "db1",
        "--flavor",
        "1",
        "--wait",
        "--timeout",
        "1",
    ];
    assert_eq!(
        base(explanation("ERROR", "")).run(&line).await,
        ExitCode::from(1)
    );
    assert_eq!(
        base(explanation("BUILD", "")).run(&line).await,
        ExitCode::from(1)
    );
}

/// The API replaces both keys of `access`: what was not asked to change has to be sent again.
#[tokio::test]
async fn a_change_of_access_keeps_what_it_does_not_name() {
    let path = "GET /instances/11111111-1111-4111-8111-111111111111";
    let put = "PUT /instances/11111111-1111-4111-8111-111111111111";
    let restricted = json!({"is_public": true, "allowed_cidrs": ["10.0.0.0/8"]});
    for (access, words, sent) in [
        (
            restricted.clone(),
            ["--allow", "192.168.0.0/16"],
            json!({"is_public": true, "allowed_cidrs": ["192.168.0.0/16"]}),
        ),
        (restricted.clone(), ["--public", "true"], restricted.clone()),
        (
            restricted,
            ["--public", "false"],
            json!({"is_public": false, "allowed_cidrs": ["10.0.0.0/8"]}),
        ),
        (
            json!({"is_public": false}),
            ["--public", "true"],
            json!({"is_public": true, "allowed_cidrs": []}),
        ),
    ] {
        let instance = json!({"instance": {"id": DB1, "name": "db1", "access": access}});
        let server = Server::start(BTreeMap::from([
            (path, ok(instance)),
            (put, vec![(202, Value::Null)]),
        ]));
        let line = [&["instance", "set", DB1][..], &words].concat();
        assert_eq!(server.run(&line).await, ExitCode::SUCCESS);
        assert_eq!(
            server.body_of(put),
            json!({"instance": {"access": sent}}),
            "{words:?}"
        );
    }
}

#[tokio::test]
async fn delete_waits_until_the_instance_is_gone() {
    let gone = json!({"itemNotFound": {"code": 404, "message": "gone"}});
    let answers = BTreeMap::from([
        (
            "GET /instances/11111111-1111-4111-8111-111111111111",
            ok(json!({"instance": {"id": DB1}})),
        ),
        (
            "DELETE /instances/11111111-1111-4111-8111-111111111111",
            vec![(202, Value::Null)],
        ),
        (
            "GET /instances/11111111-1111-4111-8111-111111111111/explain",
            vec![explanation("SHUTDOWN", ""), (404, gone)],
        ),
    ]);
    let server = Server::start(answers);
    assert_eq!(
        server.run(&["instance", "delete", DB1, "--wait"]).await,
        ExitCode::SUCCESS
    );
    assert_eq!(
        server
            .asked()
            .iter()
            .filter(|line| line.ends_with("/explain"))
            .count(),
        2
    );
}

#[tokio::test]
async fn names_inside_an_instance_are_quoted_in_paths() {
    let answers = BTreeMap::from([
        ("GET /instances/db1", ok(json!({"instance": {"id": "1"}}))),
        (
            "DELETE /instances/1/users/a%2Fb%2Ec%25/databases/d%20e",
            vec![(202, Value::Null)],
        ),
    ]);
    let server = Server::start(answers);
    let line = ["database-user", "revoke", "db1", "a/b.c%", "d e"];
    assert_eq!(server.run(&line).await, ExitCode::SUCCESS);
}

#[tokio::test]
async fn the_operator_changes_objects_by_name() {
    let answers = BTreeMap::from([
        (
            "GET /flavors",
            ok(json!({"flavors": [{"str_id": "6.1", "name": "small", "ram": 512}]})),
        ),
        (
            "PATCH /admin/flavors/6%2E1",
            ok(json!({"flavor": {"str_id": "6.1"}})),
        ),
        (
            "GET /admin/projects",
            ok(json!({"projects": [{"id": "p1", "name": "shop"}]})),
        ),
        (
            "GET /admin/users",
            ok(json!({"users": [{"id": "u1", "name": "ada"}]})),
        ),
        (
            "PUT /admin/projects/p1/users/u1/roles/reader",
            vec![(204, Value::Null)],
        ),
    ]);
    let server = Server::start(answers);
    let line = ["flavor", "set", "small", "--ram", "1024"];
    assert_eq!(server.run(&line).await, ExitCode::SUCCESS);
    assert_eq!(
        server.body_of("PATCH /admin/flavors/6%2E1"),
        json!({"flavor": {"ram": 1024}})
    );
    let line = [
        "role",
        "set",
        "reader",
        "--user",
        "ada",
        "--project",
        "shop",
    ];
    assert_eq!(server.run(&line).await, ExitCode::SUCCESS);
    let line = [
        "role",
        "set",
        "reader",
        "--user",
        "bob",
        "--project",
        "shop",
    ];
    assert_eq!(server.run(&line).await, ExitCode::from(3));
    assert_eq!(
        server.run(&["project", "set", "shop"]).await,
        ExitCode::from(2)
    );
}

#[tokio::test]
async fn a_datastore_shows_the_version_that_is_named_or_its_default() {
    let version = |number: &str| ok(json!({"version": {"id": "v", "version": number}}));
    let default = json!({"datastore": {"name": "redis", "default_version": "d8"}});
    let answers = BTreeMap::from([
        ("GET /datastores/redis", ok(default)),
        ("GET /datastores/redis/versions/d8", version("8.0")),
        ("GET /datastores/redis/versions/7%2E0", version("7.0")),
        (
            "GET /datastores/empty",
            ok(json!({"datastore": {"name": "empty"}})),
        ),
    ]);
    let server = Server::start(answers);
    let show = async |words: &[&str]| {
        let line = [&["datastore", "show"][..], words].concat();
        server.run(&line).await
    };
    assert_eq!(show(&["redis"]).await, ExitCode::SUCCESS);
    assert_eq!(server.asked()[1], "GET /datastores/redis/versions/d8");
    assert_eq!(show(&["redis", "7.0"]).await, ExitCode::SUCCESS);
    assert_eq!(show(&["redis", "6.0"]).await, ExitCode::from(3));
    assert_eq!(show(&["empty"]).await, ExitCode::from(3));
}

#[tokio::test]
async fn refusals_and_silence_have_their_own_exit_codes() {
    let refused = json!({"overLimit": {"code": 413, "message": "Quota exceeded"}});
    let answers = BTreeMap::from([("POST /instances", vec![(413, refused)])]);
    let server = Server::start(answers);
    let line = ["instance", "create", "db1", "--flavor", "1"];
    assert_eq!(server.run(&line).await, ExitCode::from(4));
    let path = server.dir.path().join("demo.toml");
    let text = fs::read_to_string(&path).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    fs::write(
        &path,
        text.replace(&server.url, &format!("http://{silent}")),
    )
    .unwrap();
    let head = ["coffer", "--credentials", path.to_str().unwrap(), "status"];
    let parsed = CommandLine::try_parse_from(head).unwrap();
    assert_eq!(
        coffer_cli::run(parsed.verb, &parsed.options).await,
        ExitCode::from(5)
    );
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    CommandLine::command().debug_assert();
}
