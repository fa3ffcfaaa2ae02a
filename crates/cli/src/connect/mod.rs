//! `coffer connect`: the engine's own client on an instance, through the relay of Coffer's API.
//!
//! The client speaks TLS to the engine itself and checks its certificate; what is between them
//! passes bytes on. It reaches the relay at a port of loopback that is open while it runs. Its
//! password lies in memory of this process, where the client reads it by a path; it is in no
//! argument, no environment and on no disk (but for clients that read no file, whose own
//! environment has it). Without `--user` a user is made for the occasion: it
//! goes when this process does, however that ends.

mod client;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use coffer_wire::rest::v1::connection::{
    Connection, ConnectionEnvelope, RELAY_PROTOCOL, Visit, VisitEnvelope, VisitRequest, WantedVisit,
};
use nix::unistd::geteuid;
use reqwest::Response;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::credentials::Credentials;
use crate::failure::{Failure, Result};
use crate::{Options, instance, password};

/// LIMIT: connections that the client may have at once.
const CONNECTIONS_MAX: usize = 8;
/// LIMIT: first line of the answer to a visit; unit: bytes.
const VISIT_LINE_MAX: usize = 16 << 10;

/// Which instance, as whom.
#[derive(Debug, Args)]
pub struct Connect {
    /// Name or id of the instance
    instance: String,
    /// Connect as this user of the engine, whose password is asked for; without it, as a user made
    /// for the occasion and dropped after
    #[arg(long)]
    user: Option<String>,
    /// Read the password of --user from the first line of this file instead of the terminal
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Database; without it, the only one there is
    #[arg(long)]
    database: Option<String>,
    /// The client program; without it, the one in PATH, or one from an engine root of this host
    #[arg(long, value_name = "PROGRAM")]
    client: Option<PathBuf>,
    /// Where engine roots lie on this host
    #[arg(long, value_name = "DIR", default_value = "/var/cache/coffer/roots")]
    roots_dir: PathBuf,
    /// Words for the client itself (`-- -c 'select 1'`)
    #[arg(last = true)]
    words: Vec<String>,
}

/// Runs the client to its end; the exit code is the client's.
pub async fn run(wanted: Connect, options: &Options) -> Result<ExitCode> {
    let credentials = Credentials::find(options.credentials.as_deref())?;
    let api = Arc::new(Client::connect(&credentials).await?);
    let id = instance::find(&api, &wanted.instance).await?;
    let path = format!("/instances/{id}");
    let answer = api.get(&format!("{path}/connect")).await?;
    let known: ConnectionEnvelope = serde_json::from_value(answer)
        .map_err(|_| Failure::failed("the API did not say how to connect"))?;
    let known = known.connection;
    let program = client::find(&known, &wanted)?;
    let database = choose_database(&wanted, &known)?;
    let (user, secret, visit) = match &wanted.user {
        Some(user) => {
            let secret = {
                let question = format!("Password of {}", crate::output::printable(user));
                password::read(&question, wanted.password_file.as_deref())?
            };
            (user.clone(), secret, None)
        }
        None => {
            let (made, answer) = visit(&api, &path, database.clone()).await?;
            (made.user, made.password, Some(answer))
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(|e| Failure::failed(format!("listen on loopback: {e}")))?;
    let at = listener.local_addr();
    let at = at.map_err(|e| Failure::failed(format!("listen on loopback: {e}")))?;
    let login = client::Login {
        at,
        user,
        database,
        secret,
    };
    let relay = relay(api, format!("{path}/connect"), listener);
    tokio::select! {
        ended = client::run(&program, &known, &login, &wanted.words) => ended,
        () = relay => Err(Failure::failed("the relay ended")),
        why = stay(visit) => Err(why),
    }
}

/// The database named, else the only one.
fn choose_database(wanted: &Connect, known: &Connection) -> Result<Option<String>> {
    match (&wanted.database, known.databases.as_slice()) {
        (Some(name), _) => Ok(Some(name.clone())),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only.clone())),
        (None, several) => Err(Failure::usage(format!(
            "the instance has several databases; give --database with one of: {}",
            several.join(", ")
        ))),
    }
}

