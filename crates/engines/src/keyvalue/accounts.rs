//! Users and root.
//!
//! The engine is given hashes and never a password. Each change is one command that takes effect
//! as a whole, and is then written to the list of users on disk; a change that a crash cut short
//! is made again by the same call.

use coffer_core::secret::Secret;

use crate::error::{EngineError, Result};
use crate::keyvalue::names::{self, ROOT, VISITOR_PREFIX, invalid};
use crate::keyvalue::resp::Value;
use crate::keyvalue::session::{accept, ask, ask_all};
use crate::keyvalue::{KeyValue, identity, rights};
use crate::runtime::{EngineHost, NewUser, UserChange};

/// Creates users, or sets the passwords of those that are there.
pub(super) async fn create(
    kind: &KeyValue,
    host: &dyn EngineHost,
    users: &[NewUser],
) -> Result<()> {
    for user in users {
        check(&user.name)?;
        put_user(kind, host, user).await?;
    }
    save(host).await
}

async fn put_user(kind: &KeyValue, host: &dyn EngineHost, user: &NewUser) -> Result<()> {
    if !user.databases.is_empty() {
        return Err(kind.no_databases("grants of databases"));
    }
    let password = password_rule(&user.password);
    put(host, &user.name, &[&password], rights::user()).await
}

/// Makes a user anew, with these passwords and rights, who may log in.
async fn put(
    host: &dyn EngineHost,
    name: &str,
    passwords: &[&str],
    rules: impl Iterator<Item = &'static str>,
) -> Result<()> {
    let mut request = vec!["ACL", "SETUSER", name, "reset", "on"];
    request.extend(passwords);
    for rule in rules {
        request.push(rule);
    }
    ask(host, "set the user", &request).await.map(drop)
}

/// Creates a user for a visit.
pub(super) async fn admit_visitor(
    kind: &KeyValue,
    host: &dyn EngineHost,
    user: &NewUser,
) -> Result<()> {
    names::check(&user.name)?;
    if !user.name.starts_with(VISITOR_PREFIX) {
        let rule = format!("has to begin with {VISITOR_PREFIX}");
        return Err(invalid(&user.name, rule));
    }
    put_user(kind, host, user).await?;
    // Written down all the same: a restart of the engine must not end a visit.
    save(host).await
}

/// Drops a visitor, or all of them.
pub(super) async fn dismiss_visitors(host: &dyn EngineHost, name: Option<&str>) -> Result<()> {
    let visitors: Vec<String> = list(host)
        .await?
        .into_iter()
        .filter(|user| user.starts_with(VISITOR_PREFIX))
        .filter(|user| name.is_none_or(|name| user == name))
        .collect();
    match visitors.as_slice() {
        [] => Ok(()),
        visitors => remove(host, visitors).await,
    }
}

/// Names of all users.
pub(super) async fn list(host: &dyn EngineHost) -> Result<Vec<String>> {
    match ask(host, "list users", &["ACL", "USERS"]).await? {
        Value::List(users) => Ok(users.into_iter().filter_map(text).collect()),
        other => Err(unexpected("list users", &other)),
    }
}

/// Changes name and password of a user. The engine has no renaming: the new user gets the hashes
/// of the old one before that goes.
pub(super) async fn change(host: &dyn EngineHost, change: &UserChange) -> Result<()> {
    check(&change.name)?;
    let new_name = change.new_name.as_deref().unwrap_or(&change.name);
    check(new_name)?;
    let found = match passwords(host, &change.name).await? {
        Some(found) => Some(found),
        // A repeated change finds the user under its new name.
        None => passwords(host, new_name).await?,
    };
    let Some(found) = found else {
        return Err(EngineError::Missing {
            kind: "user",
            name: change.name.clone(),
        });
    };
    let wanted = change
        .new_password
        .as_ref()
        .map(|new| vec![password_rule(new)]);
    let passwords = wanted.unwrap_or(found);
    if new_name != change.name && is_anothers(host, change, new_name, &passwords).await? {
        return Err(EngineError::Invalid {
            field: "new user name",
            value: new_name.to_owned(),
            rule: "is another user's".to_owned(),
        });
    }
    let passwords: Vec<&str> = passwords.iter().map(String::as_str).collect();
    put(host, new_name, &passwords, rights::user()).await?;
    if new_name == change.name {
        return save(host).await;
    }
    remove(host, std::slice::from_ref(&change.name)).await
}

