//! MySQL and MariaDB: the suite's client of them is the command line client of each root, over TLS.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use coffer_core::secret::Secret;
use coffer_engines::Engine;
use coffer_engines::conformance::{self, Access, Fixture, World};
use coffer_engines::mariadb::Mariadb;
use coffer_engines::runtime::Program;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::direct::{Client, Direct, DirectWorld};
use crate::support::process;

/// One engine with the program that is its client.
#[derive(Debug)]
pub(super) struct Known {
    engine: &'static dyn Engine,
    program: &'static str,
    /// Says that the server's name is not looked at, as the test's certificate has none.
    trust: &'static str,
    /// Says that there is to be no TLS.
    plain: &'static str,
    /// What an instance has from its first day: variables and values.
    born: &'static [(&'static str, &'static str)],
}

/// Options that are no variables of the server, or name a file there.
const NO_VARIABLES: &[&str] = &["mysqlx", "log_bin"];

/// MySQL.
pub(super) const MYSQL: Known = Known {
    engine: &coffer_engines::mysql::MYSQL,
    program: "/usr/bin/mysql",
    trust: "ssl-mode=REQUIRED",
    plain: "ssl-mode=DISABLED",
    born: &[
        ("log_bin", "ON"),
        ("binlog_format", "ROW"),
        ("binlog_checksum", "CRC32"),
        ("gtid_mode", "ON"),
        ("enforce_gtid_consistency", "ON"),
        ("innodb_checksum_algorithm", "crc32"),
        ("innodb_doublewrite", "ON"),
    ],
};