/// Has a user made; it is there as long as the answer is.
async fn visit(api: &Client, path: &str, database: Option<String>) -> Result<(Visit, Response)> {
    let wanted = VisitRequest {
        visit: WantedVisit { database },
    };
    let mut answer = api
        .post_streaming(&format!("{path}/visits"), &wanted)
        .await?;
    let ended = || Failure::failed("no user could be made for the occasion; try again");
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < VISIT_LINE_MAX {
        let piece = answer.chunk().await.map_err(|_| ended())?;
        line.extend_from_slice(&piece.ok_or_else(ended)?);
    }
    let made: VisitEnvelope = serde_json::from_slice(&line).map_err(|_| ended())?;
    Ok((made.visit, answer))
}

/// Reads signs of life until the visit ends, which it only does before us when something is wrong.
async fn stay(visit: Option<Response>) -> Failure {
    let Some(mut answer) = visit else {
        return std::future::pending().await;
    };
    while let Ok(Some(_)) = answer.chunk().await {}
    Failure::failed("Coffer ended the visit, and with it the user made for the occasion")
}

/// Passes every connection of the client on to the engine.
async fn relay(api: Arc<Client>, path: String, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, peer)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS_MAX {
            connections.spawn(pass_on(Arc::clone(&api), path.clone(), socket, peer));
        }
    }
}

async fn pass_on(api: Arc<Client>, path: String, mut socket: TcpStream, peer: SocketAddr) {
    let Ok(own) = socket.local_addr() else { return };
    if !is_of_this_user(peer, own) {
        return;
    }
    socket.set_nodelay(true).ok();
    match api.upgrade(&path, RELAY_PROTOCOL).await {
        // Either side may end it at any time: that is the client's to say.
        Ok(mut engine) => drop(copy_bidirectional(&mut socket, &mut engine).await),
        Err(failure) => eprintln!("error: {}", crate::output::printable(&failure.message)),
    }
}

/// Whether the other end of a connection on loopback belongs to the user of this process: the port
/// is open to everyone on this machine, the way into the instance is not.
fn is_of_this_user(peer: SocketAddr, own: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    owner(&table, peer, own) == Some(geteuid().as_raw())
}

/// The user of the socket that has `local` for itself and `remote` for its peer, from the kernel's
/// table of connections: the second, third and eighth words of a line.
fn owner(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let (local, remote) = (in_table(local)?, in_table(remote)?);
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_it = words.next()? == local && words.next()? == remote;
        is_it.then(|| words.nth(4)?.parse().ok())?
    })
}

/// An address as the kernel's table writes it: hexadecimal, the address in the machine's order.
fn in_table(at: SocketAddr) -> Option<String> {
    let SocketAddr::V4(at) = at else { return None };
    let address = u32::from_ne_bytes(at.ip().octets());
    Some(format!("{address:08X}:{:04X}", at.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_user_itself_is_passed_on() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap();
        let (dialled, taken) = tokio::join!(TcpStream::connect(own), listener.accept());
        let (_dialled, (_taken, peer)) = (dialled.unwrap(), taken.unwrap());
        assert!(is_of_this_user(peer, own));
        assert!(
            !is_of_this_user(SocketAddr::new(peer.ip(), 0), own),
            "nobody is there"
        );
        let line = "  1: 0100007F:0050 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 \
                    1001        0 7";
        let (peer, own) = (
            "127.0.0.1:80".parse().unwrap(),
            "127.0.0.1:8080".parse().unwrap(),
        );
        assert_eq!(owner(line, peer, own), Some(1001));
        assert_eq!(owner(line, own, peer), None);
    }

    fn known(databases: &[&str]) -> Connection {
        Connection {
            engine: "postgresql".to_owned(),
            version: "17".to_owned(),
            host_name: "i.coffer".to_owned(),
            ca_pem: String::new(),
            databases: databases.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn a_database_is_guessed_only_where_there_is_one() {
        let wanted = |database: Option<&str>| Connect {
            instance: "i".to_owned(),
            user: None,
            password_file: None,
            database: database.map(str::to_owned),
            client: None,
            roots_dir: PathBuf::new(),
            words: Vec::new(),
        };
        let chosen = choose_database(&wanted(None), &known(&["app"])).unwrap();
        assert_eq!(chosen.as_deref(), Some("app"));
        assert_eq!(choose_database(&wanted(None), &known(&[])).unwrap(), None);
        let several = choose_database(&wanted(None), &known(&["a", "b"])).unwrap_err();
        assert!(several.message.contains("a, b"), "{several}");
        let named = choose_database(&wanted(Some("c")), &known(&["a", "b"])).unwrap();
        assert_eq!(named.as_deref(), Some("c"));
    }
}
