//! Bad luck: guests that hang or die, a rebooted host, damaged roots, remains of a crash.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use coffer_core::id::ServerId;
use coffer_infra::conformance::Bench;
use coffer_infra::error::ProviderError;
use coffer_infra::local::{LocalConfig, LocalProvider, VolumeMode};
use coffer_infra::provider::{
    EndpointSpec, NetworkSpec, Origin, Owned, Progress, Provider, ServerSpec, VolumeSpec,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, eventually, make_root, ready, say_to};

/// A guest that does not end by itself is asked, waited for as long as it has grace, and killed.
pub(crate) async fn stubborn(w: &World) {
    let net = w.network("10.9.7.0/24");
    w.ensure_network(&net).await;
    let volume = w.volume(1);
    w.ensure_volume(&volume).await;
    let mut server = w.server(&net, &volume, 11);
    server.boot = server.boot.replacen('{', "{\"stubborn\":true,", 1);
    w.ensure_server(&server).await;
    w.ask(server.id, "write a kept").await;
    let start = Instant::now();
    w.stop(server.id, 600).await;
    let took = start.elapsed().as_millis();
    assert!((600..3000).contains(&took), "{took} ms for a grace of 600");
    w.ensure_server(&server).await;
    assert_eq!(w.ask(server.id, "read a").await, "kept");
    assert_eq!(w.ask(server.id, "read stopped").await, "");
}

/// A launcher that stands still. Calls for the same server say that they wait for it, those for
/// another go on; what hung is asked again once it is gone.
pub(crate) async fn hung_launcher(w: &World) {
    let net = w.network("10.9.6.0/24");
    w.ensure_network(&net).await;
    let volume = w.volume(1);
    w.ensure_volume(&volume).await;
    let server = w.server(&net, &volume, 11);
    let stopped = ["sh", "-c", "kill -STOP $$", "launcher"];
    let config = LocalConfig {
        launcher: stopped.iter().map(|&word| word.to_owned()).collect(),
        ..w.config.clone()
    };
    let hung = LocalProvider::open(config).await.unwrap();
    let mut first = hung.ensure_server(&server);
    tokio::select! {
        answer = &mut first => panic!("it does not hang: {answer:?}"),
        () = eventually("the launcher stands still", async || standing_still().is_some()) => {}
    }
    let local = w.local();
    let at = (server.incarnation, server.turn);
    let (again, stop, delete) = tokio::join!(
        local.ensure_server(&server),
        local.stop_server(server.id, at, 0),
        local.delete_server(server.id, server.incarnation),
    );
    for reason in [pending(again), pending(stop), pending(delete)] {
        assert!(reason.contains("an earlier call"), "{reason}");
    }
    let other = w.member(&net, 12).await;
    assert!(w.is_running(other.id).await);

    kill(standing_still().unwrap(), Signal::SIGKILL).unwrap();
    let answer = first.await;
    assert!(answer.is_err(), "{answer:?}");
    w.ensure_server(&server).await;
    w.ask(server.id, "write a kept").await;
}

fn pending<T: std::fmt::Debug>(answer: Result<Progress<T>, ProviderError>) -> String {
    match answer {
        Ok(Progress::Pending { reason, .. }) => reason,
        other => panic!("it does not wait: {other:?}"),
    }
}

/// A child of this process that somebody has stopped.
fn standing_still() -> Option<Pid> {
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut words = stat.rsplit(") ").next()?.split(' ');
        if (words.next(), words.next()) == (Some("T"), Some(own.as_str())) {
            return stat.split(' ').next()?.parse().ok().map(Pid::from_raw);
        }
    }
    None
}

/// A guest killed from outside is seen to be stopped, and a start brings it back.
pub(crate) async fn killed(w: &World) {
    let net = w.network("10.9.8.0/24");
    w.ensure_network(&net).await;
    let server = w.member(&net, 11).await;
    w.ask(server.id, "write a kept").await;
    kill(pid(w, server.id), Signal::SIGKILL).unwrap();
    eventually("the death is noticed", async || {
        !w.is_running(server.id).await
    })
    .await;
    w.reopen().await;
    assert!(!w.is_running(server.id).await);
    w.ensure_server(&server).await;
    assert_eq!(w.ask(server.id, "read a").await, "kept");
    // Another process with the pid that was written down is not taken for the guest.
    let path = w
        .config
        .state_dir
        .join(format!("sandboxes/{}/launched.json", server.id));
    let text = fs::read_to_string(&path).unwrap();
    let mut noted: serde_json::Value = serde_json::from_str(&text).unwrap();
    w.stop(server.id, 5_000).await;
    noted["pid"] = std::process::id().into();
    fs::write(&path, noted.to_string()).unwrap();
    assert!(
        !w.is_running(server.id).await,
        "this very process is not the guest"
    );
    w.ensure_server(&server).await;
    assert!(w.is_running(server.id).await);
}

