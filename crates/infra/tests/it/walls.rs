//! A hostile guest: root inside its sandbox, trying by name what would lead out of it.

use std::collections::BTreeMap;

use coffer_core::id::ServerId;

use crate::world::World;

/// Every attempt is refused, and what is in sight is the sandbox's own.
pub(crate) async fn hostile(w: &World) {
    let net = w.network("10.9.6.0/24");
    w.ensure_network(&net).await;
    let server = w.member(&net, 11).await;
    let told = w.ask(server.id, "attack").await;
    let attempts: BTreeMap<&str, &str> = told
        .split(';')
        .filter_map(|attempt| attempt.split_once('='))
        .collect();
    assert!(attempts.len() >= 20, "{told}");
    let through: Vec<_> = attempts
        .iter()
        .filter(|(_, fate)| **fate != "refused")
        .collect();
    assert!(through.is_empty(), "not refused: {through:?}");
    privileges(w, server.id).await;
    sights(w, server.id).await;
}

async fn privileges(w: &World, id: ServerId) {
    let status = w.ask(id, "show /proc/self/status").await;
    let field = |name: &str| {
        let rest = status.split(name).nth(1).expect("the field is there");
        rest.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP and nothing else.
    assert_eq!(field("CapBnd:"), "00000000000001eb");
    assert_eq!(field("CapEff:"), "00000000000001eb");
    assert_eq!(field("Pid:"), "1");
}

/// What is in sight is the sandbox's own.
async fn sights(w: &World, id: ServerId) {
    assert_eq!(
        w.ask(id, "list /dev").await,
        "fd full null random shm stderr stdin stdout tty urandom zero"
    );
    assert_eq!(w.ask(id, "list /usr/lib/coffer").await, "coffer-guest");
    assert_eq!(w.ask(id, "list /sys").await, "error");
    let root = w.ask(id, "list /").await;
    assert_eq!(
        root,
        "bin data dev etc lib lib64 opt proc root run tmp usr var"
    );
    let mounts = w.ask(id, "show /proc/self/mounts").await;
    for line in mounts.split(" 0 0 ") {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, at, _, options, ..] = fields.as_slice() {
            assert!(options.contains("nosuid"), "{line}");
            let has_nodev = options.contains("nodev");
            assert!(
                has_nodev || at.starts_with("/dev") || at.starts_with("/proc"),
                "{line}"
            );
        }
    }
    assert!(!mounts.contains("cgroup"), "{mounts}");
    assert!(
        w.ask(id, "show /etc/passwd")
            .await
            .contains("coffer-agent:x:700")
    );
    let groups = w.ask(id, "show /proc/self/cgroup").await;
    assert!(
        !groups.contains("coffer-"),
        "the host's groups are not named inside: {groups}"
    );
    let links = w.ask(id, "show /proc/net/dev").await;
    assert!(links.contains("eth0") && links.contains("lo"), "{links}");
    assert_eq!(
        links.matches(':').count(),
        2,
        "two links and no more: {links}"
    );
}
