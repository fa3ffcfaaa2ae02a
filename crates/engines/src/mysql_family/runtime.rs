//! The family's working half: what the agent calls, one line each into the modules beside this.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use coffer_core::secret::Secret;

use super::{
    Dialect, PORT, accounts, binlog, bootstrap, databases, house, identity, inventory, probe,
    quiesce, session,
};
use crate::error::Result;
use crate::runtime::{
    ClientAddress, DatabaseInfo, EngineHost, EngineRuntime, Hold, Inventory, NewUser, ProbeReport,
    Program, StopPlan, TLS_CA, TLS_CERT, TLS_KEY, UserChange,
};

/// SIGTERM, on every architecture.
const SIGTERM: i32 = 15;
/// LIMIT: a clean stop writes every changed page of the buffer pool.
const STOP_GRACE_MS: u64 = 60_000;
/// Name of the file with the server's messages, in the log directory.
const LOG: &str = "error.log";

/// The runtime of one engine of the family.
#[derive(Debug)]
pub(crate) struct Family(pub(crate) &'static dyn Dialect);

#[async_trait]
impl EngineRuntime for Family {
    async fn bootstrap(&self, host: &dyn EngineHost) -> Result<()> {
        self.0.bootstrap(host).await
    }

    async fn personalise(&self, host: &dyn EngineHost, identity: &str) -> Result<()> {
        let datadir = bootstrap::datadir(self.0, host);
        let what = "give the server its identity";
        bootstrap::tool(self.0, host, what, &["identity", &datadir, identity]).await
    }

    fn tool(&self, words: &[&str]) -> Option<io::Result<String>> {
        match words {
            ["identity", datadir, uuid] => {
                let written = identity::write(self.0, Path::new(datadir), uuid);
                Some(written.map(|()| "done".to_owned()))
            }
            ["reopen-binlog", datadir] => {
                let reopened = binlog::reopen(Path::new(datadir));
                Some(reopened.map(|()| "done".to_owned()))
            }
            ["first-sql", path] => {
                let sql = self.0.own_account_sql();
                let sql = format!("{sql}DROP USER IF EXISTS `root`@`localhost`;\nSHUTDOWN;\n");
                Some(std::fs::write(path, sql).map(|()| "done".to_owned()))
            }
            _ => None,
        }
    }

    fn lock_files(&self, host: &dyn EngineHost) -> Vec<PathBuf> {
        // MySQL has one beside its socket, MariaDB none.
        let lock = format!("{}.lock", session::SOCKET);
        vec![host.layout().run_dir.join(lock)]
    }

    fn mend(&self, host: &dyn EngineHost) -> Option<Vec<String>> {
        let datadir = bootstrap::datadir(self.0, host);
        Some(vec![
            self.0.name().to_owned(),
            "reopen-binlog".to_owned(),
            datadir,
        ])
    }

    fn launch(&self, host: &dyn EngineHost) -> Program {
        let layout = host.layout();
        let tls = |name: &str| layout.tls_dir.join(name).display().to_string();
        let config = |name: &str| layout.config_dir.join(name).display().to_string();
        let run = |name: &str| layout.run_dir.join(name).display().to_string();
        let mut args = vec![format!("--defaults-file={}", config("my.cnf"))];
        // The command line outranks every file.
        let settings = [
            ("datadir", bootstrap::datadir(self.0, host)),
            ("tmpdir", bootstrap::tempdir(host)),
            ("port", PORT.to_string()),
            ("socket", run(session::SOCKET)),
            ("pid-file", run("mysqld.pid")),
            ("log-error", layout.log_dir.join(LOG).display().to_string()),
            ("init-file", config("init.sql")),
            // Without its issuer MySQL takes a certificate at its start, and no new one later.
            ("ssl-ca", tls(TLS_CA)),
            ("ssl-cert", tls(TLS_CERT)),
            ("ssl-key", tls(TLS_KEY)),
        ];
        args.extend(settings.map(|(name, value)| format!("--{name}={value}")));
        args.extend(self.0.launch_words().into_iter().map(str::to_owned));
        bootstrap::program(self.0.server(), args, "")
    }

    fn stop_plan(&self) -> StopPlan {
        StopPlan {
            signal: SIGTERM,
            grace_ms: STOP_GRACE_MS,
        }
    }

    fn reopens_logs(&self) -> bool {
        true
    }

    async fn keep_house(&self, host: &dyn EngineHost) -> Result<()> {
        house::keep(host).await
    }

    async fn probe(&self, host: &dyn EngineHost) -> Result<ProbeReport> {
        probe::probe(self.0, host).await
    }

    async fn reload(&self, host: &dyn EngineHost) -> Result<()> {
        let mut own = session::open(host).await?;
        own.run("read the certificate again", self.0.reload_sql())
            .await
    }

    async fn inventory(&self, host: &dyn EngineHost) -> Result<Inventory> {
        inventory::inventory(self.0, host).await
    }

    async fn create_databases(
        &self,
        host: &dyn EngineHost,
        databases: &[DatabaseInfo],
    ) -> Result<()> {
        databases::create(host, databases).await
    }

    async fn drop_database(&self, host: &dyn EngineHost, name: &str) -> Result<()> {
        databases::drop(host, name).await
    }

    async fn create_users(&self, host: &dyn EngineHost, users: &[NewUser]) -> Result<()> {
        accounts::create(self.0, host, users).await
    }

    async fn change_user(&self, host: &dyn EngineHost, change: &UserChange) -> Result<()> {
        accounts::change(self.0, host, change).await
    }

    async fn drop_user(&self, host: &dyn EngineHost, name: &str, from: Option<&str>) -> Result<()> {
        accounts::drop(host, name, from).await
    }

    async fn grant(
        &self,
        host: &dyn EngineHost,
        name: &str,
        from: Option<&str>,
        databases: &[String],
    ) -> Result<()> {
        accounts::grant(host, name, from, databases).await
    }

    async fn revoke(
        &self,
        host: &dyn EngineHost,
        name: &str,
        from: Option<&str>,
        database: &str,
    ) -> Result<()> {
        accounts::revoke(host, name, from, database).await
    }

    async fn enable_root(&self, host: &dyn EngineHost, password: &Secret) -> Result<()> {
        accounts::enable_root(self.0, host, password).await
    }

    async fn disable_root(&self, host: &dyn EngineHost) -> Result<()> {
        accounts::disable_root(host).await
    }

    async fn admit_visitor(&self, host: &dyn EngineHost, user: &NewUser) -> Result<()> {
        accounts::admit_visitor(self.0, host, user).await
    }

    async fn dismiss_visitors(&self, host: &dyn EngineHost, name: Option<&str>) -> Result<()> {
        accounts::dismiss_visitors(host, name).await
    }

    fn client_address(&self, _host: &dyn EngineHost) -> ClientAddress {
        // Over TCP, so that the client's own TLS reaches the server as from outside.
        ClientAddress::Loopback(PORT)
    }

    async fn quiesce(&self, host: &dyn EngineHost) -> Result<Box<dyn Hold>> {
        quiesce::quiesce(self.0, host).await
    }
}
