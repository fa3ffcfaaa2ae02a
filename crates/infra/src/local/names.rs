//! Names of everything the provider makes on the host, and back from names to ids.
//!
//! All of them carry the tag, so that several Coffers share a host and the reconciler finds what
//! nobody remembers. Interface names have 15 characters at most; where the id does not fit, the
//! alias carries it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use coffer_core::id::{EndpointId, NetworkId, ServerId};
use uuid::Uuid;

/// LIMIT: longest tag that leaves room for 8 digits of an id in an interface's name.
pub(super) const TAG_MAX: usize = 5;
/// Where root's named network namespaces are, as `ip netns` expects them.
pub(super) const NETNS_DIR: &str = "/run/netns";
/// The instance's interface in its tenant network.
pub(super) const TENANT_LINK: &str = "eth0";
/// The bridge in a network's namespace.
pub(super) const BRIDGE: &str = "br0";

/// Makes names under one tag.
#[derive(Debug, Clone)]
pub(super) struct Names {
    tag: String,
    netns_dir: PathBuf,
}

impl Names {
    /// Checks the tag: 1 to 5 lower-case letters and digits. Network namespaces are named in
    /// `netns_dir`.
    pub(super) fn new(tag: &str, netns_dir: PathBuf) -> Option<Self> {
        let fits = (1..=TAG_MAX).contains(&tag.len());
        let is_plain = tag
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        (fits && is_plain).then(|| Self {
            tag: tag.to_owned(),
            netns_dir,
        })
    }

    /// Where network namespaces are named.
    pub(super) fn netns_dir(&self) -> &Path {
        &self.netns_dir
    }

    /// Path of a named namespace.
    pub(super) fn ns_path(&self, name: &str) -> PathBuf {
        self.netns_dir.join(name)
    }

    /// Path of a tenant network's namespace.
    pub(super) fn network_path(&self, id: NetworkId) -> PathBuf {
        self.ns_path(&self.network_ns(id))
    }

    /// Path of a server's namespace.
    pub(super) fn server_path(&self, id: ServerId) -> PathBuf {
        self.ns_path(&self.server_ns(id))
    }

    /// What the names of all our control groups begin with, before a dot.
    pub(super) fn group(&self) -> String {
        format!("coffer-{}", self.tag)
    }

    /// Namespace of a tenant network.
    pub(super) fn network_ns(&self, id: NetworkId) -> String {
        format!("coffer-{}-n-{}", self.tag, id.uuid().simple())
    }

    /// Namespace of an instance's server.
    pub(super) fn server_ns(&self, id: ServerId) -> String {
        format!("coffer-{}-i-{}", self.tag, id.uuid().simple())
    }

    /// The host's end of a published endpoint's link.
    pub(super) fn published_link(&self, id: EndpointId) -> String {
        format!("c{}p{}", self.tag, tail(id.uuid(), 8))
    }

    /// What the names of all those links begin with.
    pub(super) fn published_links(&self) -> String {
        format!("c{}p", self.tag)
    }

    /// Our table of rules in the host's namespace, where there is one.
    pub(super) fn host_table(&self) -> String {
        format!("coffer_{}", self.tag)
    }

    /// Alias of that link: endpoint, and the server it leads to once it is complete.
    pub(super) fn published_alias(&self, id: EndpointId, target: Option<ServerId>) -> String {
        let target = target
            .map(|t| format!("-{}", t.uuid().simple()))
            .unwrap_or_default();
        format!("coffer-{}-e-{}{target}", self.tag, id.uuid().simple())
    }

    /// What all aliases of our links begin with.
    pub(super) fn alias_prefix(&self) -> String {
        format!("coffer-{}-e-", self.tag)
    }

    /// The network that a namespace's name belongs to.
    pub(super) fn parse_network_ns(&self, name: &str) -> Option<NetworkId> {
        self.parse(name, "n").map(NetworkId::from_uuid)
    }

    /// The server that a namespace's name belongs to.
    pub(super) fn parse_server_ns(&self, name: &str) -> Option<ServerId> {
        self.parse(name, "i").map(ServerId::from_uuid)
    }

    /// The endpoint that a link's alias belongs to.
    pub(super) fn parse_alias(&self, alias: &str) -> Option<EndpointId> {
        let rest = alias.trim().strip_prefix(&self.alias_prefix())?;
        Uuid::try_parse(rest.get(..32)?)
            .ok()
            .map(EndpointId::from_uuid)
    }

    fn parse(&self, name: &str, kind: &str) -> Option<Uuid> {
        let rest = name.strip_prefix(&format!("coffer-{}-{kind}-", self.tag))?;
        Uuid::try_parse(rest).ok()
    }
}

/// The bridge's port of a server.
pub(super) fn port(id: ServerId) -> String {
    format!("p{}", tail(id.uuid(), 12))
}

/// The instance's end of a published endpoint's link.
pub(super) fn inner_link(id: EndpointId) -> String {
    format!("u{}", tail(id.uuid(), 8))
}

/// Whether a name is one that [`inner_link`] gives.
pub(super) fn is_inner_link(name: &str) -> bool {
    name.len() == 9 && name.starts_with('u')
}

/// Host name inside a server's sandbox.
pub(super) fn host_name(id: ServerId) -> String {
    format!("coffer-{}", tail(id.uuid(), 8))
}

/// Hardware address that goes with an address of a tenant network: locally administered, unique
/// in the network because the address is.
pub(super) fn hardware_address(address: IpAddr) -> String {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.octets(),
    };
    format!("02:cf:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The last digits of an id: they are random, the first are the time.
fn tail(id: Uuid, digits: usize) -> String {
    let text = id.simple().to_string();
    text[text.len() - digits..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_ids_and_fit() {
        let new = |tag: &str| Names::new(tag, NETNS_DIR.into());
        let names = new("ab12f").unwrap();
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let server = ServerId::from_uuid(id);
        let endpoint = EndpointId::from_uuid(id);
        assert_eq!(
            names.parse_server_ns(&names.server_ns(server)),
            Some(server)
        );
        assert_eq!(names.parse_network_ns(&names.server_ns(server)), None);
        for target in [None, Some(server)] {
            let alias = names.published_alias(endpoint, target);
            assert_eq!(names.parse_alias(&alias), Some(endpoint));
        }
        for link in [
            names.published_link(endpoint),
            port(server),
            inner_link(endpoint),
        ] {
            assert!(link.len() <= 15, "{link}");
        }
        assert!(new("").is_none() && new("abcdef").is_none());
        assert!(new("A").is_none() && new("a-b").is_none());
    }
}
