//! Rules of a tenant network's and an instance's namespace, as text for `nft -f -`.
//!
//! Pure. A ruleset replaces its whole table, or all tables of an instance's namespace, in one
//! transaction, so loading it again changes nothing and a crash leaves either the old or the new
//! rules.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddrV4};

use coffer_core::access::Cidr;

use super::names::{BRIDGE, TENANT_LINK};
use crate::local::AGENT_PORT;

/// What may reach an instance.
#[derive(Debug, Default)]
pub(super) struct Openings {
    /// Range of its tenant network.
    pub(super) subnet: String,
    /// The tracker's address in it.
    pub(super) tracker: String,
    /// Engine ports open to the tenant network.
    pub(super) tenant_ports: Vec<u16>,
    /// Its published links.
    pub(super) published: Vec<Published>,
}

/// A published link of an instance.
#[derive(Debug)]
pub(super) struct Published {
    /// The link's name inside.
    pub(super) link: String,
    /// The engine's port.
    pub(super) port: u16,
    /// Who may come; nobody named means anyone.
    pub(super) clients: Vec<Cidr>,
}

/// A port of the host's that leads to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Redirect {
    /// Address and port on the host.
    pub(super) from: SocketAddrV4,
    /// Address and port at the instance's published link.
    pub(super) to: SocketAddrV4,
}

/// Rules of our own in the host's namespace, beside the host's: what comes out of an instance over
/// a published link (`links`, a prefix of their names) is replies only, and a port of the host
/// leads to its instance by translation of the destination, so that the client's address stays.
/// Inside addresses behind such ports are reached in no other way.
pub(super) fn render_host(table: &str, links: &str, redirects: &[Redirect]) -> String {
    let mut text = format!("table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n");
    let from_guest = format!(
        "iifname \"{links}*\" ct state established,related accept; \
                              iifname \"{links}*\" drop;"
    );
    // Every rule is looked at for every packet of the host's.
    let only = match redirects.is_empty() {
        true => "",
        false => {
            render_redirects(&mut text, redirects);
            ONLY_BY_PORT
        }
    };
    for (name, hook) in [
        (
            "forward",
            format!("type filter hook forward priority 0; policy accept; {only} {from_guest}"),
        ),
        (
            "input",
            format!("type filter hook input priority 0; policy accept; {from_guest}"),
        ),
    ] {
        line(&mut text, format_args!("chain {name} {{ {hook} }}"));
    }
    text.push_str("}\n");
    text
}

/// Inside addresses are reached through their ports alone.
const ONLY_BY_PORT: &str = "ip daddr @inside ct status dnat accept; ip daddr @inside drop;";

fn render_redirects(text: &mut String, redirects: &[Redirect]) {
    let pair = |a: &SocketAddrV4| format!("{} . {}", a.ip(), a.port());
    let ports: Vec<_> = redirects
        .iter()
        .map(|r| format!("{} : {}", pair(&r.from), pair(&r.to)))
        .collect();
    let inside: Vec<_> = redirects.iter().map(|r| r.to.ip().to_string()).collect();
    let (ports, inside) = (ports.join(", "), inside.join(", "));
    let pair = "ipv4_addr . inet_service";
    line(
        text,
        format_args!("map ports {{ type {pair} : {pair}; elements = {{ {ports} }}; }}"),
    );
    line(
        text,
        format_args!("set inside {{ type ipv4_addr; elements = {{ {inside} }}; }}"),
    );
    let translate = "policy accept; dnat ip to ip daddr . tcp dport map @ports;";
    for (name, hook) in [
        (
            "to_port",
            format!("type nat hook prerouting priority -100; {translate}"),
        ),
        (
            "own_to_port",
            format!("type nat hook output priority -100; {translate}"),
        ),
        (
            "own",
            format!("type filter hook output priority 0; policy accept; {ONLY_BY_PORT}"),
        ),
    ] {
        line(text, format_args!("chain {name} {{ {hook} }}"));
    }
}

