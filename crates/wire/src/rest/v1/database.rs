//! Databases inside an instance.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::lenient::OneOrMany;
use crate::rest::v1::common::{Link, Named};

/// Body of `POST /instances/{id}/databases`; one of the two keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateDatabasesRequest {
    /// The databases.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<NewDatabase>>)]
    pub databases: Option<OneOrMany<NewDatabase>>,
    /// One database, as openstacksdk sends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<NewDatabase>>)]
    pub database: Option<OneOrMany<NewDatabase>>,
}

/// A database to create.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewDatabase {
    /// Its name, by the engine's rules.
    pub name: String,
    /// Character set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub character_set: Option<String>,
    /// Collation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collate: Option<String>,
}

/// One page of databases.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DatabaseList {
    /// The page.
    pub databases: Vec<Named>,
    /// The next page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
    /// The same under the key that gophercloud follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases_links: Option<Vec<Link>>,
}

/// Body of `PUT /instances/{id}/users/{user}/databases`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GrantRequest {
    /// Databases to grant beside those the user has.
    pub databases: Vec<Named>,
}