/// Several are made at once, and removed at once: each is whole, and none takes another's.
pub(crate) async fn many(w: &World) {
    let net = w.network("10.9.12.0/24");
    w.ensure_network(&net).await;
    let servers: Vec<_> = (0..8)
        .map(|n| {
            let volume = w.volume(1);
            let server = w.server(&net, &volume, 11 + n);
            (volume, server)
        })
        .collect();
    let mut made = tokio::task::JoinSet::new();
    for (volume, server) in servers.clone() {
        let provider = w.local();
        made.spawn(async move {
            ready(|| provider.ensure_volume(&volume))
                .await
                .expect("a volume");
            ready(|| provider.ensure_server(&server))
                .await
                .expect("a server");
        });
    }
    made.join_all().await;
    let mut uids = Vec::new();
    for (_, server) in &servers {
        assert!(
            w.ask(server.id, "who")
                .await
                .starts_with(&server.id.to_string())
        );
        uids.push(w.ask(server.id, "boot engine_uid").await);
    }
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), servers.len(), "user ids are shared: {uids:?}");
    let mut gone = tokio::task::JoinSet::new();
    for (_, server) in servers {
        let provider = w.local();
        gone.spawn(async move {
            ready(|| provider.delete_server(server.id, server.incarnation))
                .await
                .expect("gone");
        });
    }
    gone.join_all().await;
}

/// A Coffer that makes, stops and removes servers is killed at one moment after another: what it
/// left is taken up by the next, and removing all of it leaves nothing.
pub(crate) async fn killed_coffer(w: &World) {
    let own = std::env::current_exe().unwrap();
    let dir = w.dir().display().to_string();
    let mode = if w.has_snapshots() { "cow" } else { "fast" };
    // The template is there, so that the moments fall into the making of servers.
    w.ensure_volume(&w.volume(1)).await;
    for (round, after_ms) in [15, 40, 65, 90, 115, 140, 165, 190, 240, 320]
        .into_iter()
        .enumerate()
    {
        let seed = 1000 + 100 * u64::try_from(round).unwrap();
        let mut churning = Command::new(&own)
            .args(["churn", &dir, &w.config.tag, mode, &seed.to_string()])
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        churning.kill().unwrap();
        churning.wait().unwrap();
        w.reopen().await;
        let (net, volume, server, endpoint) = plan(w, seed);
        w.ensure_network(&net).await;
        w.ensure_volume(&volume).await;
        w.ensure_server(&server).await;
        let provider = w.local();
        let made = ready(|| provider.ensure_endpoint(&endpoint))
            .await
            .expect("an endpoint");
        assert!(
            w.ask(server.id, "who")
                .await
                .starts_with(&server.id.to_string())
        );
        let address = made.published.expect("it is published");
        eventually("it is reached", async || {
            say_to(address, "who").await.is_ok()
        })
        .await;
        w.clean().await;
    }
}

/// The other process of [`killed_coffer`]: makes and unmakes until it is killed.
pub(crate) fn churn(dir: &str, tag: &str, mode: &str, seed: &str) -> ExitCode {
    let mode = if mode == "cow" {
        VolumeMode::Cow
    } else {
        VolumeMode::Fast
    };
    let seed = seed.parse().expect("a number");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let w = World::join(dir, tag, mode, seed).await;
        let (net, volume, server, endpoint) = plan(&w, seed);
        let provider = w.local();
        w.ensure_network(&net).await;
        w.ensure_volume(&volume).await;
        loop {
            w.ensure_server(&server).await;
            ready(|| provider.ensure_endpoint(&endpoint))
                .await
                .expect("an endpoint");
            w.stop(server.id, 1_000).await;
        }
    })
}

/// The same objects in both processes: ids come from the seed.
fn plan(w: &World, seed: u64) -> (NetworkSpec, VolumeSpec, ServerSpec, EndpointSpec) {
    w.count_from(seed);
    let net = w.network("10.9.13.0/24");
    let volume = w.volume(1);
    let server = w.server(&net, &volume, 11);
    let endpoint = w.endpoint(&server, true);
    (net, volume, server, endpoint)
}

/// All that a reboot takes (processes, namespaces, mounts, loops, groups, links, routes) is gone:
/// starting the same servers brings them back with the same data and addresses.
pub(crate) async fn reboot(w: &World) {
    let net = w.network("10.9.9.0/24");
    w.ensure_network(&net).await;
    let mut servers = Vec::new();
    for n in [11, 12] {
        let server = w.member(&net, n).await;
        w.ask(server.id, &format!("write a {n}")).await;
        let provider = w.local();
        let endpoint = w.endpoint(&server, true);
        let made = ready(|| provider.ensure_endpoint(&endpoint)).await.unwrap();
        servers.push((n, server, made.published.unwrap()));
    }
    for (_, server, _) in &servers {
        kill(pid(w, server.id), Signal::SIGKILL).unwrap();
    }
    for (_, server, _) in &servers {
        eventually("it is gone", async || !w.is_running(server.id).await).await;
    }
    eventually("its volumes are released", async || {
        !w.traces().iter().any(|line| line.contains(".img"))
    })
    .await;
    w.local().close(true).await.expect("the pool is unmounted");
    eventually("nothing is left", async || {
        w.traces().iter().for_each(|line| forget(line));
        w.traces().is_empty()
    })
    .await;
    w.reopen().await;
    let before = w.local().list_owned().await.unwrap();
    for (n, server, address) in &servers {
        assert!(!w.is_running(server.id).await);
        w.ensure_server(server).await;
        assert_eq!(w.ask(server.id, "read a").await, n.to_string());
        let answer = say_to(*address, "who")
            .await
            .expect("it is published again");
        assert!(answer.starts_with(&server.id.to_string()), "{answer}");
        let link = w.local().tracker_link(net.id, server.network_address);
        assert!(crate::world::say(&link, "who").await.is_ok());
    }
    assert_eq!(before, w.local().list_owned().await.unwrap());
}