/// Rules of a network's namespace: its members talk as themselves (where the kernel has rules for
/// bridged frames) and cannot open anything towards the tracker; nothing is routed.
pub(super) fn render_network(has_bridge_rules: bool) -> String {
    let members = format!(
        "table bridge coffer\n\
         add set bridge coffer members {{ type ifname . ether_addr . ipv4_addr; }}\n\
         flush table bridge coffer\n\
         table bridge coffer {{\n\
         chain prerouting {{\n\
         type filter hook prerouting priority -300; policy drop;\n\
         iifname \"{BRIDGE}\" accept\n\
         ether type arp iifname . ether saddr . arp saddr ip @members \
         iifname . arp saddr ether . arp saddr ip @members accept\n\
         ether type ip iifname . ether saddr . ip saddr @members accept\n\
         }}\n}}\n"
    );
    let own = format!(
        "table inet coffer\ndelete table inet coffer\ntable inet coffer {{\n\
         chain input {{\n\
         type filter hook input priority 0; policy drop;\n\
         iif \"lo\" accept\n\
         ct state established,related accept\n\
         }}\n\
         chain forward {{\n\
         type filter hook forward priority 0; policy drop;\n\
         iifname \"{BRIDGE}\" oifname \"{BRIDGE}\" accept\n\
         }}\n}}\n"
    );
    if has_bridge_rules {
        members + &own
    } else {
        own
    }
}

/// Adds or removes (`verb` is `add` or `delete`) a member's identity on the network's bridge.
pub(super) fn render_member(verb: &str, port: &str, hardware: &str, address: IpAddr) -> String {
    format!("{verb} element bridge coffer members {{ \"{port}\" . {hardware} . {address} }}\n")
}

/// What goes out of a port of ours is of a connection that somebody else made: nothing that begins
/// one.
const NOT_FIRST: &str = "tcp flags & (syn | ack) != syn";
/// Errors of the network's: the kernel believes them only of a connection that it knows.
const ERRORS: &str = "icmp type { destination-unreachable, time-exceeded }";

/// Rules of an instance's namespace on a kernel that has none for single links: in come the
/// engine's clients and the tracker, out go replies. Loopback pays for them too, with a twentieth
/// of what an engine does in a second; see [`render_links`].
///
/// Packets are told by addresses, ports and flags alone. Whoever is in there has plain sockets,
/// which begin with nothing but a SYN; and a rule that asks for the history of a connection has
/// the kernel track every packet.
pub(super) fn render_instance(open: &Openings) -> String {
    let mut text =
        String::from("table inet coffer\ndelete table inet coffer\ntable inet coffer {\n");
    text.push_str("chain input {\ntype filter hook input priority 0; policy drop;\n");
    text.push_str("iif \"lo\" accept\n");
    for one in &open.published {
        let here = format!("iifname \"{}\" ", one.link);
        rules(&mut text, &here, &published_in(one));
        line(&mut text, format_args!("{here}drop"));
    }
    rules(
        &mut text,
        &format!("iifname \"{TENANT_LINK}\" "),
        &tenant_in(open),
    );
    text.push_str("}\nchain forward { type filter hook forward priority 0; policy drop; }\n");
    text.push_str("chain output {\ntype filter hook output priority 0; policy drop;\n");
    text.push_str("oif \"lo\" accept\n");
    for one in &open.published {
        let here = format!("oifname \"{}\" ", one.link);
        rules(&mut text, &here, &cut_off(one));
        rules(&mut text, &here, &published_out(one));
    }
    rules(
        &mut text,
        &format!("oifname \"{TENANT_LINK}\" "),
        &tenant_out(open),
    );
    text.push_str("}\n}\n");
    text
}

/// The same rules, of the links that are there and nothing else: what stays on loopback meets none.
/// A link gets its own before it is up, and what no rule of a link's names does not pass it. Rules
/// of a link that is gone would stay, so all of them are made anew.
pub(super) fn render_links(open: &Openings, is_there: impl Fn(&str) -> bool) -> String {
    let mut text = String::from("flush ruleset\n");
    if is_there(TENANT_LINK) {
        render_link(&mut text, TENANT_LINK, &tenant_in(open), &tenant_out(open));
    }
    let links = open.published.iter().filter(|one| is_there(&one.link));
    for one in links.clone() {
        render_link(
            &mut text,
            &one.link,
            &published_in(one),
            &published_out(one),
        );
    }
    // A link's own rules answer nothing that leaves: that is only for who is cut off.
    let mut cut = String::new();
    for one in links {
        rules(
            &mut cut,
            &format!("oifname \"{}\" ", one.link),
            &cut_off(one),
        );
    }
    if !cut.is_empty() {
        let hook = "type filter hook output priority 0; policy accept;";
        line(
            &mut text,
            format_args!("table inet coffer {{\nchain output {{\n{hook}\n{cut}}}\n}}"),
        );
    }
    text
}

