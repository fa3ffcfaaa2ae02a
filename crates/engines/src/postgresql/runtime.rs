//! PostgreSQL, working half: what the agent calls, one line each into the modules beside this.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use coffer_core::secret::Secret;

use crate::error::Result;
use crate::postgresql::{
    PORT, Postgresql, accounts, bootstrap, databases, identity, inventory, probe, quiesce, session,
};
use crate::runtime::{
    ClientAddress, DatabaseInfo, EngineHost, EngineRuntime, Hold, Inventory, NewUser, ProbeReport,
    Program, StopPlan, TLS_CERT, TLS_KEY, UserChange,
};

/// The lock file in the data directory.
pub(super) const LOCK_FILE: &str = "postmaster.pid";
/// SIGINT: PostgreSQL's fast shutdown. The number is the same on every architecture.
const SIGINT: i32 = 2;
/// LIMIT: a clean stop writes a checkpoint, at worst all shared buffers.
const STOP_GRACE_MS: u64 = 60_000;

#[async_trait]
impl EngineRuntime for Postgresql {
    async fn bootstrap(&self, host: &dyn EngineHost) -> Result<()> {
        bootstrap::bootstrap(host).await
    }

    async fn personalise(&self, host: &dyn EngineHost, identity: &str) -> Result<()> {
        bootstrap::personalise(host, identity).await
    }

    fn tool(&self, words: &[&str]) -> Option<io::Result<String>> {
        match words {
            ["identity", pgdata, id] => {
                let written = identity::write(Path::new(pgdata), id);
                Some(written.map(|found| found.as_str().to_owned()))
            }
            _ => None,
        }
    }

    fn lock_files(&self, host: &dyn EngineHost) -> Vec<PathBuf> {
        let socket = format!(".s.PGSQL.{PORT}.lock");
        let data = Path::new(&bootstrap::pgdata(host)).join(LOCK_FILE);
        vec![data, host.layout().run_dir.join(socket)]
    }

    fn launch(&self, host: &dyn EngineHost) -> Program {
        let layout = host.layout();
        let config = |name: &str| layout.config_dir.join(name).display().to_string();
        let tls = |name: &str| layout.tls_dir.join(name).display().to_string();
        let mut args = vec!["-D".to_owned(), bootstrap::pgdata(host)];
        // The command line outranks every file, those that a superuser can write among them.
        let settings = [
            ("config_file", config("postgresql.conf")),
            ("hba_file", config("pg_hba.conf")),
            ("ident_file", config("pg_ident.conf")),
            ("ssl_cert_file", tls(TLS_CERT)),
            ("ssl_key_file", tls(TLS_KEY)),
            ("port", PORT.to_string()),
            (
                "unix_socket_directories",
                layout.run_dir.display().to_string(),
            ),
            ("log_directory", layout.log_dir.display().to_string()),
        ];
        for (name, value) in settings {
            args.push("-c".to_owned());
            args.push(format!("{name}={value}"));
        }
        bootstrap::program(host, "postgres", args)
    }

    fn stop_plan(&self) -> StopPlan {
        StopPlan {
            signal: SIGINT,
            grace_ms: STOP_GRACE_MS,
        }
    }

    async fn probe(&self, host: &dyn EngineHost) -> Result<ProbeReport> {
        probe::probe(host).await
    }

    async fn reload(&self, host: &dyn EngineHost) -> Result<()> {
        let session = session::open_own(host).await?;
        session
            .run("reload the configuration", "SELECT pg_reload_conf()")
            .await
    }

    async fn inventory(&self, host: &dyn EngineHost) -> Result<Inventory> {
        inventory::inventory(host).await
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
        accounts::create(host, users).await
    }

    async fn change_user(&self, host: &dyn EngineHost, change: &UserChange) -> Result<()> {
        accounts::change(host, change).await
    }

    async fn drop_user(
        &self,
        host: &dyn EngineHost,
        name: &str,
        _from: Option<&str>,
    ) -> Result<()> {
        accounts::drop(host, name).await
    }

    async fn grant(
        &self,
        host: &dyn EngineHost,
        name: &str,
        _from: Option<&str>,
        databases: &[String],
    ) -> Result<()> {
        accounts::grant(host, name, databases).await
    }

    async fn revoke(
        &self,
        host: &dyn EngineHost,
        name: &str,
        _from: Option<&str>,
        database: &str,
    ) -> Result<()> {
        accounts::revoke(host, name, database).await
    }

    async fn enable_root(&self, host: &dyn EngineHost, password: &Secret) -> Result<()> {
        accounts::enable_root(host, password).await
    }

    async fn disable_root(&self, host: &dyn EngineHost) -> Result<()> {
        accounts::disable_root(host).await
    }

    async fn admit_visitor(&self, host: &dyn EngineHost, user: &NewUser) -> Result<()> {
        accounts::admit_visitor(host, user).await
    }

    async fn dismiss_visitors(&self, host: &dyn EngineHost, name: Option<&str>) -> Result<()> {
        accounts::dismiss_visitors(host, name).await
    }

    fn client_address(&self, _host: &dyn EngineHost) -> ClientAddress {
        // Over TCP, so that the client's own TLS reaches the server as from outside.
        ClientAddress::Loopback(PORT)
    }

    async fn quiesce(&self, host: &dyn EngineHost) -> Result<Box<dyn Hold>> {
        quiesce::quiesce(host).await
    }
}
