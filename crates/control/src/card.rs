//! The card of an instance: what a store that lost it has to be told to know it again. Its
//! provider keeps the card with the server; it holds no secret.

use coffer_core::access::Access;
use coffer_core::id::{EndpointId, FlavorId, InstanceId, NetworkId, SetId, TenantId};
use coffer_core::time::Timestamp;
use coffer_store::instance::InstanceGraph;
use serde::{Deserialize, Serialize};

use crate::workflow::encode;

/// Form of the cards that are written.
const VERSION: u32 = 1;

/// An instance as it was when its server was last ensured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    version: u32,
    /// Project that owns it.
    pub(crate) tenant_id: TenantId,
    /// The instance.
    pub(crate) instance_id: InstanceId,
    /// Its set.
    pub(crate) set_id: SetId,
    /// Fencing number of the set, and its timeline.
    pub(crate) generation: u64,
    pub(crate) timeline: u64,
    /// Its name.
    pub(crate) name: String,
    /// Its flavor's id and name.
    pub(crate) flavor_id: FlavorId,
    pub(crate) flavor_name: String,
    /// Volume type it was asked with.
    pub(crate) volume_type: Option<String>,
    /// Names of its datastore and version.
    pub(crate) datastore: String,
    pub(crate) datastore_version: String,
    /// Zone it was asked with.
    pub(crate) zone: Option<String>,
    /// Whether it is to be published.
    pub(crate) is_public: bool,
    /// Its network.
    pub(crate) network_id: NetworkId,
    pub(crate) network_name: String,
    pub(crate) subnet: String,
    pub(crate) is_default_network: bool,
    /// Its endpoint, with address and port in the network.
    pub(crate) endpoint_id: EndpointId,
    pub(crate) network_address: std::net::IpAddr,
    pub(crate) port: u16,
    /// Read-only roots of its server.
    pub(crate) roots: Vec<String>,
    /// When it was asked for.
    pub(crate) created_at: Timestamp,
}

/// The card of an instance, as its provider keeps it; empty when too much of it is gone.
pub(crate) fn write(graph: &InstanceGraph) -> String {
    let (Some(set), Some(network)) = (&graph.set, &graph.network) else {
        return String::new();
    };
    let (Some(endpoint), Some(flavor)) = (graph.endpoints.first(), &graph.flavor) else {
        return String::new();
    };
    let instance = &graph.instance;
    let server = graph
        .servers
        .iter()
        .find(|s| s.instance_id == Some(instance.id));
    let Access { is_public, .. } = instance.spec.access;
    encode(&Card {
        version: VERSION,
        tenant_id: instance.tenant_id.clone(),
        instance_id: instance.id,
        set_id: set.id,
        generation: set.generation.0,
        timeline: set.timeline.0,
        name: instance.spec.name.to_string(),
        flavor_id: flavor.id.clone(),
        flavor_name: flavor.name.to_string(),
        volume_type: instance.spec.volume_type.clone(),
        datastore: graph.datastore.name.to_string(),
        datastore_version: graph.version.name.to_string(),
        zone: instance.spec.zone.clone(),
        is_public,
        network_id: network.id,
        network_name: network.name.to_string(),
        subnet: network.subnet.to_string(),
        is_default_network: network.is_default,
        endpoint_id: endpoint.id,
        network_address: endpoint.network_address,
        port: endpoint.port,
        roots: server.map_or_else(Vec::new, |server| server.roots.clone()),
        created_at: instance.created_at,
    })
}

/// What a card says; `None` for none, and for one of a form that this build does not know.
pub(crate) fn read(text: &str) -> Option<Card> {
    let card: Card = serde_json::from_str(text).ok()?;
    (card.version == VERSION).then_some(card)
}