/// Whether the kernel has rules for what leaves a link: a text to try it with, in a namespace that
/// ends at once.
pub(super) fn render_probe() -> String {
    let mut text = String::new();
    render_link(&mut text, "lo", &[], &[]);
    text
}

fn render_link(text: &mut String, link: &str, comes: &[String], goes: &[String]) {
    let table = format!("table netdev coffer_{link}");
    line(text, format_args!("{table} {{"));
    for (name, hook, all) in [("comes", "ingress", comes), ("goes", "egress", goes)] {
        let hook = format!("type filter hook {hook} device \"{link}\" priority 0; policy drop;");
        line(
            text,
            format_args!("chain {name} {{\n{hook}\nether type arp accept"),
        );
        rules(text, "", all);
        text.push_str("}\n");
    }
    text.push_str("}\n");
}

fn rules(text: &mut String, here: &str, all: &[String]) {
    for rule in all {
        line(text, format_args!("{here}{rule}"));
    }
}

/// What comes from the tenant network.
fn tenant_in(open: &Openings) -> Vec<String> {
    let Openings {
        subnet, tracker, ..
    } = open;
    let mut all = vec![format!("ip saddr {tracker} tcp dport {AGENT_PORT} accept")];
    let port = |port| format!("ip saddr {subnet} tcp dport {port} accept");
    all.extend(open.tenant_ports.iter().map(port));
    // Members of the network hear an echo, and nobody else.
    all.push(format!("ip saddr {subnet} icmp type echo-request accept"));
    all.push(format!("ip saddr {subnet} {ERRORS} accept"));
    all
}

/// What goes to the tenant network.
fn tenant_out(open: &Openings) -> Vec<String> {
    let Openings {
        subnet, tracker, ..
    } = open;
    let to_tracker = format!("ip daddr {tracker} tcp sport {AGENT_PORT} {NOT_FIRST} accept");
    let port = |port| format!("ip daddr {subnet} tcp sport {port} {NOT_FIRST} accept");
    let mut all = vec![to_tracker];
    all.extend(open.tenant_ports.iter().map(port));
    all.push(format!("ip daddr {subnet} icmp type echo-reply accept"));
    all
}

/// What comes over a published link. Connections that were made before do not outlive the right
/// to make them: what is of one is answered with a reset.
fn published_in(one: &Published) -> Vec<String> {
    let (from, port) = (who(&one.clients, "ip saddr"), one.port);
    let of_one = "tcp flags & (syn | rst) == 0x0";
    vec![
        format!("{from}tcp dport {port} accept"),
        format!("tcp dport {port} {of_one} reject with tcp reset"),
        format!("{ERRORS} accept"),
    ]
}

/// What goes out over a published link.
fn published_out(one: &Published) -> Vec<String> {
    vec![format!("tcp sport {} {NOT_FIRST} accept", one.port)]
}

/// What the engine still sends to clients that were shut out is answered with a reset, so that it
/// learns of it; the reset that tells the client goes out.
fn cut_off(one: &Published) -> Vec<String> {
    if one.clients.is_empty() {
        return Vec::new();
    }
    let others = who(&one.clients, "ip daddr !=");
    vec![
        "tcp flags & rst == rst accept".to_owned(),
        format!("{others}tcp sport {} reject with tcp reset", one.port),
    ]
}

fn line(text: &mut String, rule: std::fmt::Arguments<'_>) {
    writeln!(text, "{rule}").expect("a string takes any text");
}

/// The match on clients' addresses, and a space; IPv6 ranges match nothing, as published addresses
/// are IPv4.
fn who(clients: &[Cidr], field: &str) -> String {
    if clients.is_empty() {
        return String::new();
    }
    let ranges = merged(clients);
    if ranges.is_empty() {
        // Only IPv6 ranges were named: no IPv4 client is among them.
        return format!("{field} 0.0.0.0 ");
    }
    let list: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    format!("{field} {{ {} }} ", list.join(", "))
}

