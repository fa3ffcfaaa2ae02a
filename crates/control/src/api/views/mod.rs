//! Domain to wire: free functions, one file per resource.

pub(super) mod accounts;
pub(super) mod datastores;
pub(super) mod explain;
pub(super) mod history;
pub(super) mod identity;
pub(super) mod instances;
pub(super) mod inventory;
pub(super) mod offers;
