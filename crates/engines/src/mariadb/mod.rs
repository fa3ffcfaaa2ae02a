//! MariaDB 10.11 and 11.8: what it has of its own beside `mysql_family`.

#[cfg(feature = "guest")]
mod bootstrap;

use crate::engine::{ConfigFile, Engine, Operation, RenderContext, Support};
use crate::error::Result;
use crate::mysql_family::parameters::Sizes;
use crate::mysql_family::{Dialect, PORT, names, render};

/// The server's program in the engine root.
#[cfg(feature = "guest")]
const SERVER: &str = "/usr/sbin/mariadbd";

/// No directory of the server's can be read or written by statements but an empty one that the
/// engine's user may not write to: MariaDB has no way to say none at all.
#[cfg(feature = "guest")]
const WORDS: &[&str] = &["--secure-file-priv=/usr/share/empty"];

/// The redo log's size is that of the template: a start with another one would make it anew.
const SETTINGS: &str = "\
binlog_format = ROW
gtid_strict_mode = ON
log_slave_updates = ON
binlog_row_metadata = FULL
log_warnings = 2
host_cache_size = 0
innodb_log_file_size = 64M
aria_pagecache_buffer_size = 2M
aria_log_file_size = 8M
";

/// From 11.4 on no binary log is purged, whatever its age, until so many replicas have read it.
/// <https://mariadb.com/kb/en/replication-and-binary-log-system-variables/>
const PURGES_ALONE: &str = "slave_connections_needed_for_purge = 0\n";

fn waits_for_replicas(version: &str) -> bool {
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(11), Some(4))
}

const OWN_ACCOUNT: &str = "\
SET SESSION sql_log_bin = 0;
CREATE OR REPLACE USER `coffer-agent`@`localhost` IDENTIFIED VIA unix_socket;
GRANT ALL PRIVILEGES ON *.* TO `coffer-agent`@`localhost` WITH GRANT OPTION;
CREATE DATABASE IF NOT EXISTS coffer;
CREATE TABLE IF NOT EXISTS coffer.probe \
(id INT PRIMARY KEY, beats BIGINT NOT NULL, at TIMESTAMP(6) NOT NULL);
INSERT IGNORE INTO coffer.probe VALUES (1, 0, NOW(6));
";

/// The engine of the datastore `mariadb`.
#[derive(Debug, Clone, Copy)]
pub struct Mariadb;

impl Engine for Mariadb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn versions(&self) -> &'static [&'static str] {
        &["11.8", "10.11"]
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn root_user(&self) -> &'static str {
        names::ROOT
    }

    fn has_user_hosts(&self) -> bool {
        true
    }

    fn support(&self, operation: Operation) -> Support {
        match operation {
            Operation::Provision | Operation::Schema | Operation::User => Support::Yes,
            Operation::Resize => Support::NotYet("instances of mariadb cannot be resized yet"),
            Operation::Backup => Support::NotYet("backups of mariadb are not there yet"),
            Operation::Configuration => {
                Support::NotYet("configuration groups of mariadb are not there yet")
            }
            Operation::Cluster => Support::NotYet("clusters of mariadb are not there yet"),
        }
    }

    fn check_database(
        &self,
        name: &str,
        character_set: Option<&str>,
        collate: Option<&str>,
    ) -> Result<()> {
        names::check_database(name)?;
        names::check_locale(character_set, collate)
    }

    fn check_user(&self, name: &str, host: Option<&str>) -> Result<()> {
        names::check_user(self, name, host)
    }

    fn is_reserved_database(&self, name: &str) -> bool {
        names::is_reserved_database(name)
    }

    fn is_reserved_user(&self, name: &str) -> bool {
        names::is_reserved_user(name)
    }

    fn render(&self, context: &RenderContext) -> Vec<ConfigFile> {
        render::files(self, context)
    }

    #[cfg(feature = "guest")]
    fn runtime(&self) -> &'static dyn crate::runtime::EngineRuntime {
        &crate::mysql_family::Family(&Self)
    }
}

#[cfg_attr(feature = "guest", async_trait::async_trait)]
impl Dialect for Mariadb {
    fn name(&self) -> &'static str {
        Engine::name(self)
    }

    fn user_chars_max(&self) -> usize {
        80
    }

    fn overhead_mib(&self) -> u32 {
        112
    }

    fn settings(&self, context: &RenderContext, _sizes: &Sizes) -> String {
        let mut text = SETTINGS.to_owned();
        if waits_for_replicas(&context.version) {
            text.push_str(PURGES_ALONE);
        }
        text
    }

    fn own_account_sql(&self) -> &'static str {
        OWN_ACCOUNT
    }

    #[cfg(feature = "guest")]
    fn server(&self) -> &'static str {
        SERVER
    }

    #[cfg(feature = "guest")]
    fn launch_words(&self) -> Vec<&'static str> {
        WORDS.to_vec()
    }

    #[cfg(feature = "guest")]
    async fn bootstrap(&self, host: &dyn crate::runtime::EngineHost) -> Result<()> {
        bootstrap::bootstrap(self, host).await
    }

    #[cfg(feature = "guest")]
    fn identity_files(&self, uuid: &str) -> Vec<(&'static str, String)> {
        // Which server a transaction came from is told by its number; the UUID is kept for us.
        vec![("coffer-uuid", format!("{uuid}\n"))]
    }

    #[cfg(feature = "guest")]
    fn identified(&self, password: &coffer_core::secret::Secret) -> Result<String> {
        let verifier = crate::mysql_family::verifier::native(password.expose());
        Ok(format!(
            "IDENTIFIED VIA mysql_native_password USING '{verifier}'"
        ))
    }

    #[cfg(feature = "guest")]
    fn restrict_root_sql(&self) -> &'static [&'static str] {
        &[]
    }

    #[cfg(feature = "guest")]
    fn root_sql(&self) -> &'static str {
        "SELECT COALESCE(JSON_VALUE(Priv, '$.account_locked'), 'false') NOT IN ('true', '1') \
         FROM mysql.global_priv WHERE User = 'root' AND Host = '%'"
    }

    #[cfg(feature = "guest")]
    fn users_sql(&self) -> &'static str {
        "SELECT User, Host FROM mysql.user WHERE is_role = 'N'"
    }

    #[cfg(feature = "guest")]
    fn position_sql(&self) -> &'static str {
        "@@GLOBAL.gtid_binlog_pos"
    }

    #[cfg(feature = "guest")]
    fn reload_sql(&self) -> &'static str {
        "FLUSH SSL"
    }

    #[cfg(feature = "guest")]
    fn log_position_sql(&self) -> &'static str {
        "SHOW MASTER STATUS"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_wait_for_replicas_are_told_not_to() {
        for (version, waits) in [
            ("10.11", false),
            ("11.3", false),
            ("11.4", true),
            ("11.8", true),
        ] {
            assert_eq!(waits_for_replicas(version), waits, "{version}");
        }
        assert!(waits_for_replicas("12.0") && !waits_for_replicas("x"));
    }
}
