//! Who may do what: Trove's policy names, and the one function that decides.

use crate::auth::Session;
use crate::error::{Error, Kind, Result};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever has a role in the project; to change something, as `admin` or `member`.
    Project,
    /// The role `admin`; others get 403.
    Admin,
    /// The role `admin`; others get 401, as Trove's management routes do.
    Management,
}

/// Roles whose holders may change something. Every other role only reads: an operator may make
/// one (`auditor`), and a name alone gives no rights.
const WRITERS: [&str; 2] = ["admin", "member"];

/// A rule: its name in Trove's policy file (ours begin with `coffer:`) and who fits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name; the audit trail's action.
    pub name: &'static str,
    /// Who fits it.
    pub who: Who,
}

impl Rule {
    /// For whoever has a role in the project.
    pub const fn project(name: &'static str) -> Self {
        Self {
            name,
            who: Who::Project,
        }
    }

    /// For admins.
    pub const fn admin(name: &'static str) -> Self {
        Self {
            name,
            who: Who::Admin,
        }
    }

    /// For admins, on Trove's management routes.
    pub const fn management(name: &'static str) -> Self {
        Self {
            name,
            who: Who::Management,
        }
    }
}

/// Whether the session's user may do this; `is_write` when it changes something.
pub fn authorise(session: &Session, rule: Rule, is_write: bool) -> Result<()> {
    let may_write = session
        .roles
        .iter()
        .any(|role| WRITERS.contains(&role.as_str()));
    let fits = match rule.who {
        Who::Project => !is_write || may_write,
        Who::Admin | Who::Management => session.is_admin(),
    };
    if fits {
        return Ok(());
    }
    Err(match rule.who {
        Who::Management => Error::new(
            Kind::Unauthorized,
            "admin-only",
            "User does not have admin privileges.",
        ),
        Who::Project | Who::Admin => Error::new(
            Kind::Forbidden,
            "policy",
            format!("Policy doesn't allow {} to be performed.", rule.name),
        ),
    })
}

#[cfg(test)]
mod tests {
    use coffer_core::time::Timestamp;

    use super::*;
    use crate::error::Kind;

    fn session(roles: &[&str]) -> Session {
        Session {
            hash: String::new(),
            user_id: "u".parse().unwrap(),
            user_name: "u".to_owned(),
            tenant: None,
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            issued_at: Timestamp::default(),
            expires_at: Timestamp::default(),
        }
    }

    #[test]
    fn a_reader_only_reads() {
        let rule = Rule::project("instance:create");
        assert!(authorise(&session(&["reader"]), rule, false).is_ok());
        assert!(authorise(&session(&["member"]), rule, true).is_ok());
        assert!(authorise(&session(&["member", "reader"]), rule, true).is_ok());
        let denied = authorise(&session(&["reader"]), rule, true).unwrap_err();
        assert_eq!(denied.kind, Kind::Forbidden);
        assert!(authorise(&session(&["auditor"]), rule, true).is_err());
        assert!(authorise(&session(&["auditor"]), rule, false).is_ok());
        assert!(denied.message.contains("instance:create"));
    }

    #[test]
    fn management_hides_behind_401() {
        let of = |rule| {
            authorise(&session(&["member"]), rule, false)
                .unwrap_err()
                .kind
        };
        assert_eq!(of(Rule::management("m")), Kind::Unauthorized);
        assert_eq!(of(Rule::admin("a")), Kind::Forbidden);
        assert!(authorise(&session(&["admin"]), Rule::management("m"), true).is_ok());
    }
}
