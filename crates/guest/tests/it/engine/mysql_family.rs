//! MySQL and MariaDB: the suite's client of them is the command line client of each root, over TLS.

use std::process::Stdio;

use async_trait::async_trait;
use coffer_engines::Engine;
use coffer_engines::conformance::Access;
use coffer_engines::mariadb::Mariadb;
use coffer_engines::runtime::Program;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::direct::{Client, Direct};

/// One engine with the program that is its client.
#[derive(Debug)]
pub(super) struct Known {
    engine: &'static dyn Engine,
    program: &'static str,
    /// Says that the server's name is not looked at, as the test's certificate has none.
    trust: &'static str,
    /// Says that there is to be no TLS.
    plain: &'static str,
}

/// MySQL.
pub(super) const MYSQL: Known = Known {
    engine: &coffer_engines::mysql::MYSQL,
    program: "/usr/bin/mysql",
    trust: "ssl-mode=REQUIRED",
    plain: "ssl-mode=DISABLED",
};

/// MariaDB.
pub(super) const MARIADB: Known = Known {
    engine: &Mariadb,
    program: "/usr/bin/mariadb",
    trust: "ssl\nskip-ssl-verify-server-cert",
    plain: "skip-ssl",
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
        let options = format!(
            "[client]\nprotocol=TCP\nhost={}\nport={}\nuser={}\npassword={}\n{}\n",
            at.address.ip(),
            at.address.port(),
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
        let mut child = self
            .client(at, access, tls)
            .spawn()
            .expect("start the client");
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

    async fn number(&self, at: &Direct, access: &Access, sql: &str) -> Result<u64, String> {
        let answer = self.ask(at, access, sql).await?;
        let number = answer.trim().parse();
        number.map_err(|_| format!("not a number: {answer}"))
    }
}

fn number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Writes one record after another; each answer that comes back is one acknowledged commit.
async fn write_on(mut child: Child, table: &str, count: u64) -> u64 {
    let mut input = child.stdin.take().expect("it is piped");
    let output = child.stdout.take().expect("it is piped");
    let mut answers = BufReader::new(output).lines();
    let sql = format!(
        "INSERT INTO {} VALUES (1);\nSELECT 'acknowledged';\n",
        quote(table)
    );
    let mut acknowledged = 0;
    while acknowledged < count {
        if input.write_all(sql.as_bytes()).await.is_err() || input.flush().await.is_err() {
            break;
        }
        match answers.next_line().await {
            Ok(Some(line)) if line == "acknowledged" => acknowledged += 1,
            _ => break,
        }
    }
    drop(input);
    child.wait().await.expect("wait for the client");
    acknowledged
}

#[async_trait]
impl Client for Known {
    fn engine(&self) -> &'static dyn Engine {
        self.engine
    }

    fn adapt(&self, name: &str, content: String) -> String {
        let mut content = content.replace("127.0.0.1,", "");
        if name == "my.cnf" {
            // A killed process loses nothing that it wrote: only a lost machine would.
            content = content
                .replace("sync_binlog = 1", "sync_binlog = 0")
                .replace("_trx_commit = 1", "_trx_commit = 2");
        }
        content
    }

    async fn fingerprint(&self, at: &Direct) -> String {
        let dir = at.layout().data_dir.join("engine").join(self.engine.name());
        let mut found = String::new();
        for name in ["identity.cnf", "auto.cnf", "coffer-uuid"] {
            found.push_str(&std::fs::read_to_string(dir.join(name)).unwrap_or_default());
        }
        found
    }

    async fn login(&self, at: &Direct, access: &Access) -> Result<(), String> {
        self.ask(at, access, "SELECT 1;").await.map(drop)
    }

    async fn make(&self, at: &Direct, access: &Access, name: &str) -> Result<(), String> {
        let sql = format!("CREATE TABLE {} (n bigint);", quote(name));
        self.ask(at, access, &sql).await.map(drop)
    }

    async fn write(&self, at: &Direct, access: &Access, name: &str, count: u64) -> u64 {
        let mut client = self.client(at, access, self.trust);
        let child = client.spawn().expect("start the client");
        write_on(child, name, count).await
    }

    async fn count(&self, at: &Direct, access: &Access, name: &str) -> Result<u64, String> {
        let sql = format!("SELECT count(*) FROM {};", quote(name));
        self.number(at, access, &sql).await
    }

    async fn beats(&self, at: &Direct, root: &Access) -> Result<u64, String> {
        let sql = "SELECT beats FROM coffer.probe WHERE id = 1;";
        self.number(at, root, sql).await
    }
}
