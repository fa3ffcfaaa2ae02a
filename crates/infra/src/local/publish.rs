//! Endpoints: which ports of an instance are open to whom, and its published address.
//!
//! A published address lies on a second link of the instance, straight from the host, without
//! translation: the client's address stays visible and the host's own rules are left alone. Where
//! ports of a host's address are published instead (`ports.rs`), the link has an address that is
//! known on this host only. What is published belongs to the endpoint and is kept while it exists,
//! on disk, over restarts of the server, of Coffer and of the host. Clients who lose the right to
//! come lose the connections that they have. Without root nothing can be changed in the host's
//! network, and what is published is a port of the host's that a process relays (`relay.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use coffer_core::access::Cidr;
use coffer_core::id::{EndpointId, ServerId};
use coffer_core::units::Incarnation;
use nix::net::if_::if_nameindex;

use super::failure::{conflict, errno, io, outrun, rejected};
use super::firewall::{Openings, Published};
use super::host::Host;
use super::names::{inner_link, is_inner_link};
use super::network::{has_link, ip, load_openings, raise_inside};
use super::record::{
    EndpointRecord, Lock, NetworkRecord, ServerRecord, read_json, remove_file, write_json,
};
use super::{LocalConfig, netns, ports, process, relay};
use crate::error::{ProviderError, Result};
use crate::provider::{EndpointRef, EndpointSpec};

const WHAT: &str = "ensure endpoint";
/// Range that published pools are taken from: shared address space, not routed anywhere.
const SHARED_SPACE: (u32, u8) = (0x6440_0000, 10);
/// Size of a published pool: 1022 addresses.
const POOL_PREFIX: u8 = 22;
/// LIMIT: clients whose connections one call of `ss` ends.
const CUT_AT_ONCE: usize = 64;
/// An address that no client has.
const NOBODY: &str = "0.0.0.0/32";
/// Routing tables of published addresses are numbered from here.
const TABLE_BASE: u32 = 7000;

/// Makes an endpoint as asked.
pub(super) fn ensure(host: &Host, spec: &EndpointSpec) -> Result<EndpointRef> {
    let key = spec.id.to_string();
    let _lock = host.lock("endpoint", &key)?;
    let known = host.endpoints.find(&key)?;
    if host.endpoints.buried(&key)?.is_some() {
        return Err(conflict(WHAT, format!("{key} was deleted")));
    }
    if known.as_ref().is_some_and(|known| known.turn > spec.turn) {
        return Err(outrun(WHAT, &key));
    }
    if let Some(known) = &known {
        take_leave(host, known)?;
    }
    let record = settle(host, spec, known.as_ref())?;
    take_leave(host, &record)?;
    refresh(host, record.target)?;
    Ok(EndpointRef {
        published: record.published,
    })
}

/// Has the server that an endpoint led to before close its ports, if it still has to.
fn take_leave(host: &Host, record: &EndpointRecord) -> Result<()> {
    if record.left.is_none() {
        return Ok(());
    }
    refresh(host, record.left)?;
    let record = EndpointRecord {
        left: None,
        ..record.clone()
    };
    host.endpoints.put(&record.id.to_string(), &record)
}

fn is_same_place(a: &EndpointRecord, b: &EndpointRecord) -> bool {
    (a.target, a.published, a.inside) == (b.target, b.published, b.inside)
}

/// Takes an endpoint's addresses away and forgets it.
pub(super) fn delete(host: &Host, id: EndpointId) -> Result<()> {
    let key = id.to_string();
    let _lock = host.lock("endpoint", &key)?;
    let known = host.endpoints.find(&key)?;
    host.endpoints.bury(&key, Incarnation::default())?;
    unplug(host, id)?;
    host.endpoints.remove(&key)?;
    if let Some(known) = known {
        refresh(host, known.target)?;
        if known.inside.is_some() {
            ports::load(host)?;
        }
    }
    Ok(())
}

/// What may reach a server, from all endpoints that lead to it.
fn openings(host: &Host, all: &[EndpointRecord], net: &NetworkRecord) -> Openings {
    let mut open = Openings {
        subnet: net.subnet.clone(),
        tracker: net.tracker_address.to_string(),
        ..Openings::default()
    };
    for endpoint in all {
        if !open.tenant_ports.contains(&endpoint.port) {
            open.tenant_ports.push(endpoint.port);
        }
        // Without root a relay comes over loopback, and decides itself who may.
        if endpoint.published.is_some() && !host.is_without_root {
            open.published.push(Published {
                link: inner_link(endpoint.id),
                port: endpoint.port,
                clients: clients(endpoint),
            });
        }
    }
    open
}

