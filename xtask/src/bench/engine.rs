//! The engines that are measured beside one another: what each is called, and how it is made and
//! started by hand (`by_hand.rs` runs what stands here).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Bench;
use crate::leftovers::names;
use crate::process::Program;

/// Where engine roots lie.
pub const ROOTS: &str = "/var/cache/coffer/roots";

/// An engine.
#[derive(Debug)]
pub struct Engine {
    /// Name of its datastore.
    pub name: &'static str,
    /// Its name and version for people.
    pub title: &'static str,
    /// Recipe of the version that its datastore offers first.
    pub recipe: &'static str,
    /// Name of its processes.
    pub process: &'static str,
    /// Where it listens.
    pub port: u16,
    /// Whether it has databases by name.
    pub has_databases: bool,
    /// Words of the shell: `init` makes a data directory, `serve WORD...` becomes the server, with
    /// plain settings where no words are given. `$as` runs something as its user in its root.
    pub by_hand: &'static str,
    /// What an instance's command line needs beside it to serve on loopback alone.
    pub alone: &'static [&'static str],
}

/// PostgreSQL.
pub const POSTGRESQL: Engine = Engine {
    name: "postgresql",
    title: "PostgreSQL 17",
    recipe: "postgresql-17",
    process: "postgres",
    port: 5432,
    has_databases: true,
    by_hand: r#"
data=/data/engine/pgdata
printf 'local all all trust\nhost all all 127.0.0.1/32 trust\n' >"$dir/root/run/hba"
chmod 0644 "$dir/root/run/hba"
bin=/usr/lib/postgresql/$(ls "$dir/root/usr/lib/postgresql")/bin
init() {
  $as "$bin/initdb" -D $data -U coffer -E UTF8 --locale=C.UTF-8 --locale-provider=builtin \
    --builtin-locale=C.UTF-8 --data-checksums --auth=trust >/dev/null
}
serve() {
  exec $as "$bin/postgres" -D $data -c "port=$port" -c listen_addresses=127.0.0.1 \
    -c hba_file=/run/hba -c unix_socket_directories=/tmp -c wal_level=replica \
    -c summarize_wal=on "$@"
}
"#,
    alone: &[],
};

/// MySQL. By hand it makes no keys of its own, which would take it longer.
pub const MYSQL: Engine = Engine {
    name: "mysql",
    title: "MySQL 9.7",
    recipe: "mysql-9.7",
    process: "mysqld",
    port: 3306,
    has_databases: true,
    by_hand: r#"
data=/data/engine/mysql
plain="--no-defaults --datadir=$data --secure-file-priv=NULL --auto-generate-certs=OFF
  --sha256-password-auto-generate-rsa-keys=OFF --caching-sha2-password-auto-generate-rsa-keys=OFF"
init() {
  $as /usr/sbin/mysqld $plain --initialize-insecure
}
serve() {
  [ $# -gt 0 ] || set -- $plain --mysqlx=OFF --bind-address=127.0.0.1 "--port=$port" \
    --socket=/run/mysqld.sock --pid-file=/run/mysqld.pid
  exec $as /usr/sbin/mysqld "$@"
}
"#,
    alone: &["--bind-address=127.0.0.1", "--server-id=1"],
};

/// MariaDB. By hand it makes no keys of its own, as MySQL.
pub const MARIADB: Engine = Engine {
    name: "mariadb",
    title: "MariaDB 11.8",
    recipe: "mariadb-11.8",
    process: "mariadbd",
    port: 3306,
    has_databases: true,
    by_hand: r#"
data=/data/engine/mariadb
init() {
  $as /usr/bin/mariadb-install-db --no-defaults --datadir=$data --skip-test-db \
    --auth-root-authentication-method=normal --skip-name-resolve --force >/dev/null
}
serve() {
  [ $# -gt 0 ] || set -- --no-defaults --datadir=$data --skip-ssl --bind-address=127.0.0.1 \
    "--port=$port" --socket=/run/mysqld.sock --pid-file=/run/mysqld.pid
  exec $as /usr/sbin/mariadbd "$@"
}
"#,
    alone: &["--bind-address=127.0.0.1", "--server-id=1"],
};

/// Redis.
pub const REDIS: Engine = Engine {
    name: "redis",
    title: "Redis 8.0",
    recipe: "redis-8.0",
    process: "redis-server",
    port: 6379,
    has_databases: false,
    by_hand: r#"
serve() {
  exec $as /usr/bin/redis-server "$@"
}
"#,
    alone: &["--bind", "127.0.0.1"],
};

/// Valkey.
pub const VALKEY: Engine = Engine {
    name: "valkey",
    title: "Valkey 8.1",
    recipe: "valkey-8.1",
    process: "valkey-server",
    port: 6379,
    has_databases: false,
    by_hand: r#"
serve() {
  exec $as /usr/bin/valkey-server "$@"
}
"#,
    alone: &["--bind", "127.0.0.1"],
};

/// All engines.
pub const ALL: [&Engine; 5] = [&POSTGRESQL, &MYSQL, &MARIADB, &REDIS, &VALKEY];

/// The engine of this name.
pub fn named(name: &str) -> Result<&'static Engine> {
    let mut all = ALL.into_iter();
    all.find(|engine| engine.name == name)
        .with_context(|| format!("there is no engine {name}"))
}

impl Engine {
    /// Builds its root, unless this machine has it.
    pub fn build(&self, bench: &Bench) -> Result<()> {
        if self.tree().is_ok() {
            return Ok(());
        }
        let words = ["image", "build", self.recipe];
        let built = Program::new(bench.built.join("coffer"), &words).output();
        built.map(drop)
    }

    /// Tree of its root.
    pub fn tree(&self) -> Result<PathBuf> {
        let found = names(Path::new(ROOTS)).into_iter().find(|root| {
            let recipe = recipe_of(root);
            recipe.is_some_and(|recipe| recipe["name"] == self.recipe)
        });
        let root = found.with_context(|| format!("find the root of {}", self.recipe))?;
        Ok(tree_of(&root))
    }

    /// Whether a root is of this engine.
    pub fn is_of(&self, root: &str) -> bool {
        recipe_of(root).is_some_and(|recipe| recipe["engine"] == self.name)
    }
}

/// Tree of the root with this checksum.
pub fn tree_of(root: &str) -> PathBuf {
    Path::new(ROOTS).join(root).join("tree")
}

/// The recipe that a root was built of.
fn recipe_of(root: &str) -> Option<Value> {
    let text = fs::read_to_string(Path::new(ROOTS).join(root).join("manifest.json")).ok()?;
    let manifest: Value = serde_json::from_str(&text).ok()?;
    manifest.get("recipe").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_datastore_offers_first_is_measured() {
        let images = crate::root().unwrap().join("images");
        for engine in ALL {
            let file = images.join(format!("{}.toml", engine.recipe));
            let recipe: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
            assert_eq!(recipe["engine"].as_str(), Some(engine.name));
            assert_eq!(recipe["default"].as_bool(), Some(true), "{}", engine.recipe);
            let version = recipe["version"].as_str().unwrap();
            assert!(engine.title.ends_with(version), "{}", engine.title);
        }
        assert!(named("valkey").is_ok() && named("oracle").is_err());
    }
}