/// Whether the new name is that of another user, and not of the same one whose change was cut in
/// the middle, which has the new passwords already.
async fn is_anothers(
    host: &dyn EngineHost,
    change: &UserChange,
    new_name: &str,
    wanted: &[String],
) -> Result<bool> {
    let (old, new) = (
        passwords(host, &change.name).await?,
        passwords(host, new_name).await?,
    );
    Ok(old.is_some() && new.is_some_and(|new| new != wanted))
}

/// Rules that give a user the passwords it has; `None` if it is not there.
async fn passwords(host: &dyn EngineHost, name: &str) -> Result<Option<Vec<String>>> {
    let Some(hashes) = field(host, name, "passwords").await? else {
        return Ok(None);
    };
    Ok(Some(hashes.iter().map(|hash| format!("#{hash}")).collect()))
}

/// Whether root may log in.
pub(super) async fn is_root_enabled(host: &dyn EngineHost) -> Result<bool> {
    let flags = field(host, ROOT, "flags").await?;
    Ok(flags.is_some_and(|flags| flags.iter().any(|flag| flag == "on")))
}

/// A list that the engine keeps of a user; `None` if the user is not there.
async fn field(host: &dyn EngineHost, name: &str, field: &str) -> Result<Option<Vec<String>>> {
    let pairs = match ask(host, "look at the user", &["ACL", "GETUSER", name]).await? {
        Value::List(pairs) => pairs,
        _ => return Ok(None),
    };
    let is_it = |pair: &&[Value]| matches!(&pair[0], Value::Text(known) if known == field);
    match pairs.chunks_exact(2).find(is_it) {
        Some([_, Value::List(values)]) => {
            Ok(Some(values.iter().cloned().filter_map(text).collect()))
        }
        _ => Err(unexpected("look at the user", &Value::Nil)),
    }
}

/// Drops a user if it is there, and ends its connections.
pub(super) async fn drop_user(host: &dyn EngineHost, name: &str) -> Result<()> {
    check(name)?;
    remove(host, &[name.to_owned()]).await
}

async fn remove(host: &dyn EngineHost, users: &[String]) -> Result<()> {
    let mut request = vec!["ACL", "DELUSER"];
    request.extend(users.iter().map(String::as_str));
    ask(host, "drop the user", &request).await?;
    save(host).await
}

/// Lets root log in with this password.
pub(super) async fn enable_root(host: &dyn EngineHost, password: &Secret) -> Result<()> {
    put(host, ROOT, &[&password_rule(password)], rights::root()).await?;
    save(host).await
}

/// Takes login and password from root and ends its connections. Its rights stay: see
/// [`rights::root`].
pub(super) async fn disable_root(host: &dyn EngineHost) -> Result<()> {
    let mut off = vec!["ACL", "SETUSER", ROOT, "reset", "off"];
    off.extend_from_slice(&rights::root().collect::<Vec<_>>());
    let requests: [&[&str]; 2] = [&off, &["CLIENT", "KILL", "USER", ROOT]];
    for answer in ask_all(host, &requests).await? {
        accept("disable root", answer)?;
    }
    save(host).await
}

/// Writes the list of users to disk: until then a crash would bring back what was.
async fn save(host: &dyn EngineHost) -> Result<()> {
    ask(host, "write the list of users", &["ACL", "SAVE"])
        .await
        .map(drop)
}

fn check(name: &str) -> Result<()> {
    names::check(name)?;
    if names::is_reserved(name) {
        return Err(invalid(name, "belongs to the engine".to_owned()));
    }
    Ok(())
}

/// The rule that adds a password by its hash.
fn password_rule(password: &Secret) -> String {
    format!("#{}", identity::hash(password))
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn unexpected(what: &'static str, answer: &Value) -> EngineError {
    EngineError::Failed {
        what,
        why: format!("the answer {answer:?} is not understood"),
    }
}
