//! Parts that several resources share.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where something is to be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// `self`, `bookmark` or `next`.
    pub rel: Cow<'static, str>,
    /// Absolute URL.
    pub href: String,
}

/// An object named by its id, with links to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reference {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub links: Vec<Link>,
}

/// An object named by its name, as databases of a user are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Named {
    /// Its name.
    pub name: String,
}
