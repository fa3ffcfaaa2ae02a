//! Rules of a tenant network's and an instance's namespace, as text for `nft -f -`.
//!
//! Pure. A ruleset replaces its whole table in one transaction, so loading it again changes
//! nothing and a crash leaves either the old or the new rules.

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
    /// Published interfaces: name, port, and who may come; nobody named means anyone.
    pub(super) published: Vec<(String, u16, Vec<Cidr>)>,
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

/// Rules of an instance's namespace: in come the engine's clients and the tracker, out go replies.
pub(super) fn render_instance(open: &Openings) -> String {
    let mut text =
        String::from("table inet coffer\ndelete table inet coffer\ntable inet coffer {\n");
    let Openings {
        subnet, tracker, ..
    } = open;
    untracked(&mut text, &open.published);
    text.push_str("chain input {\ntype filter hook input priority 0; policy drop;\n");
    text.push_str("iif \"lo\" accept\n");
    for (link, port, clients) in &open.published {
        published_in(&mut text, link, *port, clients);
    }
    text.push_str("ct state established,related accept\n");
    let from = format!("iifname \"{TENANT_LINK}\" ip saddr");
    line(
        &mut text,
        format_args!("{from} {tracker} tcp dport {AGENT_PORT} accept"),
    );
    for port in &open.tenant_ports {
        line(
            &mut text,
            format_args!("{from} {subnet} tcp dport {port} accept"),
        );
    }
    text.push_str("icmp type echo-request accept\n}\n");
    text.push_str("chain forward { type filter hook forward priority 0; policy drop; }\n");
    text.push_str("chain output {\ntype filter hook output priority 0; policy drop;\n");
    text.push_str("oif \"lo\" accept\n");
    for (link, port, clients) in &open.published {
        published_out(&mut text, link, *port, clients);
    }
    text.push_str("ct state established,related accept\n}\n}\n");
    text
}

/// What no rule asks the history of is not tracked: that is dear for each packet. Loopback is
/// open, and at a published link the engine's port is told by addresses and flags alone.
fn untracked(text: &mut String, published: &[(String, u16, Vec<Cidr>)]) {
    let raw = |hook: &str| format!("type filter hook {hook} priority -300; policy accept;");
    let mut comes = format!("{} iif \"lo\" notrack;", raw("prerouting"));
    let mut goes = format!("{} oif \"lo\" notrack;", raw("output"));
    for (link, port, _) in published {
        comes.push_str(&format!(" iifname \"{link}\" tcp dport {port} notrack;"));
        goes.push_str(&format!(" oifname \"{link}\" tcp sport {port} notrack;"));
    }
    line(text, format_args!("chain comes {{ {comes} }}"));
    line(text, format_args!("chain goes {{ {goes} }}"));
}

/// What comes over a published link. Connections that were made before do not outlive the right
/// to make them: what is of one is answered with a reset.
fn published_in(text: &mut String, link: &str, port: u16, clients: &[Cidr]) {
    let here = format!("iifname \"{link}\"");
    let from = who(clients, "ip saddr");
    line(text, format_args!("{here}{from} tcp dport {port} accept"));
    let of_one = "tcp flags & (syn | rst) == 0x0";
    line(
        text,
        format_args!("{here} tcp dport {port} {of_one} reject with tcp reset"),
    );
    // The kernel believes them only of a connection that it knows.
    let errors = "icmp type { destination-unreachable, time-exceeded }";
    line(text, format_args!("{here} {errors} accept"));
    line(text, format_args!("{here} drop"));
}

/// What goes out over a published link from the engine's port is of a connection that a client
/// made: nothing that begins one. What the engine still sends to clients that were shut out is
/// answered with a reset, so that it learns of it; the reset that tells the client goes out.
fn published_out(text: &mut String, link: &str, port: u16, clients: &[Cidr]) {
    let here = format!("oifname \"{link}\"");
    if !clients.is_empty() {
        line(text, format_args!("{here} tcp flags & rst == rst accept"));
        let others = who(clients, "ip daddr !=");
        line(
            text,
            format_args!("{here}{others} tcp sport {port} reject with tcp reset"),
        );
    }
    let not_first = "tcp flags & (syn | ack) != syn";
    line(
        text,
        format_args!("{here} tcp sport {port} {not_first} accept"),
    );
}

fn line(text: &mut String, rule: std::fmt::Arguments<'_>) {
    writeln!(text, "{rule}").expect("a string takes any text");
}

/// The match on clients' addresses; IPv6 ranges match nothing, as published addresses are IPv4.
fn who(clients: &[Cidr], field: &str) -> String {
    if clients.is_empty() {
        return String::new();
    }
    let ranges = merged(clients);
    if ranges.is_empty() {
        // Only IPv6 ranges were named: no IPv4 client is among them.
        return format!(" {field} 0.0.0.0");
    }
    let list: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    format!(" {field} {{ {} }}", list.join(", "))
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
        open.published = vec![("u1".to_owned(), 5432, cidrs(&["192.0.2.0/24", "192.0.2.7"]))];
        let text = render_instance(&open);
        assert!(text.contains("iifname \"eth0\" ip saddr 10.0.0.0/24 tcp dport 5432 accept"));
        assert!(text.contains("iifname \"u1\" ip saddr { 192.0.2.0/24 } tcp dport 5432 accept"));
        let cut = "oifname \"u1\" ip daddr != { 192.0.2.0/24 } tcp sport 5432 reject";
        assert!(text.contains(cut), "{text}");
        let shut = text.find("iifname \"u1\" drop").unwrap();
        assert!(shut < text.find("ct state established,related accept").unwrap());
        // Only members of the tenant's network hear an echo.
        assert!(shut < text.find("icmp type echo-request").unwrap());
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
        assert_eq!(who(&cidrs(&["fd00::/8"]), "ip saddr"), " ip saddr 0.0.0.0");
        assert_eq!(who(&[], "ip saddr"), "");
        assert_eq!(
            who(&cidrs(&["10.0.0.0/8", "0.0.0.0/0"]), "ip saddr"),
            " ip saddr { 0.0.0.0/0 }"
        );
    }
}
