//! Users inside an instance, and what they are granted.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::lenient::OneOrMany;
use crate::rest::v1::common::{Link, Named};

/// Body of `POST /instances/{id}/users`; one of the two keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateUsersRequest {
    /// The users.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<NewUser>>)]
    pub users: Option<OneOrMany<NewUser>>,
    /// One user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<NewUser>>)]
    pub user: Option<OneOrMany<NewUser>>,
}

/// A user to create. `Debug` leaves the password out.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct NewUser {
    /// Its name, by the engine's rules.
    pub name: String,
    /// Its password.
    pub password: String,
    /// Where it may log in from; only engines that have it look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Databases it is granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<Vec<Named>>,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Body of `PUT /instances/{id}/users`: new passwords.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PasswordsRequest {
    /// Users with their new passwords.
    pub users: Vec<NewUser>,
}

/// Body of `PUT /instances/{id}/users/{user}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateUserRequest {
    /// What changes.
    pub user: UserUpdate,
}

/// A change of a user, at least one key. `Debug` leaves the password out.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct UserUpdate {
    /// New name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// New host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl fmt::Debug for UserUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserUpdate")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A user as it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Where it may log in from; `%` is anywhere.
    pub host: String,
    /// Databases it was granted.
    pub databases: Vec<Named>,
}

/// One user.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UserEnvelope {
    /// The user.
    pub user: User,
}

/// One page of users.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    /// The page.
    pub users: Vec<User>,
    /// The next page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
    /// The same under the key that gophercloud follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users_links: Option<Vec<Link>>,
}

/// What a user was granted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GrantList {
    /// The databases.
    pub databases: Vec<Named>,
}
