//! Who may reach a published endpoint: address ranges, IPv4 and IPv6.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::name::shown;

/// An address range; a bare address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// A range from parts; the host bits of `address` are cleared.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix > width {
            return Err(Error::Cidr {
                value: format!("{address}/{prefix}"),
            });
        }
        Ok(Self {
            address: masked(address, prefix),
            prefix,
        })
    }

    /// The first address of the range.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of leading bits that all addresses share.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// Whether two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The `n`th address of the range, `None` past its end.
    pub fn nth(&self, n: u32) -> Option<IpAddr> {
        let address = match self.address {
            IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).checked_add(n)?.into()),
            IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).checked_add(u128::from(n))?.into()),
        };
        self.contains(address).then_some(address)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Cidr { value: shown(text) };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix = match prefix {
            Some(p) if p.len() <= 3 => p.parse().map_err(|_| bad())?,
            Some(_) => return Err(bad()),
            None if address.is_ipv4() => 32,
            None => 128,
        };
        Self::new(address, prefix).map_err(|_| bad())
    }
}

/// What a tenant asked of an instance's reachability.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Whether the instance gets a published address.
    pub is_public: bool,
    /// Who may reach it there; empty means anyone.
    pub allowed_cidrs: Vec<Cidr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_and_ranges() {
        for (text, shown) in [
            ("10.0.0.7", "10.0.0.7/32"),
            ("10.0.0.7/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/64", "fd00::/64"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "300.1.1.1",
            "10.0.0.0/",
            "::/129",
            "a/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_addresses() {
        let range: Cidr = "10.0.0.0/30".parse().unwrap();
        assert_eq!(range.nth(3), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(range.nth(4), None);
    }
}