/// Who may come to a published endpoint; nobody named means anyone. A record that was changed by
/// hand and cannot be read opens nothing: in the place of what it meant stands who is nobody.
fn clients(endpoint: &EndpointRecord) -> Vec<Cidr> {
    let read = |text: &String| {
        text.parse().unwrap_or_else(|_| {
            tracing::warn!(endpoint_id = %endpoint.id, range = %text,
                "a range of clients cannot be read and is shut out");
            NOBODY.parse().expect("it is a range of one address")
        })
    };
    endpoint.allowed_cidrs.iter().map(read).collect()
}

/// Address at an endpoint's published link.
fn inside(endpoint: &EndpointRecord) -> Option<IpAddr> {
    endpoint
        .inside
        .or_else(|| endpoint.published.map(|p| p.ip()))
}

/// Brings up a server's links: those that `own` brings up, and its published ones; its namespace
/// and its lock are there.
pub(super) fn plug_all(
    host: &Host,
    server: ServerId,
    net: &NetworkRecord,
    own: String,
) -> Result<()> {
    // Read once: a link that the rules do not know would be open.
    let all = leading_to(host, server)?;
    plug(host, server, &all, &openings(host, &all, net), own)
}

fn plug(
    host: &Host,
    server: ServerId,
    all: &[EndpointRecord],
    open: &Openings,
    own: String,
) -> Result<()> {
    let (mut commands, mut begun) = (own, Vec::new());
    // One that cannot be made keeps no other down.
    let mut plugged = Ok(());
    for endpoint in all.iter().filter(|_| !host.is_without_root) {
        let Some(address) = inside(endpoint) else {
            continue;
        };
        match begin_link(host, endpoint.id, server, address) {
            Ok(None) => {}
            Ok(Some(more)) => {
                commands.push_str(&more);
                begun.push(endpoint.id);
            }
            Err(error) => plugged = plugged.and(Err(error)),
        }
    }
    if !commands.is_empty() {
        raise_inside(host, &host.names.server_path(server), open, &commands)?;
    }
    for id in begun {
        complete_link(host, id, server)?;
    }
    plugged?;
    if host.is_without_root {
        return all.iter().try_for_each(|e| relay::ensure(host, e, server));
    }
    if all.iter().all(|e| e.inside.is_none()) {
        return Ok(());
    }
    let refused = ports::load(host)?;
    let ours = |at| all.iter().any(|e| e.published == Some(at));
    match refused.into_iter().find(|(at, _)| ours(*at)) {
        Some((_, words)) => Err(conflict(WHAT, words)),
        None => Ok(()),
    }
}

/// Takes the published addresses of a server down; the endpoints keep them.
pub(super) fn unplug_all(host: &Host, server: ServerId) -> Result<()> {
    leading_to(host, server)?
        .iter()
        .try_for_each(|e| unplug(host, e.id))
}

/// The range of published addresses: what the operator named, else one chosen once and kept.
pub(super) fn choose_pool(config: &LocalConfig) -> Result<Cidr> {
    let what = "choose published pool";
    if let Some(pool) = config.published_pool {
        return Ok(pool);
    }
    let path = config.state_dir.join("published-pool.json");
    let _lock = Lock::take(&config.state_dir, "published-pool")?;
    if let Some(kept) = read_json::<String>(&path)? {
        return kept.parse().map_err(|e| rejected(what, e));
    }
    let table = process::run(
        what,
        "ip",
        &["-o", "-4", "route", "show", "table", "all"],
        None,
    )?;
    let taken: Vec<Cidr> = table
        .lines()
        .filter_map(|l| l.split_whitespace().find_map(|word| word.parse().ok()))
        .collect();
    let chosen = free_pool(&config.tag, &taken).ok_or_else(|| {
        rejected(
            what,
            "100.64.0.0/10 is routed already: name a range in local.published_pool",
        )
    })?;
    write_json(&path, &chosen.to_string())?;
    Ok(chosen)
}