/// MariaDB.
pub(super) const MARIADB: Known = Known {
    engine: &Mariadb,
    program: "/usr/bin/mariadb",
    trust: "ssl\nskip-ssl-verify-server-cert",
    plain: "skip-ssl",
    born: &[
        ("log_bin", "ON"),
        ("binlog_format", "ROW"),
        ("binlog_checksum", "CRC32"),
        ("gtid_strict_mode", "ON"),
        ("gtid_domain_id", "0"),
        ("innodb_checksum_algorithm", "full_crc32"),
        ("innodb_doublewrite", "ON"),
    ],
};

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A value of an option file.
fn option(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Known {
    /// Name of the engine.
    pub(super) fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// The client, which reads statements from its input and shows each answer at once.
    fn client(&self, at: &Direct, access: &Access, tls: &str) -> Command {
        self.client_to(at.address, at, access, tls)
    }

    /// The same with another way to the server.
    fn client_to(&self, way: SocketAddr, at: &Direct, access: &Access, tls: &str) -> Command {
        let options = format!(
            "[client]\nprotocol=TCP\nhost={}\nport={}\nuser={}\npassword={}\n{}\n",
            way.ip(),
            way.port(),
            option(&access.user),
            option(&access.password),
            tls
        );
        let file = at
            .layout()
            .data_dir
            .join(format!("client-{}.cnf", number()));
        std::fs::write(&file, options).unwrap();
        let database = access.database.clone();
        let program = Program {
            path: self.program.into(),
            args: vec![
                format!("--defaults-file={}", file.display()),
                "--batch".to_owned(),
                "--skip-column-names".to_owned(),
                "--unbuffered".to_owned(),
                format!("--database={database}"),
            ],
            env: vec![("LC_ALL".to_owned(), "C.UTF-8".to_owned())],
            stdin: Vec::new(),
        };
        let mut command = at.command(&program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What the server answers to statements; what it refuses them with is an error.
    pub(super) async fn ask(
        &self,
        at: &Direct,
        access: &Access,
        sql: &str,
    ) -> Result<String, String> {
        self.ask_over(at, access, self.trust, sql).await
    }

    /// The same without TLS.
    pub(super) async fn ask_plain(
        &self,
        at: &Direct,
        access: &Access,
        sql: &str,
    ) -> Result<String, String> {
        self.ask_over(at, access, self.plain, sql).await
    }

    async fn ask_over(
        &self,
        at: &Direct,
        access: &Access,
        tls: &str,
        sql: &str,
    ) -> Result<String, String> {
        answer_of(self.client(at, access, tls), sql).await
    }

    async fn number(&self, at: &Direct, access: &Access, sql: &str) -> Result<u64, String> {
        let answer = self.ask(at, access, sql).await?;
        let number = answer.trim().parse();
        number.map_err(|_| format!("not a number: {answer}"))
    }

    /// Every variable of the server.
    async fn variables(
        &self,
        at: &Direct,
        root: &Access,
    ) -> Result<BTreeMap<String, String>, String> {
        let shown = self.ask(at, root, "SHOW GLOBAL VARIABLES;").await?;
        let rows = shown.lines().filter_map(|line| line.split_once('\t'));
        Ok(rows
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

/// What the server answers to statements of a client that is not started yet.
async fn answer_of(mut client: Command, sql: &str) -> Result<String, String> {
    let mut child = client.spawn().expect("start the client");
    let mut input = child.stdin.take().expect("it is piped");
    // A client that is not let in reads nothing.
    input.write_all(sql.as_bytes()).await.ok();
    drop(input);
    let ended = child.wait_with_output().await.expect("wait for the client");
    match ended.status.success() {
        true => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
    }
}

fn number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Writes one record after another; each answer that comes back is one acknowledged commit.
async fn write_on(mut child: Child, table: &str, count: u64, told: &AtomicU64) {
    let mut input = child.stdin.take().expect("it is piped");
    let output = child.stdout.take().expect("it is piped");
    let mut answers = BufReader::new(output).lines();
    let sql = format!(
        "INSERT INTO {} VALUES (1);\nSELECT 'acknowledged';\n",
        quote(table)
    );
    for _ in 0..count {
        if input.write_all(sql.as_bytes()).await.is_err() || input.flush().await.is_err() {
            break;
        }
        match answers.next_line().await {
            Ok(Some(line)) if line == "acknowledged" => told.fetch_add(1, Ordering::Relaxed),
            _ => break,
        };
    }
    drop(input);
    child.wait().await.expect("wait for the client");
}

/// Passes one connection on from an address of loopback, which is where the server sees its client
/// then. The way to it, and what ends it.
async fn relay(from: IpAddr, to: SocketAddr) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let way = listener.local_addr()?;
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let task = process::start(async move {
        let (mut client, _) = listener.accept().await.expect("a client comes");
        let mut server = socket.connect(to).await.expect("the server is there");
        // Either of them may end it as it likes.
        tokio::io::copy_bidirectional(&mut client, &mut server)
            .await
            .ok();
    });
    Ok((way, task))
}

/// Names and values that an option file sets; what it includes is another file's.
fn options(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.trim(), value.trim().trim_matches('\'')))
}

/// A value as a number where it is one, its unit counted in.
fn plain(value: &str) -> String {
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1_u64 << 30)];
    for (unit, bytes) in units {
        let number = value.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number {
            return (number * bytes).to_string();
        }
    }
    value.to_ascii_uppercase()
}

/// The binary logs that there are, by name and size.
async fn binary_logs(known: &Known, at: &Direct, root: &Access) -> Vec<(String, u64)> {
    let shown = known.ask(at, root, "SHOW BINARY LOGS;").await.unwrap();
    let rows = shown
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    rows.map(|row| (row[0].to_owned(), row[1].parse().unwrap()))
        .collect()
}

/// What the server keeps beside data: binary logs are purged beyond their bound, the oldest first;
/// a file of messages that was renamed is begun anew.
pub(super) async fn bounded_logs(world: &DirectWorld, known: &Known) {
    let server = &world.direct("logs").await;
    let (runtime, host) = (world.runtime(), server.host());
    let id = "01890a5d-ac96-774b-bcce-b302099a8061";
    runtime.personalise(host, id).await.expect("personalise");
    server.start().await;
    conformance::wait_answering(world, server).await;
    let password = Secret::new("pw".to_owned());
    runtime.enable_root(host, &password).await.unwrap();
    let root = Access {
        user: "root".to_owned(),
        password: "pw".to_owned(),
        database: "mysql".to_owned(),
    };
    let all = binary_logs(known, server, &root).await;
    runtime.keep_house(host).await.expect("keep house");
    let kept = binary_logs(known, server, &root).await;
    assert_eq!(kept.first(), all.first(), "what is within bounds is purged");

    // The least that there is: all logs together may be twice of it.
    let fill = "SET GLOBAL max_binlog_size = 4096; CREATE DATABASE app; \
                CREATE TABLE app.t (a TEXT);";
    known.ask(server, &root, fill).await.unwrap();
    let row = format!("INSERT INTO app.t VALUES ('{}');", "x".repeat(3_000));
    known.ask(server, &root, &row.repeat(12)).await.unwrap();
    let all = binary_logs(known, server, &root).await;
    // MariaDB purges no log whose last commits InnoDB has not flushed yet.
    process::until("logs are purged", async || {
        runtime.keep_house(host).await.expect("keep house");
        let kept = binary_logs(known, server, &root).await;
        kept.iter().map(|(_, size)| size).sum::<u64>() <= 2 * 4_096
    })
    .await;
    let kept = binary_logs(known, server, &root).await;
    let names = |logs: &[(String, u64)]| logs.iter().map(|log| log.0.clone()).collect::<Vec<_>>();
    let (kept, all) = (names(&kept), names(&all));
    assert!(
        all.ends_with(&kept),
        "not the oldest went: {kept:?} of {all:?}"
    );

    let log = host.layout().log_dir.join("error.log");
    std::fs::rename(&log, log.with_extension("log.1")).unwrap();
    runtime.keep_house(host).await.expect("keep house");
    assert!(log.exists(), "it goes on in the renamed one");
    assert!(server.stop().await, "it does not stop cleanly");
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.to_lowercase().contains("shutdown"), "{told}");
}

