//! What is published, in the forms that are not the default: a pool that the operator names and
//! ports of the host's address; who is cut off; what happens when something is taken.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use coffer_core::id::ServerId;
use coffer_infra::conformance::Bench;
use coffer_infra::link::GuestLink;
use coffer_infra::local::{HostPorts, LocalConfig, LocalProvider};
use coffer_infra::provider::{EndpointSpec, Provider, ServerSpec};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::world::{SOON, World, converse, eventually, ready, say_to};

/// Pools that tests name.
const POOLS: [&str; 2] = ["198.19.250.16/28", "198.19.250.32/28"];

/// Another machine, as the host sees one: beyond a link over which the host forwards.
struct Outside {
    namespace: String,
    link: String,
    /// The host's address on that link.
    host: IpAddr,
    /// The machine's own.
    own: IpAddr,
}

impl Outside {
    fn new(w: &World) -> Self {
        let net = format!("198.18.{}", std::process::id() & 0xff);
        let made = Self {
            namespace: format!("coffer-outside-{}", w.config.tag),
            link: format!("x{}", w.config.tag),
            host: format!("{net}.1").parse().unwrap(),
            own: format!("{net}.2").parse().unwrap(),
        };
        let (name, link) = (made.namespace.as_str(), made.link.as_str());
        let (host, own) = (format!("{net}.1/30"), format!("{net}.2/30"));
        ip(&["netns", "add", name]);
        ip(&[
            "link", "add", link, "type", "veth", "peer", "name", "up0", "netns", name,
        ]);
        ip(&["addr", "add", &host, "dev", link]);
        ip(&["link", "set", link, "up"]);
        ip(&["-n", name, "addr", "add", &own, "dev", "up0"]);
        ip(&["-n", name, "link", "set", "up0", "up"]);
        ip(&[
            "-n",
            name,
            "route",
            "add",
            "default",
            "via",
            &format!("{net}.1"),
        ]);
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"), "1").unwrap();
        made
    }

    async fn dial(&self, to: SocketAddr) -> Option<TcpStream> {
        let path = format!("/run/netns/{}", self.namespace);
        let link = GuestLink::Netns { path, address: to };
        let dial = tokio::time::timeout(Duration::from_millis(700), link.dial());
        dial.await.ok()?.ok()
    }

    async fn ask(&self, to: SocketAddr) -> Option<String> {
        converse(&mut self.dial(to).await?, "who").await.ok()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for words in [
            ["netns", "del", &self.namespace],
            ["link", "del", &self.link],
        ] {
            Command::new("ip").args(words).output().ok();
        }
        // The guards of pools that were in use belong to the Coffer, which goes on with another.
        for pool in POOLS {
            let words = ["route", "del", "unreachable", pool];
            Command::new("ip").args(words).output().ok();
        }
    }
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("ip runs");
    assert!(status.success(), "{words:?}");
}