/// A root that is missing or cannot initialise is an error that says what to do, and is tried
/// again once it is mended.
pub(crate) async fn broken_root(w: &World) {
    let mut volume = w.volume(1);
    volume.origin = Origin::Template {
        root: "absent".to_owned(),
    };
    let provider = w.local();
    let error = ready(|| provider.ensure_volume(&volume)).await.unwrap_err();
    assert!(error.to_string().contains("build it again"), "{error}");
    let own = std::env::current_exe().unwrap();
    let dir = w.config.roots_dir.join("mended");
    make_root(&dir, &own, "broken");
    volume.origin = Origin::Template {
        root: "mended".to_owned(),
    };
    let error = ready(|| provider.ensure_volume(&volume)).await.unwrap_err();
    assert!(
        error.to_string().contains("this engine cannot initialise"),
        "{error}"
    );
    fs::remove_dir_all(&dir).unwrap();
    make_root(&dir, &own, "1");
    w.ensure_volume(&volume).await;
    let net = w.network("10.9.10.0/24");
    w.ensure_network(&net).await;
    let server = w.server(&net, &volume, 11);
    let rootless = ServerSpec {
        roots: vec!["absent".to_owned()],
        ..server.clone()
    };
    let error = provider.ensure_server(&rootless).await.unwrap_err();
    assert!(matches!(&error, ProviderError::Rejected { .. }), "{error}");
    assert!(error.to_string().contains("coffer image build"), "{error}");
    fs::rename(
        dir.join("tree/usr/lib/coffer"),
        dir.join("tree/usr/lib/elsewhere"),
    )
    .unwrap();
    let damaged = ServerSpec {
        roots: vec!["mended".to_owned()],
        ..server.clone()
    };
    let error = provider.ensure_server(&damaged).await.unwrap_err();
    assert!(
        error.to_string().contains("lacks /usr/lib/coffer"),
        "{error}"
    );
    assert!(!w.is_running(server.id).await);
    w.ensure_server(&server).await;
    assert!(w.is_running(server.id).await);
}

/// What lies about without a record is listed, and deleting what is listed removes it.
pub(crate) async fn remains(w: &World) {
    let net = w.network("10.9.11.0/24");
    w.ensure_network(&net).await;
    let server = w.member(&net, 11).await;
    let unknown = ServerId::from_uuid(w.next_id());
    let name = format!("coffer-{}-i-{}", w.config.tag, unknown.uuid().simple());
    run(&["ip", "netns", "add", &name]);
    let records = w.config.state_dir.join("servers");
    // The record of a running server is lost.
    fs::remove_file(records.join(format!("{}.json", server.id))).unwrap();
    let lost = w.next_id();
    let volumes = if w.has_snapshots() {
        "state/pool/volumes"
    } else {
        "pool/volumes"
    };
    fs::write(w.dir().join(volumes).join(format!("{lost}.part")), "half").unwrap();
    w.reopen().await;
    let owned = w.local().list_owned().await.unwrap();
    let is_there = |what: &dyn Fn(&Owned) -> bool| owned.iter().any(what);
    assert!(
        is_there(&|o| matches!(o, Owned::Server(id, _) if *id == unknown)),
        "{owned:?}"
    );
    assert!(
        is_there(&|o| matches!(o, Owned::Server(id, _) if *id == server.id)),
        "{owned:?}"
    );
    assert!(
        is_there(&|o| matches!(o, Owned::Volume(id, _) if id.uuid() == lost)),
        "{owned:?}"
    );
    let init = pid(w, server.id);
    w.clean().await;
    eventually("the server without a record is ended", async || {
        kill(init, None).is_err()
    })
    .await;
}

fn pid(w: &World, id: ServerId) -> Pid {
    let path = w
        .config
        .state_dir
        .join(format!("sandboxes/{id}/launched.json"));
    let noted: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    Pid::from_raw(i32::try_from(noted["pid"].as_i64().unwrap()).unwrap())
}

/// Undoes, with the host's own tools, what one line of the traces tells of.
fn forget(line: &str) {
    let first = line.split_whitespace().next().unwrap_or_default();
    if first.starts_with("coffer-") {
        run(&["ip", "netns", "delete", first]);
    } else if first.starts_with("/sys/fs/cgroup") {
        // Busy for a moment after its last process died.
        fs::remove_dir(first).ok();
    }
}

fn run(words: &[&str]) {
    let status = Command::new(words[0])
        .args(&words[1..])
        .status()
        .expect("the tool runs");
    assert!(status.success(), "{words:?}");
}