#[async_trait]
impl Client for Known {
    fn engine(&self) -> &'static dyn Engine {
        self.engine
    }

    fn adapt(&self, _name: &str, content: String) -> String {
        content.replace("127.0.0.1,", "")
    }

    fn hasten(&self, _name: &str, content: String) -> String {
        // A killed process loses nothing that it wrote: only a lost machine would.
        content
            .replace("sync_binlog = 1", "sync_binlog = 0")
            .replace("_trx_commit = 1", "_trx_commit = 2")
    }

    fn defer(&self, name: &str, content: String) -> String {
        let hasty = self.hasten(name, content);
        hasty.replace(
            "_trx_commit = 2",
            "_trx_commit = 2\ninnodb_flush_log_at_timeout = 60",
        )
    }

    async fn fingerprint(&self, at: &Direct) -> String {
        let dir = at.layout().data_dir.join("engine").join(self.engine.name());
        let mut found = String::new();
        for name in ["identity.cnf", "auto.cnf", "coffer-uuid"] {
            found.push_str(&std::fs::read_to_string(dir.join(name)).unwrap_or_default());
        }
        found
    }

    async fn served_identity(&self, at: &Direct, root: &Access) -> Option<String> {
        let found = self.variables(at, root).await.expect("read variables");
        let id = found.get("server_id").expect("it has a number");
        // MariaDB has no UUID.
        let uuid = found.get("server_uuid").map_or("", String::as_str);
        Some(format!("{id} {uuid}"))
    }

    async fn login(&self, at: &Direct, access: &Access) -> Result<(), String> {
        self.ask(at, access, "SELECT 1;").await.map(drop)
    }

    async fn make(&self, at: &Direct, access: &Access, name: &str) -> Result<(), String> {
        let sql = format!("CREATE TABLE {} (n bigint);", quote(name));
        self.ask(at, access, &sql).await.map(drop)
    }

    async fn write(&self, at: &Direct, access: &Access, name: &str, count: u64, told: &AtomicU64) {
        let mut client = self.client(at, access, self.trust);
        let child = client.spawn().expect("start the client");
        write_on(child, name, count, told).await;
    }

    async fn count(&self, at: &Direct, access: &Access, name: &str) -> Result<u64, String> {
        let sql = format!("SELECT count(*) FROM {};", quote(name));
        self.number(at, access, &sql).await
    }

    async fn beats(&self, at: &Direct, root: &Access) -> Result<u64, String> {
        let sql = "SELECT beats FROM coffer.probe WHERE id = 1;";
        self.number(at, root, sql).await
    }

    async fn login_from(&self, at: &Direct, access: &Access, from: IpAddr) -> Result<(), String> {
        let (way, relay) = relay(from, at.address).await.map_err(|e| e.to_string())?;
        let client = self.client_to(way, at, access, self.trust);
        let answer = answer_of(client, "SELECT 1;").await;
        relay.abort();
        answer.map(drop)
    }

    /// The server has each line of its option file in force, sizes to the byte, and what an
    /// instance is born with.
    async fn keeps_promises(&self, at: &Direct, root: &Access) -> Result<(), String> {
        let found = self.variables(at, root).await?;
        let file = at.layout().config_dir.join("my.cnf");
        let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
        let rendered = options(&text).filter(|(name, _)| !NO_VARIABLES.contains(name));
        for (name, wanted) in rendered.chain(self.born.iter().copied()) {
            let name = match name {
                "default_time_zone" => "time_zone",
                name => name,
            };
            let value = found
                .get(name)
                .ok_or_else(|| format!("there is no {name}"))?;
            if plain(value) != plain(wanted) {
                return Err(format!("{name} is {value}, {wanted} is promised"));
            }
        }
        Ok(())
    }

    fn ready_words(&self) -> Option<&'static str> {
        Some("ready for connections")
    }

    fn tls_words(&self) -> Option<&'static [&'static str]> {
        Some(&["-starttls", "mysql"])
    }

    fn stalls_when_held(&self) -> bool {
        true
    }
}
