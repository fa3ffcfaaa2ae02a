//! Any engine as its clients see it: numbers written into a published instance, and which of them
//! are kept. What only one engine has is asked of its own client.

use std::collections::BTreeSet;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::coffer::{Coffer, Database, INSTANCE_MAX};
use crate::keyvalue::{KeyValue, tree};
use crate::run::{Ended, wait_until};
use crate::sql::Login;

/// Bytes of ballast that a number is written together with.
const BALLAST_BYTES: usize = 1 << 20;
/// The same where everything is held in memory as well.
const KEY_VALUE_BALLAST_BYTES: usize = 1 << 18;
/// What a flush each second may lose: the engine begins one each second and holds its writes back
/// for two while one lasts; a busy machine is a moment late.
const EVERYSEC_LOSS_MAX: Duration = Duration::from_secs(3);

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is called what it is")]
pub enum Kind {
    Postgresql,
    Mysql,
    Mariadb,
    Redis,
    Valkey,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Postgresql,
        Self::Mysql,
        Self::Mariadb,
        Self::Redis,
        Self::Valkey,
    ];

    /// Name of its datastore.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }

    /// Words in the command line of its server, and of nothing else in a sandbox.
    pub const fn process(self) -> &'static str {
        match self {
            Self::Postgresql => "bin/postgres -D",
            Self::Mysql => "sbin/mysqld ",
            Self::Mariadb => "sbin/mariadbd ",
            Self::Redis => "bin/redis-server",
            Self::Valkey => "bin/valkey-server",
        }
    }

    /// How long before its death by `kill -9` what was acknowledged may be lost.
    pub const fn loss_max(self) -> Duration {
        match self {
            Self::Redis | Self::Valkey => EVERYSEC_LOSS_MAX,
            Self::Postgresql | Self::Mysql | Self::Mariadb => Duration::ZERO,
        }
    }

    const fn is_sql(self) -> bool {
        !matches!(self, Self::Redis | Self::Valkey)
    }
}

/// A published instance with the user `joe`.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its engine.
    pub kind: Kind,
    /// Id of the instance.
    pub id: String,
    /// Published address.
    pub address: String,
    client: Client,
}

#[derive(Debug, Clone)]
enum Client {
    Postgresql(Database),
    Sql(Login),
    KeyValue(KeyValue),
}

impl From<&Database> for Served {
    fn from(db: &Database) -> Self {
        Self {
            kind: Kind::Postgresql,
            id: db.id.clone(),
            address: db.address.clone(),
            client: Client::Postgresql(db.clone()),
        }
    }
}

/// Asks for an instance in the smallest flavor and waits for nothing; what was answered.
pub fn ask(coffer: &Coffer, kind: Kind, name: &str) -> Result<Value> {
    let mut words = vec!["--json", "instance", "create", name, "--flavor", "tiny"];
    words.extend(["--datastore", kind.name(), "--public", "--user", "joe"]);
    words.extend(
        kind.is_sql()
            .then_some(["--database", "app"])
            .into_iter()
            .flatten(),
    );
    coffer.coffer(&words)?.json()
}

/// An instance of each engine, made at the same time.
pub fn one_of_each(coffer: &Coffer) -> Result<Vec<Served>> {
    let asked = Kind::ALL.map(|kind| Ok((kind, ask(coffer, kind, kind.name())?)));
    let asked = asked.into_iter().collect::<Result<Vec<_>>>()?;
    let served = asked.iter().map(|(kind, answer)| {
        let id = answer["id"].as_str().context("no id")?;
        coffer.await_active(id)?;
        let one = Served::of(coffer, *kind, answer)?;
        one.begin()?;
        Ok(one)
    });
    served.collect()
}

impl Served {
    /// One that is in service, with the answer to who asked for it.
    pub fn of(coffer: &Coffer, kind: Kind, answer: &Value) -> Result<Self> {
        let id = answer["id"].as_str().context("no id")?.to_owned();
        let password = answer["passwords"]["joe"].as_str();
        let password = password.context("no password")?.to_owned();
        let address = coffer.address(&id)?;
        let shown = coffer.show(&id)?.context("the instance is gone")?;
        let version = shown["datastore"]["version"].as_str();
        let version = version.context("no version")?;
        let login = |program| {
            Ok::<_, anyhow::Error>(Login {
                tree: tree(coffer, &format!("{}-{version}", kind.name()))?,
                program,
                address: address.clone(),
                ca: coffer.project_ca("demo")?,
                user: "joe".to_owned(),
                password: password.clone(),
                database: "app".to_owned(),
            })
        };
        let client = match kind {
            Kind::Postgresql => Client::Postgresql(Database {
                id: id.clone(),
                address: address.clone(),
                password,
            }),
            Kind::Mysql => Client::Sql(login("mysql")?),
            Kind::Mariadb => Client::Sql(login("mariadb")?),
            Kind::Redis | Kind::Valkey => {
                let version = (kind.name(), version);
                Client::KeyValue(KeyValue::of(coffer, version, &id, answer)?)
            }
        };
        Ok(Self {
            kind,
            id,
            address,
            client,
        })
    }

