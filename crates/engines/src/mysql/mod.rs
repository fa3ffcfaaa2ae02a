//! MySQL 9.7: what it has of its own beside `mysql_family`, and what its kin have in common with
//! it. What tells the kin from it is data, in a [`Mysql`] (`percona/`, `pxc/`).

#[cfg(feature = "guest")]
mod bootstrap;

use crate::engine::{ConfigFile, Engine, Operation, RenderContext, Support};
use crate::error::Result;
#[cfg(feature = "guest")]
use crate::mysql_family::Family;
use crate::mysql_family::parameters::Sizes;
use crate::mysql_family::{Dialect, PORT, names, render};

/// The server's program in the engine root.
#[cfg(feature = "guest")]
const SERVER: &str = "/usr/sbin/mysqld";

/// Nothing that a tenant's root persists outlives a restart, and no key pair is made that every
/// clone of a template would share.
#[cfg(feature = "guest")]
const WORDS: &[&str] = &[
    "--secure-file-priv=NULL",
    "--persisted-globals-load=OFF",
    "--plugin-load-add=auth_socket.so",
    "--auto-generate-certs=OFF",
    "--sha256-password-auto-generate-rsa-keys=OFF",
    "--caching-sha2-password-auto-generate-rsa-keys=OFF",
];

const OWN_ACCOUNT: &str = "\
SET SESSION sql_log_bin = 0;
CREATE USER IF NOT EXISTS `coffer-agent`@`localhost` IDENTIFIED WITH auth_socket;
ALTER USER `coffer-agent`@`localhost` IDENTIFIED WITH auth_socket REQUIRE NONE \
WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 \
MAX_USER_CONNECTIONS 0 ACCOUNT UNLOCK;
GRANT ALL PRIVILEGES ON *.* TO `coffer-agent`@`localhost` WITH GRANT OPTION;
CREATE DATABASE IF NOT EXISTS coffer;
CREATE TABLE IF NOT EXISTS coffer.probe \
(id INT PRIMARY KEY, beats BIGINT NOT NULL, at TIMESTAMP(6) NOT NULL);
INSERT IGNORE INTO coffer.probe VALUES (1, 0, NOW(6));
";

/// MySQL, or a kin of it.
#[derive(Debug, Clone, Copy)]
pub struct Mysql {
    /// Its name in the registry.
    pub(crate) name: &'static str,
    /// Versions, newest first.
    pub(crate) versions: &'static [&'static str],
    /// Those of them that neither the tests nor a soak meets.
    pub(crate) unverified: &'static [&'static str],
    /// Whether the project has recipes of its versions' roots.
    pub(crate) has_recipes: bool,
    /// Words of the server's command line that only this one has.
    #[cfg(feature = "guest")]
    pub(crate) words: &'static [&'static str],
    /// Its working half.
    #[cfg(feature = "guest")]
    pub(crate) runtime: fn() -> &'static dyn crate::runtime::EngineRuntime,
}

/// The engine of the datastore `mysql`.
pub const MYSQL: Mysql = Mysql {
    name: "mysql",
    versions: &["9.7"],
    unverified: &[],
    has_recipes: true,
    #[cfg(feature = "guest")]
    words: &[],
    #[cfg(feature = "guest")]
    runtime: || &Family(&MYSQL),
};

/// The pool is made of chunks, and of one more where the last would not be whole: with those of
/// 128 MiB that MySQL has by itself, a small flavor's pool would be larger by half. Unit: MiB.
const fn pool_chunk_mib(pool_mib: u32) -> u32 {
    if pool_mib < 4096 { 8 } else { 128 }
}

/// Parts of the pool that are locked apart. Each is made of whole chunks, so that by itself MySQL
/// would count the host's processors for it and give the pool another size on another host.
const fn pool_instances(vcpus: u32, pool_mib: u32) -> u32 {
    if pool_mib < 1024 || vcpus < 8 {
        1
    } else if vcpus < 32 {
        vcpus / 4
    } else {
        8
    }
}

impl Engine for Mysql {
    fn name(&self) -> &'static str {
        self.name
    }

    fn versions(&self) -> &'static [&'static str] {
        self.versions
    }

    fn unverified_versions(&self) -> &'static [&'static str] {
        self.unverified
    }

    fn has_recipes(&self) -> bool {
        self.has_recipes
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
            Operation::Resize => Support::NotYet("instances of this engine cannot be resized yet"),
            Operation::Backup => Support::NotYet("backups of this engine are not there yet"),
            Operation::Configuration => {
                Support::NotYet("configuration groups of this engine are not there yet")
            }
            Operation::Cluster => Support::NotYet("clusters of this engine are not there yet"),
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
        (self.runtime)()
    }
}

