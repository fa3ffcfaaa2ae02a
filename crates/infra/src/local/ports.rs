//! Ports of one address of the host that lead to instances, and our table in the host's namespace.
//!
//! The table stands beside the host's own rules and is replaced as a whole. A port that another
//! process listens on is never redirected: whose endpoint it was is told so, and gets it back when
//! that process is gone. What is redirected already stays.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

use super::firewall::{Redirect, render_host};
use super::host::Host;
use super::network::load_rules;
use super::process;
use super::record::{EndpointRecord, Lock};
use crate::error::{ProviderError, Result};

const WHAT: &str = "publish ports";

/// An address of the host and the range of its ports that instances may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPorts {
    /// The host's address that clients reach.
    pub address: Ipv4Addr,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl HostPorts {
    /// Whether an address and port are among these.
    pub(super) fn contains(&self, at: SocketAddr) -> bool {
        at.ip() == IpAddr::V4(self.address) && (self.first..=self.last).contains(&at.port())
    }
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.address, self.first, self.last)
    }
}

impl FromStr for HostPorts {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let wrong = "write an IPv4 address of this host and ports, 192.0.2.2:20000-29999";
        let (address, range) = text.split_once(':').ok_or(wrong)?;
        let (first, last) = range.split_once('-').ok_or(wrong)?;
        let ports = Self {
            address: address.parse().map_err(|_| wrong)?,
            first: first.parse().map_err(|_| wrong)?,
            last: last.parse().map_err(|_| wrong)?,
        };
        if ports.address.is_loopback() || ports.address.is_unspecified() {
            return Err("an address that other machines reach is meant, not 127.0.0.1 or 0.0.0.0");
        }
        let is_range = ports.first >= 1024 && ports.first <= ports.last;
        is_range
            .then_some(ports)
            .ok_or("ports begin at 1024, the lower one first")
    }
}

/// A port that no other endpoint has and nobody listens on.
pub(super) fn allocate(ports: &HostPorts, others: &[EndpointRecord]) -> Result<SocketAddr> {
    let listening = listeners("")?;
    (ports.first..=ports.last)
        .map(|port| SocketAddr::from((ports.address, port)))
        .find(|at| {
            let is_given = others.iter().any(|e| e.published == Some(*at));
            !is_given && !listening.iter().any(|l| l.holds(*at))
        })
        .ok_or_else(|| ProviderError::QuotaExceeded {
            what: WHAT,
            why: format!("all ports of {ports} are used: name more in local.published_ports"),
        })
}

/// Brings our table up to date with the endpoints; it is taken away where nothing needs it.
/// Returns the endpoints whose port somebody else listens on, with words on what to do.
pub(super) fn load(host: &Host) -> Result<Vec<(SocketAddr, String)>> {
    let _lock = Lock::take(&host.config.state_dir, "published-ports")?;
    let wanted: Vec<Redirect> = host.endpoints.list()?.iter().filter_map(redirect).collect();
    let table = host.names.host_table();
    let is_needed = host.config.published_ports.is_some()
        || host.config.published_pool.is_some()
        || !wanted.is_empty();
    if !is_needed {
        unload(host);
        return Ok(Vec::new());
    }
    let held = held(&table);
    let mut refused = Vec::new();
    let mut granted = Vec::new();
    for redirect in wanted {
        let at = SocketAddr::V4(redirect.from);
        match is_held(&held, &redirect.from) {
            false => match taken(at)? {
                Some(words) => refused.push((at, words)),
                None => granted.push(redirect),
            },
            true => granted.push(redirect),
        }
    }
    load_rules(&render_host(
        &table,
        &host.names.published_links(),
        &granted,
    ))?;
    Ok(refused)
}

/// Takes our table away, if it is there.
pub(super) fn unload(host: &Host) {
    let table = host.names.host_table();
    let is_there = process::run(WHAT, "nft", &["list", "table", "ip", &table], None).is_ok();
    if is_there {
        load_rules(&format!("delete table ip {table}\n")).ok();
    }
}