/// The first range that the host does not route. Where to begin is told by the tag, so that two
/// Coffers on a host, whose pools show in no route while they are empty, hardly ever share one.
fn free_pool(tag: &str, taken: &[Cidr]) -> Option<Cidr> {
    let count = 1_u32 << (POOL_PREFIX - SHARED_SPACE.1);
    let start = tag
        .bytes()
        .fold(0_u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    (0..count)
        .filter_map(|n| {
            let index = (start.wrapping_add(n)) % count;
            let base = SHARED_SPACE.0 + (index << (32 - POOL_PREFIX));
            Cidr::new(IpAddr::V4(base.into()), POOL_PREFIX).ok()
        })
        .find(|pool| !taken.iter().any(|t| t.overlaps(pool)))
}

/// Decides what is published and writes the endpoint down.
fn settle(
    host: &Host,
    spec: &EndpointSpec,
    known: Option<&EndpointRecord>,
) -> Result<EndpointRecord> {
    let _lock = Lock::take(&host.config.state_dir, "published-addresses")?;
    let others: Vec<EndpointRecord> = host
        .endpoints
        .list()?
        .into_iter()
        .filter(|e| e.id != spec.id)
        .collect();
    let (published, inside) = match spec.is_published {
        false => (None, None),
        true => place(host, spec, known, &others)?,
    };
    let record = EndpointRecord {
        id: spec.id,
        turn: spec.turn,
        network_id: spec.network_id,
        port: spec.port,
        published,
        inside,
        allowed_cidrs: spec.allowed_cidrs.iter().map(ToString::to_string).collect(),
        target: spec.target,
        left: known
            .and_then(|k| k.target)
            .filter(|left| Some(*left) != spec.target),
    };
    let has_moved = known.is_some_and(|known| !is_same_place(known, &record));
    // The link goes before it is written that it has to: whoever is cut short here does it again.
    if has_moved {
        unplug(host, spec.id)?;
    }
    host.endpoints.put(&spec.id.to_string(), &record)?;
    if has_moved {
        // A server that was starting may have made it again by what stood there before.
        unplug(host, spec.id)?;
    }
    Ok(record)
}

/// What is published, and the address at the link where that is another one. What the endpoint had
/// is kept as long as the configuration asks for that form.
fn place(
    host: &Host,
    spec: &EndpointSpec,
    known: Option<&EndpointRecord>,
    others: &[EndpointRecord],
) -> Result<(Option<SocketAddr>, Option<IpAddr>)> {
    let wish = spec.published.or_else(|| known.and_then(|k| k.published));
    let had = known.and_then(|k| k.inside);
    let Some(ports) = &host.config.published_ports else {
        // An endpoint that had a port of the host's gets an address of its own.
        let wish = wish.filter(|_| had.is_none());
        let address = match wish {
            Some(wish) => keep(host, wish.ip(), others)?,
            None => allocate(host, others)?,
        };
        return Ok((Some(SocketAddr::new(address, spec.port)), None));
    };
    let at = match wish.filter(|wish| ports.contains(*wish)) {
        Some(wish) if others.iter().any(|e| e.published == Some(wish)) => {
            return Err(conflict(
                WHAT,
                format!("{wish} belongs to another endpoint"),
            ));
        }
        Some(wish) => wish,
        None => ports::allocate(ports, others)?,
    };
    if host.is_without_root {
        return Ok((Some(at), None));
    }
    let inside = match had {
        Some(had) => had,
        None => allocate(host, others)?,
    };
    Ok((Some(at), Some(inside)))
}

fn keep(host: &Host, address: IpAddr, others: &[EndpointRecord]) -> Result<IpAddr> {
    if !host.published_pool.contains(address) {
        let why = format!(
            "{address} is not in the published pool {}: publish the instance anew, or name a \
             pool that holds it in local.published_pool",
            host.published_pool
        );
        return Err(rejected(WHAT, why));
    }
    if has(others, address) {
        return Err(conflict(
            WHAT,
            format!("{address} belongs to another endpoint"),
        ));
    }
    Ok(address)
}

fn allocate(host: &Host, others: &[EndpointRecord]) -> Result<IpAddr> {
    let pool = host.published_pool;
    let routed = routed()?;
    // The first is the range itself, the second the host's end, the last is left out.
    (2..u32::MAX)
        .map_while(|n| pool.nth(n).filter(|_| pool.nth(n + 1).is_some()))
        .find(|address| !has(others, *address) && !routed.contains(address))
        .ok_or_else(|| ProviderError::QuotaExceeded {
            what: WHAT,
            why: format!("the published pool {pool} is used up: name a larger one"),
        })
}

fn has(endpoints: &[EndpointRecord], address: IpAddr) -> bool {
    endpoints
        .iter()
        .any(|e| inside(e) == Some(address) || e.published.is_some_and(|p| p.ip() == address))
}

/// Single addresses that the host routes or has, in whatever table, and the gateways of its main
/// one. Read from the kernel and not asked of `ip`: every endpoint looks twice.
fn routed() -> Result<BTreeSet<IpAddr>> {
    let read = |path: &str| fs::read_to_string(path).map_err(io(WHAT, path));
    let mut found = single_addresses(&read("/proc/net/fib_trie")?);
    found.extend(gateways(&read("/proc/net/route")?));
    Ok(found)
}

/// The gateways of a table as the kernel shows it: the third word of each line, in the machine's
/// order of bytes.
fn gateways(table: &str) -> impl Iterator<Item = IpAddr> {
    let gateway = |line: &str| u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok();
    table
        .lines()
        .filter_map(gateway)
        .filter(|number| *number != 0)
        .map(|number| IpAddr::from(number.to_ne_bytes()))
}

/// The addresses of a table as the kernel shows it: a line with an address, and below it one for
/// each length of prefix that is routed from there.
fn single_addresses(table: &str) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let mut address: Option<IpAddr> = None;
    for line in table.lines().map(str::trim_start) {
        if let Some(text) = line.strip_prefix("|-- ") {
            address = text.trim().parse().ok();
        } else if line.starts_with("/32 ") {
            found.extend(address);
        }
    }
    found
}