fn shown(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Opens the provider anew with another configuration.
async fn configure(w: &World, change: impl FnOnce(&mut LocalConfig)) {
    let mut config = w.config.clone();
    change(&mut config);
    w.local().close(false).await.expect("it is let go");
    w.put_provider(LocalProvider::open(config).await.expect("it opens"));
}

async fn put(w: &World, spec: &EndpointSpec) -> SocketAddr {
    let provider = w.local();
    let made = ready(|| provider.ensure_endpoint(spec)).await;
    made.expect("the endpoint is made")
        .published
        .expect("it is published")
}

async fn two_members(w: &World, subnet: &str) -> (ServerSpec, ServerSpec) {
    let net = w.network(subnet);
    w.ensure_network(&net).await;
    let both = (w.member(&net, 11).await, w.member(&net, 12).await);
    w.ask(both.0.id, "who").await;
    w.ask(both.1.id, "who").await;
    both
}

fn namespace(w: &World, id: ServerId) -> String {
    format!("coffer-{}-i-{}", w.config.tag, id.uuid().simple())
}

/// Nothing but answers comes out of an instance, also when its own rules are gone.
fn says_nothing_by_itself(w: &World, outside: &Outside, server: ServerId, from: IpAddr) {
    let ns = namespace(w, server);
    ip(&["netns", "exec", &ns, "nft", "flush", "ruleset"]);
    let listener = crate::world::listen_in(&outside.namespace, SocketAddr::new(outside.own, 7));
    let target = listener.local_addr().unwrap();
    let answer = crate::world::dial_from(&ns, from, target);
    assert!(answer.is_err(), "an instance reached {target}");
    let host = TcpListener::bind((outside.host, 0)).unwrap();
    let answer = crate::world::dial_from(&ns, from, host.local_addr().unwrap());
    assert!(answer.is_err(), "an instance reached the host");
}

/// Other machines reach an address of the pool that the operator named, as who they are.
pub(crate) async fn pool_of_the_operator(w: &World) {
    let outside = Outside::new(w);
    let pool = POOLS[0].parse().unwrap();
    configure(w, |config| config.published_pool = Some(pool)).await;
    let (first, _) = two_members(w, "10.9.3.0/24").await;
    let spec = w.endpoint(&first, true);
    let at = put(w, &spec).await;
    assert!(pool.contains(at.ip()) && at.port() == 5432, "{at}");
    let seen = format!("{} {}", first.id, outside.own);
    assert_eq!(
        outside.ask(at).await,
        Some(seen.clone()),
        "the client is not hidden"
    );
    for port in [7070, 22, 5433] {
        let closed = SocketAddr::new(at.ip(), port);
        assert!(outside.dial(closed).await.is_none(), "{closed} is open");
    }
    let private = SocketAddr::new(first.network_address, 5432);
    assert!(outside.dial(private).await.is_none(), "{private} is open");
    w.stop(first.id, 5_000).await;
    configure(w, |config| config.published_pool = Some(pool)).await;
    w.ensure_server(&first).await;
    w.ask(first.id, "who").await;
    assert_eq!(put(w, &spec).await, at, "the address stays");
    assert_eq!(outside.ask(at).await, Some(seen));
    says_nothing_by_itself(w, &outside, first.id, at.ip());
    w.reopen().await;
    w.clean().await;
}

/// Ports of one address of the host, by translation of the destination only.
pub(crate) async fn ports_of_the_host(w: &World) {
    let outside = Outside::new(w);
    Command::new("nft")
        .args(["add", "table", "inet", "coffer_other"])
        .status()
        .unwrap();
    let theirs = "chain inet coffer_other input { type filter hook input priority 0; }";
    Command::new("nft").arg("add").arg(theirs).status().unwrap();
    let before = shown("nft", &["list", "ruleset"]);
    let ports: HostPorts = format!("{}:21000-21009", outside.host).parse().unwrap();
    let taken = TcpListener::bind((outside.host, 21000)).unwrap();
    configure(w, |config| config.published_ports = Some(ports)).await;
    let (first, second) = two_members(w, "10.9.4.0/24").await;
    let (spec, other) = (w.endpoint(&first, true), w.endpoint(&second, true));
    let (at, beside) = (put(w, &spec).await, put(w, &other).await);
    let host = outside.host;
    assert_eq!(
        (at, beside),
        ((host, 21001).into(), (host, 21002).into()),
        "21000 is taken"
    );
    let seen = format!("{} {}", first.id, outside.own);
    assert_eq!(
        outside.ask(at).await,
        Some(seen.clone()),
        "the client is not hidden"
    );
    let answer = outside.ask(beside).await.expect("the other answers");
    assert!(answer.starts_with(&second.id.to_string()), "{answer}");
    let own = say_to(at, "who").await.expect("the host itself reaches it");
    assert_eq!(own, format!("{} {host}", first.id));
    // Nothing else is open: no other port, and not the address behind it.
    let inside = SocketAddr::new(w.local().published_pool().nth(2).unwrap(), 5432);
    for closed in [(host, 21003).into(), (host, 5432).into(), inside] {
        assert!(outside.dial(closed).await.is_none(), "{closed} is open");
    }
    assert!(
        say_to(inside, "who").await.is_err(),
        "{inside} is open to the host"
    );
    // The same over restarts of the instance and of Coffer.
    w.stop(first.id, 5_000).await;
    configure(w, |config| config.published_ports = Some(ports)).await;
    w.ensure_server(&first).await;
    w.ask(first.id, "who").await;
    assert_eq!(put(w, &spec).await, at);
    assert_eq!(outside.ask(at).await, Some(seen));
    let from = w.local().published_pool().nth(2).unwrap();
    says_nothing_by_itself(w, &outside, first.id, from);
    w.reopen().await;
    w.clean().await;
    drop(taken);
    assert_eq!(
        shown("nft", &["list", "ruleset"]),
        before,
        "the host's rules were touched"
    );
    Command::new("nft")
        .args(["delete", "table", "inet", "coffer_other"])
        .status()
        .unwrap();
}

/// Who loses the right to come loses the connections that are open; the others keep theirs.
pub(crate) async fn cut(w: &World) {
    let outside = Outside::new(w);
    let ports: HostPorts = format!("{}:21010-21019", outside.host).parse().unwrap();
    for is_translated in [false, true] {
        configure(w, |config| match is_translated {
            true => config.published_ports = Some(ports),
            false => config.published_pool = Some(POOLS[1].parse().unwrap()),
        })
        .await;
        let (server, _) = two_members(w, "10.9.5.0/24").await;
        let spec = w.endpoint(&server, true);
        let at = put(w, &spec).await;
        let mut theirs = outside.dial(at).await.expect("anyone may come");
        let mut ours = TcpStream::connect(at).await.expect("the host may come");
        converse(&mut theirs, "who").await.expect("it is answered");
        let us = converse(&mut ours, "who").await.expect("it is answered");
        let us = us.split(' ').nth(1).expect("it says whom it sees");
        let narrow = EndpointSpec {
            allowed_cidrs: vec![us.parse().unwrap()],
            ..spec
        };
        assert_eq!(put(w, &narrow).await, at);
        // Nobody sends a byte: the connection itself ends, at both ends.
        let mut byte = [0_u8];
        let ended = tokio::time::timeout(SOON / 3, theirs.read(&mut byte)).await;
        assert!(!matches!(ended.expect("the connection is cut"), Ok(1..)));
        let peer = format!("dst {}", outside.own);
        let left = shown(
            "ip",
            &[
                "netns",
                "exec",
                &namespace(w, server.id),
                "ss",
                "-Htn",
                "state",
                "connected",
                &peer,
            ],
        );
        assert_eq!(left, "", "the instance still holds a connection");
        assert!(outside.dial(at).await.is_none(), "none comes back");
        converse(&mut ours, "who")
            .await
            .expect("who may stay stays");
        drop(ours);
        w.reopen().await;
        w.clean().await;
    }
}

/// A Coffer that is killed while it moves an endpoint has written down where it leads, or has not;
/// its link is gone, or is not. Moving it again leaves the first server without link and open port,
/// also when it is to lead nowhere; where it leads to, it answers at the same address.
pub(crate) async fn cut_short(w: &World) {
    for (is_written, is_unlinked) in [(true, false), (true, true), (false, true)] {
        for leads_on in [true, false] {
            let (first, second) = two_members(w, "10.9.7.0/24").await;
            let shut = doors(w, &first);
            let spec = w.endpoint(&first, true);
            let at = put(w, &spec).await;
            assert!(say_to(at, "who").await.is_ok(), "the first one answers");
            assert_ne!(doors(w, &first), shut);

            let moved = EndpointSpec {
                target: leads_on.then_some(second.id),
                ..spec
            };
            w.local().close(false).await.expect("it is let go");
            if is_written {
                write_down_the_move(w, &moved, first.id);
            }
            if is_unlinked {
                let link = format!("c{}p", w.config.tag);
                let all = shown("ip", &["-o", "link"]);
                let mut words = all.split([' ', '@']);
                let link = words.find(|word| word.starts_with(&link)).expect("a link");
                ip(&["link", "del", link]);
            }
            let opened = LocalProvider::open(w.config.clone()).await;
            w.put_provider(opened.expect("it opens"));
            assert_eq!(put(w, &moved).await, at, "the address stays");
            if leads_on {
                eventually("the second one answers", async || {
                    let said = say_to(at, "who").await.unwrap_or_default();
                    said.starts_with(&second.id.to_string())
                })
                .await;
            }
            assert_eq!(doors(w, &first), shut, "a link or a rule of it is left");
            w.reopen().await;
            w.clean().await;
        }
    }
}

/// Links and rules of a server's namespace.
fn doors(w: &World, server: &ServerSpec) -> (String, String) {
    let ns = namespace(w, server.id);
    let rules = ["netns", "exec", &ns, "nft", "list", "ruleset"];
    let links = shown("ip", &["-n", &ns, "-o", "link"]);
    (links, shown("ip", &rules))
}

/// What a Coffer has written that is killed before it took the link away.
fn write_down_the_move(w: &World, moved: &EndpointSpec, from: ServerId) {
    let records = w.config.state_dir.join("endpoints");
    let path = records.join(format!("{}.json", moved.id));
    let text = std::fs::read_to_string(&path).expect("there is a record");
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["target"] = moved.target.map(|id| id.to_string()).into();
    record["left"] = from.to_string().into();
    std::fs::write(&path, record.to_string()).unwrap();
}

/// What is taken on the host is not taken away: a message says what to do, and then it works.
pub(crate) async fn taken(w: &World) {
    let outside = Outside::new(w);
    let ports: HostPorts = format!("{}:21020-21029", outside.host).parse().unwrap();
    for is_translated in [false, true] {
        configure(w, |config| {
            config.published_ports = Some(ports).filter(|_| is_translated)
        })
        .await;
        let (server, _) = two_members(w, "10.9.6.0/24").await;
        let at = put(w, &w.endpoint(&server, true)).await;
        w.stop(server.id, 5_000).await;
        let mut squatter = None;
        let address = format!("{}/32", at.ip());
        if is_translated {
            // As after the host's reboot: our table is gone, and somebody was faster.
            let table = format!("coffer_{}", w.config.tag);
            Command::new("nft")
                .args(["delete", "table", "ip", &table])
                .status()
                .unwrap();
            squatter = Some(TcpListener::bind(at).unwrap());
        } else {
            ip(&["addr", "add", &address, "dev", &outside.link]);
        }
        let refused = w
            .local()
            .ensure_server(&server)
            .await
            .expect_err("it is taken");
        let words = refused.to_string();
        assert!(refused.is_retryable(), "{words}");
        assert!(
            words.contains("taken") && words.contains("publish the instance anew"),
            "{words}"
        );
        if squatter.take().is_none() {
            ip(&["addr", "del", &address, "dev", &outside.link]);
        }
        w.ensure_server(&server).await;
        eventually("it is published there again", async || {
            say_to(at, "who").await.is_ok()
        })
        .await;
        w.reopen().await;
        w.clean().await;
    }
}
