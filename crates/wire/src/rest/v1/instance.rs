//! Instances: what a request asks, and the views that clients read.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::rest::lenient::{Number, ObjectOr, OneOrMany, Text, object_or, present};
use crate::rest::v1::common::{Link, Reference};
use crate::rest::v1::database::NewDatabase;
use crate::rest::v1::user::NewUser;

/// Body of `POST /instances`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateInstanceRequest {
    /// What is asked for.
    pub instance: CreateInstance,
}

/// A new instance. Keys that Trove does not know are ignored, as it does.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateInstance {
    /// 1 to 255 characters, at least one alphanumeric; names may repeat.
    #[schema(required = true, value_type = String)]
    pub name: Option<String>,
    /// Id of the flavor, or a URL that ends in it.
    #[serde(rename = "flavorRef", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub flavor_ref: Option<Text>,
    /// The same under the name that openstacksdk uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<FlavorField>,
    /// The data volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeField>,
    /// The datastore and its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore: Option<DatastoreField>,
    /// Databases to create.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<NewDatabase>>,
    /// Users to create.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<NewUser>>)]
    pub users: Option<OneOrMany<NewUser>>,
    /// Backup to restore.
    #[serde(rename = "restorePoint", skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<Value>,
    /// Instance to follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<Value>,
    /// Number of replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_count: Option<Number>,
    /// Configuration group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
    /// Availability zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Network to join; at most one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nics: Option<Vec<Nic>>,
    /// Modules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<Value>>,
    /// Placement relative to the replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Region; only our own is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_name: Option<String>,
    /// Who may reach it from outside its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessField>,
}

/// A flavor by id, or as an object with its id.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum FlavorField {
    /// The id.
    Id(Text),
    /// An object.
    Object {
        /// The id.
        id: Text,
    },
}

/// A volume as an object, or only its size.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum VolumeField {
    /// Size and type.
    Object(NewVolume),
    /// Size; unit: GiB.
    Size(Number),
}

impl<'de> Deserialize<'de> for FlavorField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            id: Text,
        }
        Ok(match object_or(deserializer, "an object or an id")? {
            ObjectOr::Object(Object { id }) => Self::Object { id },
            ObjectOr::Plain(id) => Self::Id(id),
        })
    }
}

impl<'de> Deserialize<'de> for VolumeField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match object_or(deserializer, "an object or a size")? {
            ObjectOr::Object(volume) => Self::Object(volume),
            ObjectOr::Plain(size) => Self::Size(size),
        })
    }
}

/// A volume asked for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewVolume {
    /// Size, at least 1; unit: GiB.
    pub size: Number,
    /// Volume type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
}

/// A datastore version asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DatastoreField {
    /// Datastore by name or id.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Version by name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Text>,
    /// Tells versions of equal name apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_number: Option<Text>,
}

/// A network to join; other keys are refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Nic {
    /// Network by id, as Trove names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_id: Option<String>,
    /// The same, as Nova names it.
    #[serde(rename = "net-id", skip_serializing_if = "Option::is_none")]
    pub net_id: Option<String>,
    /// Subnet of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<String>,
    /// A chosen address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// A prepared port (gophercloud).
    #[serde(rename = "port-id", skip_serializing_if = "Option::is_none")]
    pub port_id: Option<String>,
    /// A chosen IPv4 address (gophercloud).
    #[serde(rename = "v4-fixed-ip", skip_serializing_if = "Option::is_none")]
    pub v4_fixed_ip: Option<String>,
    /// A chosen IPv6 address (gophercloud).
    #[serde(rename = "v6-fixed-ip", skip_serializing_if = "Option::is_none")]
    pub v6_fixed_ip: Option<String>,
}

/// Who may reach an instance from outside its network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AccessField {
    /// Whether it gets a published address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
    /// Address ranges that may reach it; none means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_cidrs: Option<Vec<String>>,
}

/// The same in an update, where other keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessUpdate {
    /// Whether it gets a published address; absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
    /// Address ranges that may reach it; none means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_cidrs: Option<Vec<String>>,
}

/// Body of `PUT` and `PATCH /instances/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateInstanceRequest {
    /// What changes.
    pub instance: UpdateInstance,
}

