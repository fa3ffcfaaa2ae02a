//! What a new Coffer begins with: roles, an administrator, a demo project, flavors. Passwords go
//! into files that only their owner can read, and are shown nowhere else.
//!
//! It is written once for a store: what an operator deletes or renames later stays so. Each write
//! may come twice, because a first start that was interrupted is done again from its beginning.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use coffer_cli::credentials::Credentials;
use coffer_control::clock::new_uuid;
use coffer_control::clock::{Clock, random_text};
use coffer_core::flavor::Flavor;
use coffer_core::id::{TenantId, UserId};
use coffer_core::name::Name;
use coffer_core::secret::Secret;
use coffer_core::tenant::{RoleAssignment, Tenant, User};
use coffer_store::StoreError;

use coffer_control::app::AppState;

use crate::assemble::Base;
use crate::state_dir::StateDir;

/// Where clients find the API, for credentials files.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) url: String,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) region: String,
}

/// Name, MiB, CPUs of the flavors that are there from the start; the name is the id too.
const FLAVORS: &[(&str, u32, u32)] = &[
    ("tiny", 256, 1),
    ("small", 512, 1),
    ("medium", 1_024, 1),
    ("large", 2_048, 2),
    ("xlarge", 4_096, 2),
];

/// Users of the first start, each with a project of its name, and their roles there.
const ACCOUNTS: &[(&str, &[&str])] = &[("admin", &["admin", "member"]), ("demo", &["member"])];

/// Setting that a store has once its first start came to its end.
const DONE: &str = "first_start";

/// Makes the first catalogue and accounts, unless that was done. Credentials files are rewritten
/// when the API's address has changed.
pub(crate) async fn ensure(
    base: &Base,
    app: &AppState,
    state: &StateDir,
    door: &Door,
) -> anyhow::Result<()> {
    if base.store.get_setting(DONE).await?.is_none() {
        catalogue(base).await?;
        for (name, roles) in ACCOUNTS {
            account(base, app, state, door, name, roles).await?;
        }
        base.store.put_setting(DONE, "done").await?;
    }
    ACCOUNTS
        .iter()
        .try_for_each(|(name, _)| refresh(&credentials_file(state, name), door))
}

fn credentials_file(state: &StateDir, name: &str) -> PathBuf {
    state.join(&format!("{name}.toml"))
}

async fn catalogue(base: &Base) -> anyhow::Result<()> {
    let now = base.clock.now();
    for role in ["admin", "member", "reader"] {
        tolerate(base.store.insert_role(role, now).await)?;
    }
    for &(name, memory_mib, vcpus) in FLAVORS {
        let flavor = Flavor {
            id: name.parse()?,
            name: Name::parse("name", name)?,
            memory_mib,
            vcpus,
            disk_gib: 0,
            created_at: now,
        };
        tolerate(base.store.insert_flavor(&flavor).await)?;
    }
    Ok(())
}

fn tolerate(result: Result<(), StoreError>) -> anyhow::Result<()> {
    match result {
        Ok(()) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error).context("write the first catalogue"),
    }
}

/// A project and its user of the same name.
async fn account(
    base: &Base,
    app: &AppState,
    state: &StateDir,
    door: &Door,
    name: &str,
    roles: &[&str],
) -> anyhow::Result<()> {
    let file = credentials_file(state, name);
    // The file first: an account whose password nobody knows is of no use. Several processes that
    // start on one state directory all find the password of the one that came first.
    let fresh = Secret::new(random_text(&*base.entropy, 32));
    credentials(door, name, &fresh)
        .write_new(&file)
        .map_err(|e| anyhow::anyhow!(e.message))?;
    let known = Credentials::read(&file).map_err(|e| anyhow::anyhow!(e.message))?;
    let password = Secret::new(known.password);
    let passwords = app.logins.passwords();
    let hash = passwords
        .hash(&*base.entropy, &password)
        .await
        .map_err(|e| anyhow::anyhow!("hash the first password: {e}"))?;
    let user = insert_account(base, name, roles, hash).await?;
    let is_ours = passwords
        .verify(&password, Some(&user.password_hash))
        .await
        .map_err(|e| anyhow::anyhow!("check the first password: {e}"))?;
    if !is_ours {
        // A process with another state directory was first on this store: the file there is right.
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    }
    Ok(())
}

async fn insert_account(
    base: &Base,
    name: &str,
    roles: &[&str],
    password_hash: String,
) -> anyhow::Result<User> {
    let store = &base.store;
    let now = base.clock.now();
    let hex = || new_uuid(&*base.clock, &*base.entropy).simple().to_string();
    let tenant = Tenant {
        id: hex().parse::<TenantId>()?,
        name: Name::parse("name", name)?,
        is_enabled: true,
        description: format!("made at the first start for the user {name}"),
        created_at: now,
    };
    tolerate(store.insert_tenant(&tenant).await)?;
    let tenant = store.find_tenant_by_name(name).await?;
    let tenant = tenant.with_context(|| format!("the project {name} was deleted meanwhile"))?;
    let user = User {
        id: hex().parse::<UserId>()?,
        name: Name::parse("name", name)?,
        password_hash,
        is_enabled: true,
        default_tenant_id: Some(tenant.id.clone()),
        created_at: now,
    };
    tolerate(store.insert_user(&user).await)?;
    let user = store.find_user_by_name(name).await?;
    let user = user.with_context(|| format!("the user {name} was deleted meanwhile"))?;
    for role in roles {
        let assignment = RoleAssignment {
            user_id: user.id.clone(),
            tenant_id: tenant.id.clone(),
            role: (*role).to_owned(),
        };
        store.assign_role(&assignment).await?;
    }
    Ok(user)
}

fn credentials(door: &Door, name: &str, password: &Secret) -> Credentials {
    Credentials {
        auth_url: format!("{}/v3", door.url),
        username: name.to_owned(),
        password: password.expose().to_owned(),
        project_name: name.to_owned(),
        region_name: door.region.clone(),
        ca_file: door.ca_file.clone(),
    }
}

/// Lets an existing file lead to where the API is now.
fn refresh(file: &std::path::Path, door: &Door) -> anyhow::Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let known = Credentials::read(file).map_err(|e| anyhow::anyhow!(e.message))?;
    let fresh = Credentials {
        auth_url: format!("{}/v3", door.url),
        region_name: door.region.clone(),
        ca_file: door.ca_file.clone(),
        ..known.clone()
    };
    if fresh == known {
        return Ok(());
    }
    fresh.write(file).map_err(|e| anyhow::anyhow!(e.message))
}
