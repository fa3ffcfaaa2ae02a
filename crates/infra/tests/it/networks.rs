//! Tenant networks and published addresses: who reaches whom, and who does not.

use std::net::SocketAddr;
use std::process::Command;

use coffer_infra::link::GuestLink;
use coffer_infra::provider::{EndpointSpec, NetworkSpec, Provider, ServerSpec};

use crate::world::{World, eventually, hear_in, ready, say, say_to};

/// Two tenants use the same subnet and the same addresses; neither meets the other.
pub(crate) async fn apart(w: &World) {
    let (red, blue) = (w.network("10.9.0.0/24"), w.network("10.9.0.0/24"));
    w.ensure_network(&red).await;
    w.ensure_network(&blue).await;
    let mut members = Vec::new();
    for net in [&red, &blue] {
        let pair = (w.member(net, 11).await, w.member(net, 12).await);
        for server in [&pair.0, &pair.1] {
            let provider = w.local();
            let endpoint = w.endpoint(server, false);
            ready(|| provider.ensure_endpoint(&endpoint))
                .await
                .expect("the port is opened");
        }
        members.push(pair);
    }
    let ours = |net: &NetworkSpec, n| SocketAddr::new(net.subnet.nth(n).unwrap(), 5432);
    for (net, (first, second)) in [&red, &blue].into_iter().zip(&members) {
        // A tracker in the network is answered by this tenant's member, and is seen as itself.
        for (n, server) in [(11, first), (12, second)] {
            let link = w.local().tracker_link(net.id, ours(net, n).ip());
            let answer = say(&link, "who").await.expect("the member answers");
            assert_eq!(answer, format!("{} {}", server.id, net.tracker_address));
        }
        // Members open nothing: not to each other, not to the tracker, not beyond.
        let tracker = net.tracker_address;
        for target in [
            format!("{}", ours(net, 12)),
            format!("{tracker}:7070"),
            format!("{tracker}:22"),
            "192.0.2.2:22".to_owned(),
            "100.64.0.1:22".to_owned(),
        ] {
            let answer = w.ask(first.id, &format!("dial {target}")).await;
            assert!(answer.starts_with("error"), "{target}: {answer}");
        }
        let network = format!("coffer-{}-n-{}", w.config.tag, net.id.uuid().simple());
        let ear = hear_in(&network, SocketAddr::new(tracker, 53));
        // Whether it is told or not: nothing arrives.
        w.ask(first.id, &format!("send {tracker}:53")).await;
        let heard = ear.recv(&mut [0; 64]);
        assert!(heard.is_err(), "a member sent {heard:?} bytes");
    }
    engine_port_is_open_to_the_network_only(w, &red, ours(&red, 11)).await;
    let routes = Command::new("ip")
        .args(["route", "get", "10.9.0.11"])
        .output()
        .unwrap();
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    assert!(
        !routes.contains("coffer") && !routes.contains(&w.config.tag),
        "{routes}"
    );
}

async fn engine_port_is_open_to_the_network_only(w: &World, net: &NetworkSpec, at: SocketAddr) {
    let GuestLink::TrackerPort { path, .. } = w.local().tracker_link(net.id, at.ip()) else {
        panic!("the link leads through a namespace");
    };
    let engine = GuestLink::Netns {
        path: path.clone(),
        address: at,
    };
    assert!(say(&engine, "who").await.is_ok());
    let other = GuestLink::Netns {
        path,
        address: SocketAddr::new(at.ip(), 5433),
    };
    let closed = tokio::time::timeout(std::time::Duration::from_millis(300), other.dial()).await;
    assert!(closed.is_err(), "another port does not answer: {closed:?}");
}

/// A member that could send what it likes is still known by its port: frames under another
/// hardware or IP address, or claims to own one, do not pass the bridge.
pub(crate) async fn spoofing(w: &World) {
    let net = w.network("10.9.1.0/24");
    w.ensure_network(&net).await;
    let (good, bad) = (w.member(&net, 11).await, w.member(&net, 12).await);
    let provider = w.local();
    let endpoint = w.endpoint(&good, false);
    ready(|| provider.ensure_endpoint(&endpoint))
        .await
        .expect("its port is opened");
    let ns = format!("coffer-{}-i-{}", w.config.tag, bad.id.uuid().simple());
    // The strongest case: the instance's own rules are gone.
    ip(&["netns", "exec", &ns, "nft", "flush", "ruleset"]);
    let turn = |from: &str, to: &str| {
        ip(&[
            "-n",
            &ns,
            "addr",
            "del",
            &format!("{from}/24"),
            "dev",
            "eth0",
        ]);
        ip(&["-n", &ns, "addr", "add", &format!("{to}/24"), "dev", "eth0"]);
    };
    let dress = |hardware: &str| {
        ip(&["-n", &ns, "link", "set", "eth0", "address", hardware]);
    };
    w.ask(good.id, "who").await;
    let reaches =
        async |target: &str| w.ask(bad.id, &format!("dial {target}")).await == "connected";
    assert!(reaches("10.9.1.11:5432").await, "as itself it is answered");
    assert!(
        !reaches("10.9.1.11:7070").await,
        "the agent is for the tracker"
    );
    assert!(
        !reaches("10.9.1.1:5432").await,
        "the tracker answers nobody"
    );
    turn("10.9.1.12", "10.9.1.77");
    assert!(
        !reaches("10.9.1.11:5432").await,
        "under another IP address it is not"
    );
    turn("10.9.1.77", "10.9.1.12");
    assert!(
        reaches("10.9.1.11:5432").await,
        "as itself it is answered again"
    );
    dress("02:cf:0a:09:01:0b");
    assert!(
        !reaches("10.9.1.11:5432").await,
        "under another hardware address it is not"
    );
    dress("02:cf:0a:09:01:0c");
    assert!(reaches("10.9.1.11:5432").await, "and as itself again");
    claiming(w, &net, &good, &ns).await;
}