/// A change of an instance: at most one key besides the name. Other keys are refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateInstance {
    /// New name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Configuration group to attach; `null` and `{}` detach.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
    /// Any value cuts a replica from its source.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<Value>,
    /// The same under its older name.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub slave_of: Option<Value>,
    /// Version to upgrade to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore_version: Option<Text>,
    /// Replaces who may reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessUpdate>,
}

/// One page of instances.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceList {
    /// The page.
    pub instances: Vec<Instance>,
    /// The next page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
    /// The same under the key that gophercloud follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances_links: Option<Vec<Link>>,
}

/// One instance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceEnvelope {
    /// The instance.
    pub instance: Instance,
}

/// An instance as clients see it. What lists leave out is optional.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What Coffer does with it: Trove's word.
    pub status: Cow<'static, str>,
    /// What its engine does; empty while a task runs.
    pub operating_status: Cow<'static, str>,
    /// Where it is.
    pub links: Vec<Link>,
    /// Its flavor.
    pub flavor: Reference,
    /// Its datastore.
    pub datastore: InstanceDatastore,
    /// Region it is in.
    pub region: String,
    /// Who may reach it.
    pub access: AccessField,
    /// Its data volume.
    pub volume: InstanceVolume,
    /// Its addresses, the published one first; absent while it is being built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Vec<String>>,
    /// The same with kind and network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<Address>>,
    /// Project that owns it; for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Last change of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<String>,
    /// Last change of its operating status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_status_updated: Option<String>,
    /// Why it is in ERROR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<InstanceFault>,
    /// Whether it is gone; this and what follows on the management routes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// When it went, or null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deleted_at: Option<Option<String>>,
    /// What is being done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_description: Option<Cow<'static, str>>,
    /// What its engine does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_status: Option<Cow<'static, str>>,
    /// Its server, or null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ManagedServer>)]
    pub server: Option<Option<ManagedServer>>,
    /// Id of its server; this and what follows for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub server_id: Option<Option<String>>,
    /// Id of its data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub volume_id: Option<Option<String>>,
    /// Always true: Coffer speaks to guests under mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_rpc_messaging: Option<bool>,
    /// What its guest says, in words; this and what follows on the management route for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_status: Option<GuestStatus>,
    /// When root was first enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_enabled: Option<String>,
    /// Who enabled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_enabled_by: Option<String>,
}

/// The server of an instance, as the operator sees it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ManagedServer {
    /// Its id.
    pub id: String,
    /// Its name, which is the instance's.
    pub name: String,
    /// `BUILD`, `ACTIVE` or `DELETED`: Nova's words.
    pub status: Cow<'static, str>,
    /// Project it is accounted to.
    pub tenant_id: String,
    /// Host it runs on, or null.
    pub host: Option<String>,
    /// Addresses by network; where one instance is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub addresses: Option<Value>,
}

/// What a guest says of its engine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GuestStatus {
    /// In a word.
    pub state_description: String,
}

/// Where a volume is attached.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// The server, by id.
    pub server_id: String,
}

/// When root was enabled, and by whom.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RootHistory {
    /// The instance, by id.
    pub id: String,
    /// When, or `Never`.
    pub enabled: String,
    /// Who, by id, or `Nobody`.
    pub user: String,
}

/// Answer of `GET /mgmt/instances/{id}/root`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RootHistoryEnvelope {
    /// The history.
    pub root_history: RootHistory,
}

/// Datastore of an instance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceDatastore {
    /// Name of the datastore.
    #[serde(rename = "type")]
    pub datastore: String,
    /// Name of the version.
    pub version: String,
    /// The engine's version number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_number: Option<String>,
}

/// Data volume of an instance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceVolume {
    /// Size; unit: GiB.
    pub size: u32,
    /// Used, as last heard; unit: GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<f64>,
    /// The same in percent of the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<f64>,
    /// Its id; this and what follows on the management route for one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `in-use` or `available`: Cinder's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Cow<'static, str>>,
    /// Where it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<Attachment>>,
    /// Zone, or null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub availability_zone: Option<Option<String>>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Size of its file system; unit: GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
}

/// An address of an instance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Address {
    /// The address.
    pub address: String,
    /// `private` or `public`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// Network of a private address, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Port the engine listens on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Why an instance is in ERROR.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceFault {
    /// What is wrong and what to do.
    pub message: String,
    /// When it was found.
    pub created: String,
    /// The private cause; null for those who are no admins.
    pub details: Option<String>,
}
