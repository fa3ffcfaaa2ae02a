//! Tenant networks: a namespace with a bridge each, and the ports of their members.
//!
//! The network lies in a namespace of its own, so two tenants may use one subnet and nothing in it
//! is routed by the host. The tracker's address is the bridge's own: it dials from there. A member
//! is tied to its hardware and IP address by the bridge's rules.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use coffer_core::id::{NetworkId, ServerId};
use nix::net::if_::if_nametoindex;

use super::failure::{conflict, io, rejected};
use super::firewall::{
    Openings, render_instance, render_links, render_member, render_network, render_probe,
};
use super::host::Host;
use super::names::{self, BRIDGE, TENANT_LINK};
use super::record::NetworkRecord;
use super::{netns, process};
use crate::error::{ProviderError, Result};
use crate::provider::NetworkSpec;

/// Settings of every namespace: no IPv6, and no answering for another link's address.
/// Frames between members pass the bridge's own rules and not those for routed packets.
const SETTINGS: [(&str, &str); 8] = [
    ("ipv4/ip_forward", "0"),
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
];

/// Of an instance's namespace: what begins a connection is dropped where it leaves a link, of which
/// a socket hears nothing, so it gives up after three seconds and not after two minutes.
const SERVER_SETTINGS: [(&str, &str); 1] = [("ipv4/tcp_syn_retries", "1")];

/// Whether the kernel has rules for bridged frames: tried in a namespace that ends at once.
pub(super) fn has_bridge_rules() -> bool {
    netns::run_apart(|| load_rules(&render_network(true))).is_ok()
}

/// Whether the kernel has rules for what leaves a single link: tried likewise.
pub(super) fn has_link_rules() -> bool {
    netns::run_apart(|| load_rules(&render_probe())).is_ok()
}

/// Makes a network if it is not there.
pub(super) fn ensure(host: &Host, spec: &NetworkSpec) -> Result<()> {
    let what = "ensure network";
    let key = spec.id.to_string();
    if !spec.subnet.address().is_ipv4() || !spec.subnet.contains(spec.tracker_address) {
        let why = format!("{}: the local provider has IPv4 networks only", spec.subnet);
        return Err(rejected(what, why));
    }
    let _lock = host.lock("network", &key)?;
    let known = host.networks.find(&key)?;
    let record = NetworkRecord {
        id: spec.id,
        subnet: spec.subnet.to_string(),
        tracker_address: spec.tracker_address,
        complete: known.as_ref().and_then(|k| k.complete),
    };
    if let Some(known) = known
        && (&known.subnet, known.tracker_address) != (&record.subnet, record.tracker_address)
    {
        return Err(conflict(
            what,
            format!("{key} exists with the subnet {}", known.subnet),
        ));
    }
    raise(host, record)
}

/// Makes a known network again if the host has lost it.
pub(super) fn ensure_known(host: &Host, id: NetworkId) -> Result<NetworkRecord> {
    let key = id.to_string();
    let _lock = host.lock("network", &key)?;
    let record = host
        .networks
        .find(&key)?
        .ok_or(ProviderError::NotFound { what: "network" })?;
    raise(host, record.clone())?;
    Ok(record)
}

/// Removes a network; refused while servers are members of it.
pub(super) fn delete(host: &Host, id: NetworkId) -> Result<()> {
    let key = id.to_string();
    let _lock = host.lock("network", &key)?;
    let members = host
        .servers
        .list()?
        .iter()
        .filter(|s| s.network_id == id)
        .count();
    if members > 0 {
        return Err(conflict(
            "delete network",
            format!("{members} servers are members of it"),
        ));
    }
    netns::delete(&host.names.network_path(id))?;
    host.networks.remove(&key)
}

/// Loads the rules of an instance's namespace, the one that the calling thread is in: of the links
/// that are there, where the kernel has rules for single links.
pub(super) fn load_openings(host: &Host, open: &Openings) -> Result<()> {
    match host.has_link_rules {
        true => load_rules(&render_links(open, has_link)),
        false => load_rules(&render_instance(open)),
    }
}