#[cfg_attr(feature = "guest", async_trait::async_trait)]
impl Dialect for Mysql {
    fn name(&self) -> &'static str {
        Engine::name(self)
    }

    fn user_chars_max(&self) -> usize {
        32
    }

    fn overhead_mib(&self) -> u32 {
        192
    }

    fn settings(&self, context: &RenderContext, sizes: &Sizes) -> String {
        let redo = sizes.redo_log_mib;
        let files = if context.memory_mib < 1024 { 4 } else { 16 };
        let chunk = pool_chunk_mib(sizes.buffer_pool_mib);
        let pools = pool_instances(context.vcpus, sizes.buffer_pool_mib);
        format!(
            "innodb_buffer_pool_chunk_size = {chunk}M\ninnodb_buffer_pool_instances = {pools}\n\
             gtid_mode = ON\nenforce_gtid_consistency = ON\nmysqlx = OFF\n\
             log_error_verbosity = 2\nhost_cache_size = 0\ninnodb_redo_log_capacity = {redo}M\n\
             innodb_adaptive_hash_index = OFF\ninnodb_read_io_threads = {files}\n\
             innodb_write_io_threads = {files}\n"
        )
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
        [WORDS, self.words].concat()
    }

    #[cfg(feature = "guest")]
    async fn bootstrap(&self, host: &dyn crate::runtime::EngineHost) -> Result<()> {
        bootstrap::bootstrap(self, host).await
    }

    #[cfg(feature = "guest")]
    fn identity_files(&self, uuid: &str) -> Vec<(&'static str, String)> {
        vec![("auto.cnf", format!("[auto]\nserver-uuid={uuid}\n"))]
    }

    #[cfg(feature = "guest")]
    fn identified(&self, password: &coffer_core::secret::Secret) -> Result<String> {
        use std::fmt::Write;
        let verifier = crate::mysql_family::verifier::caching_sha2(password.expose())?;
        let mut sql = "IDENTIFIED WITH caching_sha2_password AS 0x".to_owned();
        for byte in verifier.bytes() {
            let _ = write!(sql, "{byte:02x}");
        }
        Ok(sql)
    }

    #[cfg(feature = "guest")]
    fn restrict_root_sql(&self) -> &'static [&'static str] {
        // What is said about Coffer's account is refused so. Whoever writes the tables of accounts,
        // as root may, can take the privilege back; what is spoilt so is mended at the next start.
        &["REVOKE SUPER, SYSTEM_USER ON *.* FROM `root`@`%`"]
    }

    #[cfg(feature = "guest")]
    fn root_sql(&self) -> &'static str {
        "SELECT account_locked = 'N' FROM mysql.user WHERE User = 'root' AND Host = '%'"
    }

    #[cfg(feature = "guest")]
    fn users_sql(&self) -> &'static str {
        "SELECT User, Host FROM mysql.user"
    }

    #[cfg(feature = "guest")]
    fn position_sql(&self) -> &'static str {
        "REPLACE(@@GLOBAL.gtid_executed, '\\n', '')"
    }

    #[cfg(feature = "guest")]
    fn reload_sql(&self) -> &'static str {
        "ALTER INSTANCE RELOAD TLS"
    }

    #[cfg(feature = "guest")]
    fn log_position_sql(&self) -> &'static str {
        "SHOW BINARY LOG STATUS"
    }
}

#[cfg(test)]
mod tests {
    use coffer_core::units::VolumeSize;

    use crate::percona::PERCONA;
    use crate::pxc::PXC;

    use super::*;

    #[test]
    fn kin_are_configured_as_mysql_in_a_directory_of_their_own() {
        let context = RenderContext {
            version: "8.4".to_owned(),
            memory_mib: 512,
            vcpus: 1,
            volume: VolumeSize::gib(1).unwrap(),
            listen: Vec::new(),
            data_dir: "/data".to_owned(),
        };
        for kin in [PERCONA, PXC] {
            let own = format!("/data/engine/{}/", kin.name);
            for (one, other) in kin.render(&context).iter().zip(MYSQL.render(&context)) {
                assert_eq!(
                    one.content.replace(&own, "/data/engine/mysql/"),
                    other.content
                );
            }
        }
    }

    #[test]
    fn a_pool_is_hardly_larger_than_it_was_sized() {
        for pool in [24, 32, 160, 416, 928, 1952, 4000, 4096, 32_000, 200_000] {
            for vcpus in [1, 2, 8, 31, 64] {
                let step = pool_chunk_mib(pool) * pool_instances(vcpus, pool);
                assert!(
                    pool.next_multiple_of(step) - pool <= pool / 4,
                    "{pool} {vcpus}"
                );
                assert!(pool / pool_chunk_mib(pool) <= 1600, "{pool} {vcpus}");
            }
        }
    }

    #[cfg(feature = "guest")]
    #[test]
    fn nothing_is_replicated_by_a_cluster_of_one() {
        let words = PXC.launch_words();
        assert!(words.contains(&"--wsrep-provider=none"), "{words:?}");
        assert!(WORDS.iter().all(|word| words.contains(word)), "{words:?}");
        assert!(
            !MYSQL
                .launch_words()
                .iter()
                .any(|word| word.contains("wsrep"))
        );
    }
}
