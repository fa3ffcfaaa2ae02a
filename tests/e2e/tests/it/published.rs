//! The operator's own forms of publishing, the whole way: a pool that is named, and ports of an
//! address of the host's; with a PostgreSQL behind them and psql on another machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database};
use e2e::run::{Ended, Program, wait_until};

/// How long a change of access may take to hold.
const SOON: Duration = Duration::from_secs(30);

/// Another machine, as the host sees one: beyond a link over which the host forwards.
struct Outside {
    namespace: String,
    link: String,
    /// The host's address on that link.
    host: String,
    /// The machine's own.
    own: String,
    /// A pool that has to be let go of.
    pool: &'static str,
}

impl Outside {
    fn new(number: u8, pool: &'static str) -> Result<Self> {
        let id = std::process::id();
        let (net, first) = (format!("198.19.{}", id & 0x7f), 4 * number);
        let made = Self {
            namespace: format!("coffer-outside-{number}-{id}"),
            link: format!("o{number}p{id}"),
            host: format!("{net}.{}", first + 1),
            own: format!("{net}.{}", first + 2),
            pool,
        };
        let Self {
            namespace,
            link,
            host,
            own,
            ..
        } = &made;
        for line in [
            format!("netns add {namespace}"),
            format!("link add {link} type veth peer name up0 netns {namespace}"),
            format!("addr add {host}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {namespace} addr add {own}/30 dev up0"),
            format!("-n {namespace} link set up0 up"),
            format!("-n {namespace} route add default via {host}"),
        ] {
            Program::new("ip", line.split(' ')).run()?.ok()?;
        }
        fs::write(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"), "1")?;
        Ok(made)
    }

    /// Runs SQL from there.
    fn psql(&self, database: &Database, port: u64, sql: &str) -> Result<Ended> {
        let place = format!(
            "host={} port={port} dbname=app user=joe connect_timeout=3 sslmode=require",
            database.address
        );
        let client = ["psql", "-X", "-A", "-t", "-q", &place, "-c", sql];
        let inside = ["netns", "exec", &self.namespace];
        Program::new("ip", inside.into_iter().chain(client))
            .env("PGPASSWORD", &database.password)
            .run()
    }

    /// It is answered there, as who it is.
    fn is_served(&self, database: &Database, port: u64) -> Result<()> {
        let seen = self
            .psql(database, port, "SELECT host(inet_client_addr())")?
            .ok()?;
        ensure!(seen.trim() == self.own, "the client is seen as {seen}");
        Ok(())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for line in [
            format!("netns del {}", self.namespace),
            format!("link del {}", self.link),
            format!("route del unreachable {}", self.pool),
        ] {
            // What is gone already went with something else.
            Program::new("ip", line.split(' ')).run().ok();
        }
    }
}

/// The port of the published address.
fn port(coffer: &Coffer, id: &str) -> Result<u64> {
    let shown = coffer.show(id)?.context("it is gone")?;
    let addresses = shown["addresses"].as_array().context("no addresses")?;
    let public = addresses.iter().find(|one| one["type"] == "public");
    let public = public.context("not published")?;
    Ok(public["port"].as_u64().unwrap_or(5432))
}

/// The way of a published PostgreSQL: reached, kept over restarts, narrowed, deleted.
fn lives(coffer: &mut Coffer, outside: &Outside, database: &Database) -> Result<()> {
    let (id, at) = (database.id.as_str(), port(coffer, &database.id)?);
    outside.is_served(database, at)?;
    for closed in [at + 1, 22, 7070] {
        let ended = outside.psql(database, closed, "SELECT 1")?;
        ensure!(ended.code != 0, "{closed} is open: {ended:?}");
    }
    coffer
        .coffer(&["instance", "restart", id, "--wait"])?
        .ok()?;
    coffer.stop()?;
    outside.is_served(database, at)?;
    coffer.up()?;
    ensure!(coffer.address(id)? == database.address && port(coffer, id)? == at);
    outside.is_served(database, at)?;
    // Narrowed: it stays published where it was, and who is left out is out.
    let set = |range: &str| {
        coffer
            .coffer(&["instance", "set", id, "--allow", range])?
            .ok()
    };
    set("192.0.2.1/32")?;
    let refused = || {
        let ended = outside.psql(database, at, "SELECT 1")?;
        Ok((ended.code != 0).then_some(()))
    };
    wait_until(SOON, refused).context("who is left out still comes in")?;
    set(&format!("{}/32", outside.own))?;
    let served = || Ok(outside.is_served(database, at).ok());
    wait_until(SOON, served).context("who is let in does not come in")?;
    ensure!(coffer.address(id)? == database.address && port(coffer, id)? == at);
    coffer.coffer(&["instance", "delete", id, "--wait"])?.ok()?;
    let ended = outside.psql(database, at, "SELECT 1")?;
    ensure!(ended.code != 0, "{ended:?}");
    Ok(())
}

#[test]
fn a_pool_of_the_operator_reaches_a_postgresql() -> Result<()> {
    let pool = "198.19.251.16/28";
    let outside = Outside::new(1, pool)?;
    let named = format!("local.published_pool={pool}");
    let mut coffer = Coffer::start_with(&["--set", &named])?;
    let database = coffer.create("pooled")?;
    let last = database.address.strip_prefix("198.19.251.");
    let last: u8 = last.context("not of the pool")?.parse()?;
    ensure!((18..31).contains(&last), "{database:?}");
    ensure!(port(&coffer, &database.id)? == 5432);
    lives(&mut coffer, &outside, &database)
}

#[test]
fn ports_of_the_host_reach_a_postgresql() -> Result<()> {
    let outside = Outside::new(2, "198.19.251.32/28")?;
    let named = format!("local.published_ports={}:21040-21049", outside.host);
    let mut coffer = Coffer::start_with(&["--set", &named])?;
    let database = coffer.create("ported")?;
    ensure!(database.address == outside.host, "{database:?}");
    let other = coffer.create("beside")?;
    let (at, beside) = (port(&coffer, &database.id)?, port(&coffer, &other.id)?);
    ensure!((at, beside) == (21040, 21041), "{at} and {beside}");
    outside.is_served(&other, beside)?;
    // The host itself comes the same way.
    let words = format!("port={at} sslmode=require");
    database.psql_with(&words, "SELECT 1")?.ok()?;
    coffer
        .coffer(&["instance", "delete", &other.id, "--wait"])?
        .ok()?;
    lives(&mut coffer, &outside, &database)
}