/// Makes a server's port in its network, as one address and no other. Returns the `ip` commands
/// that bring up what the server has of it, for [`raise_inside`].
pub(super) fn attach(
    host: &Host,
    id: ServerId,
    net: &NetworkRecord,
    address: IpAddr,
) -> Result<String> {
    let what = "attach to network";
    let inside = host.names.server_path(id);
    let (port, hardware) = (names::port(id), names::hardware_address(address));
    let member = render_member("add", &port, &hardware, address);
    let link = format!(
        "link add {port} type veth peer name {TENANT_LINK} address {hardware} netns {}\n\
         link set {port} master {BRIDGE} up\n",
        inside.display()
    );
    netns::run_in(&host.names.network_path(net.id), || {
        detach_here(&port, address)?;
        ip(what, &link)?;
        match host.has_bridge_rules {
            true => load_rules(&member),
            false => Ok(()),
        }
    })?;
    let prefix = net.cidr()?.prefix();
    Ok(format!(
        "link set lo up\naddr replace {address}/{prefix} dev {TENANT_LINK}\n\
         link set {TENANT_LINK} up\n"
    ))
}

/// Brings up links of a server's namespace by `ip` commands, after the links that are there got
/// their rules.
pub(super) fn raise_inside(
    host: &Host,
    path: &Path,
    open: &Openings,
    commands: &str,
) -> Result<()> {
    netns::run_in(path, || {
        load_openings(host, open)?;
        ip("raise links", commands)
    })
}

/// Takes a server's port and identity out of its network, if they are there.
pub(super) fn detach(host: &Host, id: ServerId, network: NetworkId, address: IpAddr) -> Result<()> {
    let path = host.names.network_path(network);
    if !netns::is_alive(&path) {
        return Ok(());
    }
    netns::run_in(&path, || detach_here(&names::port(id), address))
}

/// The same from inside the network's namespace.
fn detach_here(port: &str, address: IpAddr) -> Result<()> {
    if !has_link(port) {
        return Ok(());
    }
    let member = render_member("delete", port, &names::hardware_address(address), address);
    // It is not in the set if the attaching call died before that.
    load_rules(&member).ok();
    process::run("detach from network", "ip", &["link", "del", port], None).map(drop)
}

/// Makes a server's own namespace, closed, with nothing but a loopback that is down.
pub(super) fn ensure_server_ns(host: &Host, id: ServerId) -> Result<()> {
    let path = host.names.server_path(id);
    netns::ensure(&path)?;
    netns::run_in(&path, || {
        apply(&SETTINGS)?;
        apply(&SERVER_SETTINGS)
    })
}

/// Runs `ip` commands, one a line, in the namespace that the calling thread is in: `ip -n` would
/// look for a namespace in root's place alone, and mount a `/sys` that a user namespace may not
/// have.
pub(super) fn ip(what: &'static str, commands: &str) -> Result<()> {
    process::run(what, "ip", &["-batch", "-"], Some(commands)).map(drop)
}

/// Loads rules into the namespace that the calling thread is in.
pub(super) fn load_rules(rules: &str) -> Result<()> {
    process::run("load nftables rules", "nft", &["-f", "-"], Some(rules)).map(drop)
}