/// Claiming the neighbour's address changes nothing for the tracker.
async fn claiming(w: &World, net: &NetworkSpec, good: &ServerSpec, ns: &str) {
    let network = format!("coffer-{}-n-{}", w.config.tag, net.id.uuid().simple());
    ip(&["-n", ns, "addr", "add", "10.9.1.11/24", "dev", "eth0"]);
    for _ in 0..5 {
        ip(&["-n", &network, "neigh", "flush", "all"]);
        let link = w.local().tracker_link(net.id, good.network_address);
        let answer = say(&link, "who").await.expect("the good member answers");
        assert!(answer.starts_with(&good.id.to_string()), "{answer}");
    }
}

/// Asks a published address for its guest, which may be starting.
async fn reach(address: SocketAddr) -> String {
    let answers = async || say_to(address, "who").await.is_ok();
    eventually("the published address answers", answers).await;
    say_to(address, "who").await.expect("it has just answered")
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("ip runs");
    assert!(status.success(), "{words:?}");
}

/// A published address answers whom it should, as who they are, and moves with its endpoint.
pub(crate) async fn published(w: &World) {
    let net = w.network("10.9.2.0/24");
    w.ensure_network(&net).await;
    let (first, second) = (w.member(&net, 11).await, w.member(&net, 12).await);
    let provider = w.local();
    let put = async |spec: &EndpointSpec| {
        let provider = w.local();
        ready(|| provider.ensure_endpoint(spec))
            .await
            .expect("the endpoint is made")
            .published
    };
    let spec = w.endpoint(&first, true);
    let address = put(&spec).await.expect("it is published");
    let gateway = provider.published_pool().nth(1).unwrap();
    assert_eq!(reach(address).await, format!("{} {gateway}", first.id));
    // Only the engine's port, and only towards the instance.
    for port in [7070, 22] {
        let other = SocketAddr::new(address.ip(), port);
        assert!(say_to(other, "who").await.is_err(), "port {port} is closed");
    }
    for target in [format!("{gateway}:22"), "192.0.2.2:22".to_owned()] {
        let answer = w.ask(first.id, &format!("dial {target}")).await;
        assert!(answer.starts_with("error"), "{target}: {answer}");
    }
    // Restricted to others: the host is shut out; let in again by range.
    for (ranges, is_let_in) in [
        (vec!["198.51.100.0/24"], false),
        (vec!["100.64.0.0/10"], true),
    ] {
        let allowed_cidrs = ranges.iter().map(|r| r.parse().unwrap()).collect();
        let restricted = EndpointSpec {
            allowed_cidrs,
            ..spec.clone()
        };
        assert_eq!(put(&restricted).await, Some(address));
        assert_eq!(
            say_to(address, "who").await.is_ok(),
            is_let_in,
            "{ranges:?}"
        );
    }
    // The endpoint moves: same address, other server.
    let moved = EndpointSpec {
        target: Some(second.id),
        ..spec.clone()
    };
    assert_eq!(put(&moved).await, Some(address));
    assert!(reach(address).await.starts_with(&second.id.to_string()));
    // It goes with a stopped server and comes back with it.
    w.stop(second.id, 5_000).await;
    assert!(say_to(address, "who").await.is_err());
    w.ensure_server(&second).await;
    assert!(reach(address).await.starts_with(&second.id.to_string()));
    let other = EndpointSpec {
        published: Some(address),
        ..w.endpoint(&first, true)
    };
    let taken = provider.ensure_endpoint(&other).await;
    assert!(
        taken.is_err(),
        "an address belongs to one endpoint: {taken:?}"
    );
    let hidden = EndpointSpec {
        is_published: false,
        ..moved
    };
    assert_eq!(put(&hidden).await, None);
    assert!(say_to(address, "who").await.is_err());
}
