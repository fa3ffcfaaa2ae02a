//! Tenant networks, and who holds which address in them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::access::Cidr;
use crate::id::{NetworkId, TenantId};
use crate::name::Name;
use crate::time::Timestamp;

/// A network of a project. Two projects may use the same subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its id, valid in a request's `nics`.
    pub id: NetworkId,
    /// Project that owns it.
    pub tenant_id: TenantId,
    /// Its name, unique in the project.
    pub name: Name,
    /// Its address range.
    pub subnet: Cidr,
    /// Whether instances that name no network go here; one per project.
    pub is_default: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Network {
    /// The tracker's own address in the network: the first of the range.
    pub fn tracker_address(&self) -> Option<IpAddr> {
        self.subnet.nth(1)
    }

    /// The lowest address that nobody holds, `None` when the range is used up. The first two
    /// (network, tracker) and the last (broadcast) are never given out.
    pub fn free_address(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        (2..u32::MAX)
            .map_while(|n| {
                self.subnet
                    .nth(n)
                    .filter(|_| self.subnet.nth(n + 1).is_some())
            })
            .find(|address| !taken.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn gives_out_each_usable_address_once() {
        let network = Network {
            id: NetworkId::from_uuid(Uuid::nil()),
            tenant_id: "t".parse().unwrap(),
            name: Name::parse("name", "default").unwrap(),
            subnet: "10.0.0.0/29".parse().unwrap(),
            is_default: true,
            created_at: Timestamp::default(),
        };
        let mut taken = BTreeSet::new();
        while let Some(address) = network.free_address(&taken) {
            assert!(taken.insert(address));
        }
        assert_eq!(taken.len(), 5, "10.0.0.2 to 10.0.0.6");
    }
}