pub(super) fn leading_to(host: &Host, server: ServerId) -> Result<Vec<EndpointRecord>> {
    let mut all = host.endpoints.list()?;
    all.retain(|e| e.target == Some(server));
    all.sort_by_key(|e| e.id);
    Ok(all)
}

/// Loads the rules and addresses of a server that runs; one that does not gets them at its start.
fn refresh(host: &Host, server: Option<ServerId>) -> Result<()> {
    let Some(server) = server else { return Ok(()) };
    let _lock = host.lock("server", &server.to_string())?;
    let record: Option<ServerRecord> = host.servers.find(&server.to_string())?;
    let path = host.names.server_path(server);
    let (Some(record), true) = (record, netns::is_alive(&path)) else {
        return Ok(());
    };
    let Some(net) = host.networks.find(&record.network_id.to_string())? else {
        return Ok(());
    };
    let all = leading_to(host, server)?;
    let open = openings(host, &all, &net);
    netns::run_in(&path, || {
        unplug_strays(&open)?;
        load_openings(host, &open)
    })?;
    // A relay ends the connections that it carries when it is told anew who may come.
    for endpoint in all.iter().filter(|_| !host.is_without_root) {
        cut(&path, endpoint)?;
    }
    plug(host, server, &all, &open, String::new())
}

