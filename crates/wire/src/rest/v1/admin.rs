//! Routes of the operator: projects, users, roles, flavors, volume types and zones. Unknown keys
//! are refused throughout.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::Link;
use crate::rest::lenient::given;

/// A project to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// Its name, unique.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// Body of `POST /admin/projects`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProjectRequest {
    /// The project.
    pub project: NewProject,
}

/// A change of a project.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectUpdate {
    /// New name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether its users may log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Body of `PATCH /admin/projects/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectUpdateRequest {
    /// What changes.
    pub project: ProjectUpdate,
}

/// A project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether its users may log in.
    pub enabled: bool,
    /// When it was made.
    pub created: String,
}

/// One project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProjectEnvelope {
    /// The project.
    pub project: Project,
}

/// A page of the projects.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProjectList {
    /// The projects.
    pub projects: Vec<Project>,
    /// Where the next page is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
}

/// A user of the API to make. `Debug` leaves the password out.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiUser {
    /// Its name, unique.
    pub name: String,
    /// Its password, 8 to 512 bytes.
    pub password: String,
    /// Project it is scoped to when it names none, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_project_id: Option<String>,
}

impl fmt::Debug for NewApiUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewApiUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Body of `POST /admin/users`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiUserRequest {
    /// The user.
    pub user: NewApiUser,
}

/// A change of a user of the API. A new password ends the user's tokens.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiUserUpdate {
    /// New name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New password, 8 to 512 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether it may log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// New default project, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_project_id: Option<String>,
}

impl fmt::Debug for ApiUserUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiUserUpdate")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Body of `PATCH /admin/users/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiUserUpdateRequest {
    /// What changes.
    pub user: ApiUserUpdate,
}

/// A user of the API.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiUser {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it may log in.
    pub enabled: bool,
    /// Project it is scoped to when it names none.
    pub default_project_id: Option<String>,
    /// When it was made.
    pub created: String,
}

/// One user of the API.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiUserEnvelope {
    /// The user.
    pub user: ApiUser,
}

/// A page of the users of the API.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiUserList {
    /// The users.
    pub users: Vec<ApiUser>,
    /// Where the next page is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
}

/// A role.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its name.
    pub name: String,
}

/// One role; also the body of `POST /admin/roles`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleEnvelope {
    /// The role.
    pub role: Role,
}

/// Roles.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RoleList {
    /// The roles.
    pub roles: Vec<Role>,
}

/// A role that a user holds in a project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Assignment {
    /// The user.
    pub user_id: String,
    /// The project.
    pub project_id: String,
    /// The role.
    pub role: String,
}

/// Roles that a user holds.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AssignmentList {
    /// The assignments.
    pub assignments: Vec<Assignment>,
}

/// A flavor to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFlavor {
    /// Its id, free text of 1 to 64 characters.
    pub id: String,
    /// Its name, unique.
    pub name: String,
    /// Memory; unit: MiB.
    pub ram: u32,
    /// CPUs.
    pub vcpus: u32,
    /// Disk as shown to clients; unit: GiB.
    #[serde(default)]
    pub disk: u32,
}

/// Body of `POST /admin/flavors`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFlavorRequest {
    /// The flavor.
    pub flavor: NewFlavor,
}

/// A change of a flavor; instances keep what they were made with until they are resized.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlavorUpdate {
    /// New name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New memory; unit: MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram: Option<u32>,
    /// New number of CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// New disk; unit: GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
}

/// Body of `PATCH /admin/flavors/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlavorUpdateRequest {
    /// What changes.
    pub flavor: FlavorUpdate,
}

/// A volume type to make. Its limits are called as in Cinder's QoS specs; what is left out or null
/// is not limited.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVolumeType {
    /// Its name, unique.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Most read operations a second of each volume, 10 to 10,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops_sec: Option<i64>,
    /// Most write operations a second, 10 to 10,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops_sec: Option<i64>,
    /// Most bytes read a second, 65,536 to 1,099,511,627,776.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_sec: Option<i64>,
    /// Most bytes written a second, 65,536 to 1,099,511,627,776.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_sec: Option<i64>,
}

/// Body of `POST /admin/volume-types`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVolumeTypeRequest {
    /// The volume type.
    pub volume_type: NewVolumeType,
}

/// A change of a volume type: what is left out stays, and a limit that is null is lifted. A running
/// instance gets new limits when it is restarted, or stopped and started, the next time.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VolumeTypeUpdate {
    /// New description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// New limit on read operations a second, 10 to 10,000,000.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub read_iops_sec: Option<Option<i64>>,
    /// New limit on write operations a second, 10 to 10,000,000.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub write_iops_sec: Option<Option<i64>>,
    /// New limit on bytes read a second, 65,536 to 1,099,511,627,776.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub read_bytes_sec: Option<Option<i64>>,
    /// New limit on bytes written a second, 65,536 to 1,099,511,627,776.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub write_bytes_sec: Option<Option<i64>>,
}

/// Body of `PATCH /admin/volume-types/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeTypeUpdateRequest {
    /// What changes.
    pub volume_type: VolumeTypeUpdate,
}

/// One volume type.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VolumeTypeEnvelope {
    /// The volume type.
    pub volume_type: crate::rest::v1::flavor::VolumeType,
}

/// A zone to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewZone {
    /// Its name, unique.
    pub name: String,
}

/// Body of `POST /admin/zones`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewZoneRequest {
    /// The zone.
    pub zone: NewZone,
}

/// An availability zone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: String,
}

/// One zone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ZoneEnvelope {
    /// The zone.
    pub zone: Zone,
}

/// Every zone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ZoneList {
    /// The zones.
    pub zones: Vec<Zone>,
}