/// IPv4 ranges without those that lie in another: nft refuses overlapping intervals.
fn merged(clients: &[Cidr]) -> Vec<Cidr> {
    let mut sorted: Vec<Cidr> = clients
        .iter()
        .filter(|c| c.address().is_ipv4())
        .copied()
        .collect();
    sorted.sort_by_key(Cidr::prefix);
    let mut kept: Vec<Cidr> = Vec::new();
    for range in sorted {
        if !kept.iter().any(|k| k.overlaps(&range)) {
            kept.push(range);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn published(clients: &[&str]) -> Published {
        Published {
            link: "u1".to_owned(),
            port: 5432,
            clients: cidrs(clients),
        }
    }

    #[test]
    fn opens_what_was_asked_and_nothing_else() {
        let mut open = Openings {
            subnet: "10.0.0.0/24".to_owned(),
            tracker: "10.0.0.1".to_owned(),
            ..Openings::default()
        };
        let closed = render_instance(&open);
        assert!(!closed.contains("5432"), "{closed}");
        assert!(
            closed.contains("ip saddr 10.0.0.1 tcp dport 7070 accept"),
            "{closed}"
        );
        assert_eq!(closed.matches("policy drop").count(), 3);
        open.tenant_ports = vec![5432];
        open.published = vec![published(&["192.0.2.0/24", "192.0.2.7"])];
        let text = render_instance(&open);
        assert!(text.contains("iifname \"eth0\" ip saddr 10.0.0.0/24 tcp dport 5432 accept"));
        assert!(text.contains("iifname \"u1\" ip saddr { 192.0.2.0/24 } tcp dport 5432 accept"));
        let cut = "oifname \"u1\" ip daddr != { 192.0.2.0/24 } tcp sport 5432 reject";
        assert!(text.contains(cut), "{text}");
        assert!(text.contains("iifname \"eth0\" ip saddr 10.0.0.0/24 icmp type echo-request"));
        let out = text.split("hook output").nth(1).unwrap();
        let ports: Vec<_> = out.lines().filter(|l| l.contains("tcp sport")).collect();
        assert_eq!(ports.len(), 4, "{out}");
        for rule in ports {
            let begins_nothing = rule.contains(NOT_FIRST) || rule.contains("reject");
            assert!(begins_nothing, "{rule}");
        }
        assert!(!text.contains("ct state"), "nothing is tracked: {text}");
    }

    #[test]
    fn a_link_has_the_same_rules_and_loopback_none() {
        let mut open = Openings {
            subnet: "10.0.0.0/24".to_owned(),
            tracker: "10.0.0.1".to_owned(),
            tenant_ports: vec![5432],
            published: vec![published(&["192.0.2.0/24"])],
        };
        let none = render_links(&open, |_| false);
        assert!(!none.contains("accept"), "{none}");
        let all = render_links(&open, |_| true);
        assert_eq!(all.matches("policy drop").count(), 4, "{all}");
        assert!(!all.contains("\"lo\""), "{all}");
        let whole = render_instance(&open);
        let mut of_links = 0;
        for rule in all.lines().filter(|line| line.ends_with("accept")) {
            let is_arp = rule.starts_with("ether type arp");
            assert!(is_arp || whole.contains(rule), "{rule}");
            of_links += usize::from(!is_arp);
        }
        assert_eq!(of_links, 11, "{all}");
        let cut = "oifname \"u1\" ip daddr != { 192.0.2.0/24 } tcp sport 5432 reject";
        assert!(all.contains(cut), "{all}");
        open.published[0].clients.clear();
        let anyone = render_links(&open, |_| true);
        assert!(!anyone.contains("hook output"), "{anyone}");
    }

    #[test]
    fn a_port_of_the_host_leads_to_its_instance_and_nowhere_else() {
        let redirect = Redirect {
            from: "192.0.2.2:20000".parse().unwrap(),
            to: "100.64.0.2:5432".parse().unwrap(),
        };
        let text = render_host("coffer_t1", "ct1p", &[redirect]);
        assert!(
            text.contains("192.0.2.2 . 20000 : 100.64.0.2 . 5432"),
            "{text}"
        );
        assert!(text.contains("elements = { 100.64.0.2 }"), "{text}");
        assert!(
            !text.contains("masquerade") && !text.contains("snat"),
            "{text}"
        );
        let none = render_host("coffer_t1", "ct1p", &[]);
        assert!(!none.contains("nat") && !none.contains("inside"), "{none}");
        assert_eq!(none.matches("iifname \"ct1p*\" drop").count(), 2);
    }

    #[test]
    fn names_of_ipv6_clients_alone_open_nothing() {
        assert_eq!(who(&cidrs(&["fd00::/8"]), "ip saddr"), "ip saddr 0.0.0.0 ");
        assert_eq!(who(&[], "ip saddr"), "");
        assert_eq!(
            who(&cidrs(&["10.0.0.0/8", "0.0.0.0/0"]), "ip saddr"),
            "ip saddr { 0.0.0.0/0 } "
        );
    }
}