/// Whether the namespace that the calling thread is in has a link of this name.
pub(super) fn has_link(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

fn raise(host: &Host, mut record: NetworkRecord) -> Result<()> {
    let key = record.id.to_string();
    let path = host.names.network_path(record.id);
    if record.complete.is_some() && record.complete == netns::inode(&path) {
        return Ok(());
    }
    record.complete = None;
    host.networks.put(&key, &record)?;
    netns::ensure(&path)?;
    let address = record.tracker_address;
    let hardware = names::hardware_address(address);
    let add = format!("link add {BRIDGE} address {hardware} type bridge mcast_snooping 0\n");
    let prefix = record.cidr()?.prefix();
    let up = format!(
        "addr replace {address}/{prefix} dev {BRIDGE}\nlink set {BRIDGE} up\nlink set lo up\n"
    );
    netns::run_in(&path, || {
        apply(&SETTINGS)?;
        load_rules(&render_network(host.has_bridge_rules))?;
        let add = if has_link(BRIDGE) { "" } else { &add };
        ip("ensure network", &format!("{add}{up}"))
    })?;
    record.complete = netns::inode(&path);
    host.networks.put(&key, &record)
}

/// Writes settings of the namespace that the calling thread is in.
fn apply(settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        match fs::write(&path, value) {
            // A kernel without IPv6 or bridge filtering has nothing to switch off.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(io("set up namespace", path))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::super::firewall::Published;
    use super::super::names::inner_link;
    use super::*;

    /// The server's address and the member's, in the tenant network and at the published link.
    const TENANT: (&str, &str) = ("10.0.0.2", "10.0.0.9");
    const PUBLISHED: (&str, &str) = ("100.64.0.2", "100.64.0.1");
    /// Asked for, listened on without being asked for, and the member's.
    const PORTS: [u16; 3] = [5432, 6000, 7000];

    /// A server's namespace and one that is everything it can reach; nothing is removed but by
    /// [`Pair::end`].
    struct Pair {
        dir: tempfile::TempDir,
        server: std::path::PathBuf,
        other: std::path::PathBuf,
    }

    impl Pair {
        fn new(link: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (server, other) = (dir.path().join("server"), dir.path().join("other"));
            for path in [&server, &other] {
                netns::ensure(path).unwrap();
            }
            let inside = format!(
                "link add {TENANT_LINK} type veth peer name eth0 netns {0}\n\
                 link add {link} type veth peer name eth1 netns {0}\n\
                 addr add {1}/24 dev {TENANT_LINK}\naddr add {2}/30 dev {link}\nlink set lo up\n",
                other.display(),
                TENANT.0,
                PUBLISHED.0
            );
            netns::run_in(&server, || ip("test", &inside)).unwrap();
            let outside = format!(
                "addr add {}/24 dev eth0\naddr add {}/30 dev eth1\nlink set eth0 up\n\
                 link set eth1 up\n",
                TENANT.1, PUBLISHED.1
            );
            netns::run_in(&other, || ip("test", &outside)).unwrap();
            Self { dir, server, other }
        }

        /// Which of the attempts get through.
        fn tried(&self, link: &str, load: impl FnOnce() -> Result<()> + Send) -> Vec<&'static str> {
            let up = format!("link set {TENANT_LINK} up\nlink set {link} up\n");
            let here = netns::run_in(&self.server, || {
                load()?;
                ip("test", &up)?;
                Ok([listen(PORTS[0]), listen(PORTS[1])])
            });
            let there = netns::run_in(&self.other, || Ok(listen(PORTS[2])));
            let (_here, _there) = (here.unwrap(), there.unwrap());
            let attempts = [
                ("member", &self.other, TENANT.0, PORTS[0]),
                ("member elsewhere", &self.other, TENANT.0, PORTS[1]),
                ("client", &self.other, PUBLISHED.0, PORTS[0]),
                ("client elsewhere", &self.other, PUBLISHED.0, PORTS[1]),
                ("itself", &self.server, "127.0.0.1", PORTS[1]),
                ("to a member", &self.server, TENANT.1, PORTS[2]),
                ("to the host", &self.server, PUBLISHED.1, PORTS[2]),
            ];
            let is_through = |(_, from, to, port): &(&str, &std::path::PathBuf, &str, u16)| {
                let to = SocketAddr::new(to.parse().unwrap(), *port);
                let limit = Duration::from_millis(300);
                netns::run_in(from, || Ok(TcpStream::connect_timeout(&to, limit).is_ok())).unwrap()
            };
            let through = attempts.iter().filter(|attempt| is_through(attempt));
            through.map(|attempt| attempt.0).collect()
        }

        fn end(self) {
            for path in [&self.server, &self.other] {
                netns::delete(path).unwrap();
            }
            self.dir.close().unwrap();
        }
    }

    fn listen(port: u16) -> TcpListener {
        TcpListener::bind(("0.0.0.0", port)).unwrap()
    }

    /// Rules for the whole namespace, as a kernel without rules for single links gets them, let
    /// through what the links' own do and nothing else.
    #[test]
    fn both_forms_of_an_instances_rules_let_the_same_through() {
        let link = inner_link(coffer_core::id::EndpointId::from_uuid(uuid::Uuid::nil()));
        for (clients, is_let_in) in [
            (format!("{}/32", PUBLISHED.1), true),
            ("192.0.2.0/24".into(), false),
        ] {
            let open = Openings {
                subnet: "10.0.0.0/24".to_owned(),
                tracker: "10.0.0.1".to_owned(),
                tenant_ports: vec![PORTS[0]],
                published: vec![Published {
                    link: link.clone(),
                    port: PORTS[0],
                    clients: vec![clients.parse().unwrap()],
                }],
            };
            let mut wanted = vec!["member", "client", "itself"];
            wanted.retain(|who| *who != "client" || is_let_in);
            let (whole, links) = (Pair::new(&link), Pair::new(&link));
            let through = whole.tried(&link, || load_rules(&render_instance(&open)));
            assert_eq!(through, wanted, "rules for the whole namespace");
            let through = links.tried(&link, || load_rules(&render_links(&open, has_link)));
            assert_eq!(through, wanted, "rules of its links");
            whole.end();
            links.end();
        }
        let bare = Pair::new(&link);
        let all = bare.tried(&link, || Ok(()));
        assert_eq!(
            all.len(),
            7,
            "without rules everything gets through: {all:?}"
        );
        bare.end();
    }
}
