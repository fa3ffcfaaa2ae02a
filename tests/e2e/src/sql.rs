//! The command line clients of MySQL and MariaDB, from the engine roots of this host.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::run::{Ended, Program};

/// Where engine roots are.
const ROOTS: &str = "/var/cache/coffer/roots";
/// Loader of programs in a root, and where it finds libraries.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Somebody who logs in, at an address.
#[derive(Debug, Clone)]
pub struct Login {
    /// Tree of the root with the client.
    pub tree: PathBuf,
    /// Name of the client in it (`mysql`, `mariadb`).
    pub program: &'static str,
    /// Address.
    pub address: String,
    /// File with the certificate of the project's CA.
    pub ca: PathBuf,
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
    /// Database.
    pub database: String,
}

/// The tree of a recipe's root.
pub fn tree_of(recipe: &str) -> Result<PathBuf> {
    let name = format!("\"name\": \"{recipe}\"");
    for entry in fs::read_dir(ROOTS)?.flatten() {
        let manifest = fs::read_to_string(entry.path().join("manifest.json")).unwrap_or_default();
        if manifest.contains(&name) {
            return Ok(entry.path().join("tree"));
        }
    }
    anyhow::bail!("no root of {recipe} in {ROOTS}")
}

impl Login {
    /// The same as somebody else.
    pub fn as_user(&self, user: &str, password: &str, database: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            database: database.to_owned(),
            ..self.clone()
        }
    }

    /// Runs statements over TLS, the server's certificate and name looked at.
    pub fn run(&self, sql: &str) -> Result<Ended> {
        self.run_with(&self.verified(), sql)
    }

    /// The same with these lines for the client about TLS.
    pub fn run_with(&self, tls: &str, sql: &str) -> Result<Ended> {
        let words = self.words(tls)?;
        let words = words.iter().map(String::as_str).chain(["-e", sql]);
        Program::new(&self.loader(), words).run()
    }

    /// The client, told what to do on its standard input.
    #[expect(
        clippy::disallowed_methods,
        reason = "one client writes for the whole test"
    )]
    pub(crate) fn start_client(&self) -> Result<Child> {
        Command::new(self.loader())
            .args(self.words(&self.verified())?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start the client")
    }

    fn verified(&self) -> String {
        let name = if self.program == "mysql" {
            "ssl-mode=VERIFY_IDENTITY"
        } else {
            "ssl-verify-server-cert"
        };
        format!("ssl-ca={}\n{name}\n", self.ca.display())
    }

    fn loader(&self) -> String {
        self.tree.join(LOADER).display().to_string()
    }

    fn words(&self, tls: &str) -> Result<Vec<String>> {
        let dir = self
            .ca
            .parent()
            .context("the file of the CA has a directory")?;
        let file = dir.join(format!("{}-{}.cnf", self.user, tls.len()));
        let text = format!(
            "[client]\nprotocol=TCP\nhost={}\nuser={}\npassword=\"{}\"\nconnect-timeout=5\n{tls}",
            self.address, self.user, self.password
        );
        fs::write(&file, text)?;
        let at = |path: &str| self.tree.join(path).display().to_string();
        Ok(vec![
            "--library-path".to_owned(),
            at(LIBRARIES),
            at(&format!("usr/bin/{}", self.program)),
            format!("--defaults-file={}", file.display()),
            format!(
                "--plugin-dir={}",
                at("usr/lib/x86_64-linux-gnu/libmariadb3/plugin")
            ),
            "--batch".to_owned(),
            "--skip-column-names".to_owned(),
            "--unbuffered".to_owned(),
            format!("--database={}", self.database),
        ])
    }
}

/// Writes without pause until its server or its end comes, and counts what was acknowledged.
#[derive(Debug)]
pub struct Stream {
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Makes the table `stream` and begins.
    pub fn start(login: &Login) -> Result<Self> {
        login
            .run("CREATE TABLE stream (n BIGINT PRIMARY KEY)")?
            .ok()?;
        let client = login.start_client()?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&acknowledged);
        let thread = std::thread::spawn(move || {
            // It ends when the server does, which is what the test is for.
            write_on(client, &count).ok();
        });
        Ok(Self {
            acknowledged,
            thread: Some(thread),
        })
    }

    /// Commits that were acknowledged so far; they are numbered from 1.
    pub fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until the client has ended with its server; what was acknowledged is there.
    pub fn verify(mut self, login: &Login) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            ensure!(thread.join().is_ok(), "the writer panicked");
        }
        let acknowledged = self.count();
        let sql = format!("SELECT COUNT(*) FROM stream WHERE n <= {acknowledged}");
        let kept = login.run(&sql)?.ok()?;
        ensure!(
            kept.trim() == acknowledged.to_string(),
            "{acknowledged} were acknowledged, {kept} are there"
        );
        Ok(())
    }
}

fn write_on(mut client: Child, count: &AtomicU64) -> Result<()> {
    let mut ask = client.stdin.take().context("no standard input")?;
    let output = client.stdout.take().context("no output")?;
    let mut answers = BufReader::new(output).lines();
    let mut converse = || -> Result<()> {
        for n in 1_u64.. {
            writeln!(ask, "INSERT INTO stream VALUES ({n}); SELECT {n};")?;
            let answer = answers.next().context("the client ended")??;
            ensure!(answer == n.to_string(), "{answer}");
            count.store(n, Ordering::Relaxed);
        }
        Ok(())
    };
    let ended = converse();
    client.kill().ok();
    client.wait().ok();
    ended
}