/// Takes the links of endpoints that do not lead here any more out of the namespace that the
/// calling thread is in: rules are only made for those that do, and a link without rules lets all
/// through.
fn unplug_strays(open: &Openings) -> Result<()> {
    let links = if_nameindex().map_err(errno(WHAT, "links"))?;
    let is_stray =
        |name: &String| is_inner_link(name) && !open.published.iter().any(|one| one.link == *name);
    let names = links
        .iter()
        .map(|link| link.name().to_string_lossy().into_owned());
    for stray in names.filter(is_stray) {
        match process::run(WHAT, "ip", &["link", "del", &stray], None) {
            Err(error) if has_link(&stray) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Ends connections to a published address from clients that are not let in any more. The rules
/// are loaded before, so that none comes back; what this misses ends by them.
fn cut(namespace: &Path, endpoint: &EndpointRecord) -> Result<()> {
    let (Some(address), clients) = (inside(endpoint), clients(endpoint)) else {
        return Ok(());
    };
    if clients.is_empty() {
        return Ok(());
    }
    let own = format!("src {address} sport = :{}", endpoint.port);
    let shown = netns::run_in(namespace, || {
        process::run(WHAT, "ss", &["-Htn", "state", "connected", &own], None)
    })?;
    let peers: BTreeSet<IpAddr> = shown
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .last()?
                .rsplit_once(':')?
                .0
                .parse()
                .ok()
        })
        .filter(|peer| !clients.iter().any(|c| c.contains(*peer)))
        .collect();
    let peers: Vec<String> = peers.iter().map(|peer| format!("dst {peer}")).collect();
    for some in peers.chunks(CUT_AT_ONCE) {
        let theirs = format!("{own} and ( {} )", some.join(" or "));
        netns::run_in(namespace, || {
            process::run(WHAT, "ss", &["-KHtn", "state", "connected", &theirs], None)
        })?;
    }
    Ok(())
}

/// Brings up on the host what published addresses share, where there are any.
pub(super) fn open(host: &Host) -> Result<()> {
    if host.is_without_root {
        relay::open(host)?;
        return Ok(());
    }
    leave_old_pool(host)?;
    if host.endpoints.list()?.iter().any(|e| e.published.is_some()) {
        guard(host)?;
    }
    for (_, words) in ports::load(host)? {
        tracing::warn!("{words}");
    }
    Ok(())
}

/// Takes away what published addresses share, for a Coffer that leaves the host.
pub(super) fn close(host: &Host) {
    if host.is_without_root {
        return;
    }
    unguard(host);
    ports::unload(host);
}

/// Keeps what is sent to a published address that leads nowhere just now from leaving the host by
/// its default route, where somebody else might answer.
fn guard(host: &Host) -> Result<()> {
    ip(WHAT, &guarding(host)?)
}

/// The command that guards the pool. Which pool is noted first: a guard that nobody remembers would
/// stay for ever.
fn guarding(host: &Host) -> Result<String> {
    let pool = host.published_pool.to_string();
    if guarded(host)?.as_ref() != Some(&pool) {
        write_json(&guarded_file(host), &pool)?;
    }
    Ok(format!("route replace unreachable {pool}\n"))
}

/// Where the pool stands that is guarded.
fn guarded_file(host: &Host) -> PathBuf {
    host.config.state_dir.join("guarded-pool.json")
}

fn guarded(host: &Host) -> Result<Option<String>> {
    read_json(&guarded_file(host))
}

/// Takes the guard of the pool away that was published from before the configuration named
/// another; the host may route that range otherwise now.
fn leave_old_pool(host: &Host) -> Result<()> {
    let Some(old) = guarded(host)? else {
        return Ok(());
    };
    if old != host.published_pool.to_string() {
        // It is not there after a reboot.
        ip(WHAT, &format!("route del unreachable {old}\n")).ok();
        remove_file(&guarded_file(host))?;
    }
    Ok(())
}

/// Takes the guard away; for a Coffer that leaves the host. Until then it stays, also while nothing
/// is published: a client may still try an address that it knows.
fn unguard(host: &Host) {
    // It is not there if nothing was ever published.
    ip(
        WHAT,
        &format!("route del unreachable {}\n", host.published_pool),
    )
    .ok();
}

/// Makes the link of a published address, unless it is there and complete. Returns the `ip`
/// commands that bring up its end inside, where it has its rules before it is up.
fn begin_link(
    host: &Host,
    id: EndpointId,
    server: ServerId,
    address: IpAddr,
) -> Result<Option<String>> {
    let link = host.names.published_link(id);
    let path = host.names.server_path(server);
    let inner = inner_link(id);
    let is_there = alias(&link) == Some(host.names.published_alias(id, Some(server)))
        && netns::run_in(&path, || Ok(has_link(&inner)))?;
    if is_there {
        return Ok(None);
    }
    unplug(host, id)?;
    refuse_if_taken(address)?;
    let gateway = host
        .published_pool
        .nth(1)
        .ok_or_else(|| rejected(WHAT, "pool is too small"))?;
    let begun = host.names.published_alias(id, None);
    let guard = guarding(host)?;
    // Nothing passes the host's end while the one inside is down.
    let add = format!(
        "{guard}link add {link} type veth peer name {inner} netns {}\n\
         link set {link} alias {begun}\naddr add {gateway}/32 dev {link}\n\
         link set {link} up\nroute replace {address}/32 dev {link} src {gateway}\n",
        path.display()
    );
    ip(WHAT, &add)?;
    // The host's services must not be reachable over a link-local address on this link.
    fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1").ok();
    if host.config.published_pool.is_some() || host.config.published_ports.is_some() {
        // Other machines are meant to come: answers to them leave by the host's other links, as
        // far as the host forwards at all. Our table lets nothing but answers pass.
        fs::write(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"), "1").ok();
    }
    let table = table_of(host, address);
    Ok(Some(format!(
        "addr add {address}/32 dev {inner}\nlink set {inner} up\n\
         route replace {gateway}/32 dev {inner} src {address}\n\
         route replace default via {gateway} dev {inner} src {address} onlink table {table}\n\
         rule add from {address} lookup {table}\n"
    )))
}

/// Notes at a link that both of its ends are up.
fn complete_link(host: &Host, id: EndpointId, server: ServerId) -> Result<()> {
    let link = host.names.published_link(id);
    let complete = host.names.published_alias(id, Some(server));
    // Where the kernel's files cannot be written, `ip` does it.
    fs::write(alias_file(&link), &complete)
        .or_else(|_| ip(WHAT, &format!("link set {link} alias {complete}\n")))
}

/// Refuses an address that the host has or routes elsewhere: taking it would cut that off.
fn refuse_if_taken(address: IpAddr) -> Result<()> {
    if !routed()?.contains(&address) {
        return Ok(());
    }
    let exact = format!("{address}/32");
    let words = ["-4", "route", "show", "table", "all", "exact", &exact];
    let shown = process::run(WHAT, "ip", &words, None)?;
    let line = shown.lines().next().unwrap_or_default().trim();
    let why = format!(
        "the published address {address} is taken on this host ({line}): remove that address or \
         route, and the instance is published there again; or publish the instance anew and it \
         gets another address"
    );
    Err(conflict(WHAT, why))
}

/// Removes the link of a published address, if it is there.
fn unplug(host: &Host, id: EndpointId) -> Result<()> {
    if host.is_without_root {
        return relay::delete(host, id);
    }
    let link = host.names.published_link(id);
    if !has_link(&link) {
        return Ok(());
    }
    match process::run(WHAT, "ip", &["link", "del", &link], None) {
        Err(e) if has_link(&link) => Err(e),
        _ => Ok(()),
    }
}

/// Number of the routing table of an address: its place in the pool.
fn table_of(host: &Host, address: IpAddr) -> u32 {
    let number = |a: IpAddr| match a {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(_) => 0,
    };
    TABLE_BASE + number(address).wrapping_sub(number(host.published_pool.address()))
}

/// A host link's alias, which says whose it is.
pub(super) fn alias(link: &str) -> Option<String> {
    let text = fs::read_to_string(alias_file(link)).ok()?;
    Some(text.trim().to_owned())
}

fn alias_file(link: &str) -> PathBuf {
    Path::new("/sys/class/net").join(link).join("ifalias")
}

#[cfg(test)]
mod tests {
    use coffer_core::id::NetworkId;
    use coffer_core::units::Turn;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn clients_that_cannot_be_read_are_shut_out() {
        let endpoint = |ranges: &[&str]| EndpointRecord {
            turn: Turn(1),
            id: EndpointId::from_uuid(Uuid::nil()),
            network_id: NetworkId::from_uuid(Uuid::nil()),
            port: 5432,
            published: None,
            inside: None,
            allowed_cidrs: ranges.iter().map(|&range| range.to_owned()).collect(),
            target: None,
            left: None,
        };
        let who = |ranges: &[&str]| -> Vec<String> {
            let all = clients(&endpoint(ranges));
            all.iter().map(ToString::to_string).collect()
        };
        assert!(who(&[]).is_empty(), "nobody named is anyone");
        assert_eq!(who(&["192.0.2.0/33"]), [NOBODY]);
        assert_eq!(who(&["10.0.0.0/8", "x"]), ["10.0.0.0/8", NOBODY]);
    }

    #[test]
    fn addresses_are_told_from_ranges() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
            \x20    |-- 192.0.2.7\n        /32 link UNICAST\nLocal:\n     |-- 127.0.0.0\n\
            \x20       /8 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nId 7002:\n\
            \x20    |-- 100.64.0.0\n        /22 universe UNREACHABLE\n        /32 link UNICAST\n";
        let found: Vec<_> = single_addresses(table)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["100.64.0.0", "127.0.0.1", "192.0.2.7"]);
        assert!(routed().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
        let at = u32::from_ne_bytes([192, 0, 2, 254]);
        let table = format!(
            "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t{at:08X}\t0003\n\
             eth0\t000200C0\t00000000\t0001\n"
        );
        let found: Vec<_> = gateways(&table).collect();
        assert_eq!(found, [IpAddr::from([192, 0, 2, 254])]);
    }

    #[test]
    fn a_pool_is_free_and_differs_between_tags() {
        let pool = free_pool("a1", &[]).unwrap();
        assert_eq!(pool.prefix(), 22);
        assert!(
            "100.64.0.0/10"
                .parse::<Cidr>()
                .unwrap()
                .contains(pool.address())
        );
        assert_ne!(free_pool("a1", &[pool]), Some(pool));
        assert_ne!(free_pool("a2", &[]), Some(pool));
        assert_eq!(free_pool("a1", &["100.64.0.0/10".parse().unwrap()]), None);
    }
}
