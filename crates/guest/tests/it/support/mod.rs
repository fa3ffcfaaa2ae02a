//! What the tests stand on: certificates, a client of the protocol, ways to dial, processes.

pub(crate) mod client;
pub(crate) mod link;
pub(crate) mod pki;
pub(crate) mod process;