fn redirect(endpoint: &EndpointRecord) -> Option<Redirect> {
    match (endpoint.published?, endpoint.inside?) {
        (SocketAddr::V4(from), IpAddr::V4(inside)) => Some(Redirect {
            from,
            to: SocketAddrV4::new(inside, endpoint.port),
        }),
        _ => None,
    }
}

/// What the kernel redirects now, as text.
fn held(table: &str) -> String {
    // No table yet: nothing is held.
    process::run(WHAT, "nft", &["list", "map", "ip", table, "ports"], None).unwrap_or_default()
}

fn is_held(held: &str, at: &SocketAddrV4) -> bool {
    held.contains(&format!(" {} . {} :", at.ip(), at.port()))
}

/// Who listens on a port of the host's, in words.
pub(super) fn taken(at: SocketAddr) -> Result<Option<String>> {
    let found = listeners(&format!("sport = :{}", at.port()))?;
    Ok(found.iter().find(|l| l.holds(at)).map(|listener| {
        format!(
            "the port {at} is taken by another process ({}): stop it, and the instance is \
             published there again; or publish the instance anew and it gets another port",
            listener.process
        )
    }))
}

/// A listening socket of the host's.
struct Listener {
    address: Option<IpAddr>,
    port: u16,
    process: String,
}

impl Listener {
    fn holds(&self, at: SocketAddr) -> bool {
        self.port == at.port() && self.address.is_none_or(|address| address == at.ip())
    }

    /// From a line of `ss -Hltnp`: the fourth word is the address, the sixth the process.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(3);
        let (address, port) = words.next()?.rsplit_once(':')?;
        let process = words
            .nth(1)
            .unwrap_or("unknown")
            .trim_start_matches("users:");
        let address = address.trim_matches(['[', ']']);
        let address = address.split('%').next().unwrap_or(address);
        Some(Self {
            // `*` and `::` take IPv4 as well.
            address: address
                .parse()
                .ok()
                .filter(|a: &IpAddr| !a.is_unspecified()),
            port: port.parse().ok()?,
            process: process.to_owned(),
        })
    }
}

fn listeners(filter: &str) -> Result<Vec<Listener>> {
    let mut words = vec!["-Hltnp"];
    if !filter.is_empty() {
        words.push(filter);
    }
    let shown = process::run(WHAT, "ss", &words, None)?;
    Ok(shown.lines().filter_map(Listener::parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_read_as_it_is_written() {
        let text = "192.0.2.2:20000-29999";
        let ports: HostPorts = text.parse().unwrap();
        assert_eq!(ports.to_string(), text);
        assert!(ports.contains("192.0.2.2:20000".parse().unwrap()));
        assert!(!ports.contains("192.0.2.3:20000".parse().unwrap()));
        for bad in [
            "",
            "192.0.2.2",
            "192.0.2.2:9-20",
            "192.0.2.2:3000-2000",
            "127.0.0.1:2000-3000",
        ] {
            assert!(bad.parse::<HostPorts>().is_err(), "{bad}");
        }
    }

    #[test]
    fn listeners_are_found_whatever_address_they_name() {
        let at: SocketAddr = "192.0.2.2:20000".parse().unwrap();
        let line = |address: &str| {
            let text = format!("LISTEN 0 128 {address} 0.0.0.0:* users:((\"nginx\",pid=8,fd=3))");
            Listener::parse(&text).unwrap()
        };
        for address in [
            "0.0.0.0:20000",
            "*:20000",
            "[::]:20000",
            "192.0.2.2%eth0:20000",
        ] {
            assert!(line(address).holds(at), "{address}");
        }
        for address in ["127.0.0.1:20000", "0.0.0.0:20001", "[::1]:20000"] {
            assert!(!line(address).holds(at), "{address}");
        }
        assert_eq!(line("*:1").process, "((\"nginx\",pid=8,fd=3))");
    }
}