    fn sql(&self, sql: &str) -> Result<Ended> {
        match &self.client {
            Client::Postgresql(db) => db.psql(sql),
            Client::Sql(login) => login.run(sql),
            Client::KeyValue(_) => bail!("{} knows no SQL", self.kind.name()),
        }
    }

    /// Makes the table for the numbers, where there are tables.
    pub fn begin(&self) -> Result<()> {
        if !self.kind.is_sql() {
            return Ok(());
        }
        let text = match self.kind {
            Kind::Postgresql => "text",
            _ => "LONGTEXT",
        };
        let sql = format!("CREATE TABLE kept (n BIGINT PRIMARY KEY, words {text})");
        self.sql(&sql)?.ok().map(drop)
    }

    /// Whether it answers.
    pub fn answers(&self) -> Result<bool> {
        Ok(match &self.client {
            Client::KeyValue(db) => db.ask(&["PING"])?.out.trim() == "PONG",
            _ => self.sql("SELECT 1")?.code == 0,
        })
    }

    /// Waits until it answers.
    pub fn await_answer(&self) -> Result<()> {
        wait_until(INSTANCE_MAX, || Ok(self.answers()?.then_some(())))
            .with_context(|| format!("{} does not answer", self.kind.name()))
    }

    /// Writes a number; that it was refused is an error.
    pub fn put(&self, n: u64) -> Result<()> {
        match &self.client {
            Client::KeyValue(db) => db.told(&["SADD", "kept", &n.to_string()]).map(drop),
            _ => {
                let sql = format!("INSERT INTO kept (n) VALUES ({n})");
                self.sql(&sql)?.ok().map(drop)
            }
        }
    }

    /// Writes a number with ballast that cannot be made small.
    pub fn put_with_ballast(&self, n: u64) -> Result<()> {
        match &self.client {
            Client::KeyValue(db) => {
                let bytes = KEY_VALUE_BALLAST_BYTES;
                let script = format!(
                    "redis.call('SET', 'ballast' .. {n}, string.rep('x', {bytes})) \
                     return redis.call('SADD', 'kept', {n})"
                );
                db.told(&["EVAL", &script, "0"]).map(drop)
            }
            Client::Postgresql(_) => {
                // In 32 bytes a turn, none like another.
                let turns = BALLAST_BYTES / 32;
                let sql = format!(
                    "INSERT INTO kept SELECT {n}, string_agg(md5(random()::text), '') \
                     FROM generate_series(1, {turns})"
                );
                self.sql(&sql)?.ok().map(drop)
            }
            Client::Sql(_) => {
                let sql = format!("INSERT INTO kept VALUES ({n}, REPEAT('x', {BALLAST_BYTES}))");
                self.sql(&sql)?.ok().map(drop)
            }
        }
    }

    /// The numbers that are there.
    pub fn kept(&self) -> Result<BTreeSet<u64>> {
        let told = match &self.client {
            Client::KeyValue(db) => db.ask(&["SMEMBERS", "kept"])?.ok()?,
            _ => self.sql("SELECT n FROM kept")?.ok()?,
        };
        let lines = told.lines().filter(|line| !line.trim().is_empty());
        let numbers = lines.map(|line| {
            let number = line.trim().parse();
            number.with_context(|| format!("no number: {line}"))
        });
        numbers.collect()
    }

    /// The client, where the engine is Redis or Valkey.
    pub fn key_value(&self) -> Option<&KeyValue> {
        match &self.client {
            Client::KeyValue(db) => Some(db),
            _ => None,
        }
    }

    /// A client that is told what to do on its standard input, and answers on its output.
    pub(crate) fn start_client(&self) -> Result<Child> {
        match &self.client {
            Client::Postgresql(db) => db.start_client(),
            Client::Sql(login) => login.start_client(),
            Client::KeyValue(db) => db.start_client(),
        }
    }

    /// What such a client is told to write a number.
    pub(crate) fn line(&self, n: u64) -> String {
        match self.kind {
            Kind::Postgresql => format!("INSERT INTO kept (n) VALUES ({n}) RETURNING n;"),
            Kind::Mysql | Kind::Mariadb => {
                format!("INSERT INTO kept (n) VALUES ({n}); SELECT {n};")
            }
            Kind::Redis | Kind::Valkey => format!("SADD kept {n}"),
        }
    }

    /// Whether it said that the number is written.
    pub(crate) fn is_acknowledged(&self, n: u64, answer: &str) -> bool {
        match self.kind.is_sql() {
            true => answer == n.to_string(),
            // The client asks once more when its connection breaks, and then it is there already.
            false => matches!(answer, "0" | "1"),
        }
    }

    /// All of these are there.
    pub fn has(&self, numbers: impl IntoIterator<Item = u64>) -> Result<()> {
        let kept = self.kept()?;
        let lost: Vec<_> = numbers.into_iter().filter(|n| !kept.contains(n)).collect();
        ensure!(lost.is_empty(), "{} lost {lost:?}", self.kind.name());
        Ok(())
    }
}
