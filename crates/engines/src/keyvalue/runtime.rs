//! The working half: what the agent calls, one line each into the modules beside this.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use coffer_core::secret::Secret;

use crate::error::{EngineError, Result};
use crate::keyvalue::session::{accept, ask, ask_all};
use crate::keyvalue::{KeyValue, PORT, accounts, bootstrap, identity, inventory, probe, render};
use crate::runtime::{
    ClientAddress, DatabaseInfo, EngineHost, EngineRuntime, Inventory, NewUser, ProbeReport,
    Program, StopPlan, TLS_CA, TLS_CERT, TLS_KEY, UserChange,
};

/// SIGTERM: the engine writes what is left of its append-only file, flushes it and ends.
const SIGTERM: i32 = 15;
/// LIMIT: a clean stop flushes what was written within about a second. A script that does not end
/// keeps it from stopping, and is killed with it.
const STOP_GRACE_MS: u64 = 20_000;

#[async_trait]
impl EngineRuntime for KeyValue {
    async fn bootstrap(&self, host: &dyn EngineHost) -> Result<()> {
        bootstrap::bootstrap(self, host).await
    }

    async fn personalise(&self, host: &dyn EngineHost, identity: &str) -> Result<()> {
        bootstrap::personalise(self, host, identity).await
    }

    fn tool(&self, words: &[&str]) -> Option<io::Result<String>> {
        match words {
            ["identity", dir, id, secret_hash] => {
                let written = identity::write(Path::new(dir), id, secret_hash);
                Some(written.map(|()| "done".to_owned()))
            }
            _ => None,
        }
    }

    fn launch(&self, host: &dyn EngineHost) -> Program {
        bootstrap::launch(self, host)
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

    async fn probe(&self, host: &dyn EngineHost) -> Result<ProbeReport> {
        probe::probe(self, host).await
    }

    async fn reload(&self, host: &dyn EngineHost) -> Result<()> {
        let file = host.layout().config_dir.join(self.config_file);
        let text = std::fs::read_to_string(file).map_err(|error| EngineError::Failed {
            what: "read the configuration",
            why: error.to_string(),
        })?;
        let changes = render::parse(&text)
            .filter(|(name, _)| !render::ONLY_AT_START.contains(name))
            .map(|(name, value)| ["CONFIG", "SET", name, value])
            .collect::<Vec<_>>();
        let requests: Vec<&[&str]> = changes.iter().map(|words| words.as_slice()).collect();
        for answer in ask_all(host, &requests).await? {
            accept("change the configuration", answer)?;
        }
        let tls = |name| host.layout().tls_dir.join(name).display().to_string();
        // The names are the old ones; what they name is read again, all three at once.
        let (cert, key, ca) = (tls(TLS_CERT), tls(TLS_KEY), tls(TLS_CA));
        let request = [
            "CONFIG",
            "SET",
            "tls-cert-file",
            &cert,
            "tls-key-file",
            &key,
            "tls-ca-cert-file",
            &ca,
        ];
        ask(host, "read the certificate", &request).await.map(drop)
    }

    async fn inventory(&self, host: &dyn EngineHost) -> Result<Inventory> {
        inventory::inventory(host).await
    }

    async fn create_databases(
        &self,
        _host: &dyn EngineHost,
        _databases: &[DatabaseInfo],
    ) -> Result<()> {
        Err(self.no_databases("databases by name"))
    }

    async fn drop_database(&self, _host: &dyn EngineHost, _name: &str) -> Result<()> {
        Err(self.no_databases("databases by name"))
    }

    async fn create_users(&self, host: &dyn EngineHost, users: &[NewUser]) -> Result<()> {
        accounts::create(self, host, users).await
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
        accounts::drop_user(host, name).await
    }

    async fn grant(
        &self,
        _host: &dyn EngineHost,
        _name: &str,
        _from: Option<&str>,
        _databases: &[String],
    ) -> Result<()> {
        Err(self.no_databases("grants of databases"))
    }

    async fn revoke(
        &self,
        _host: &dyn EngineHost,
        _name: &str,
        _from: Option<&str>,
        _database: &str,
    ) -> Result<()> {
        Err(self.no_databases("grants of databases"))
    }

    async fn enable_root(&self, host: &dyn EngineHost, password: &Secret) -> Result<()> {
        accounts::enable_root(host, password).await
    }

    async fn disable_root(&self, host: &dyn EngineHost) -> Result<()> {
        accounts::disable_root(host).await
    }

    async fn admit_visitor(&self, host: &dyn EngineHost, user: &NewUser) -> Result<()> {
        accounts::admit_visitor(self, host, user).await
    }

    async fn dismiss_visitors(&self, host: &dyn EngineHost, name: Option<&str>) -> Result<()> {
        accounts::dismiss_visitors(host, name).await
    }

    fn client_address(&self, _host: &dyn EngineHost) -> ClientAddress {
        // Over TCP, so that the client's own TLS reaches the server as from outside.
        ClientAddress::Loopback(PORT)
    }
}
