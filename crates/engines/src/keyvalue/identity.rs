//! Who a data directory belongs to: Coffer's own user in the list of users, and the password that
//! the agent keeps for it.
//!
//! Run and replication ids need no change: the engine makes new ones at each start, and an
//! append-only file holds none. The password lies beside the configuration in a file that only
//! the agent's user can read; the list of users, which is the engine's, holds its hash.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coffer_core::secret::Secret;
use sha2::{Digest, Sha256};

use crate::keyvalue::names::{COFFER, ROOT};
use crate::keyvalue::rights;

/// The agent's file: the identity and the password that belongs to it.
const SECRET_FILE: &str = "coffer.secret";
/// The engine's list of users.
pub(super) const USERS_FILE: &str = "users.acl";
/// The identity, for whoever looks at the files.
const IDENTITY_FILE: &str = "coffer.identity";

/// What the engine keeps of a password; hexadecimal.
pub(super) fn hash(password: &Secret) -> String {
    hex(&Sha256::digest(password.expose().as_bytes()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The password of Coffer's own user.
pub(super) fn read_secret(config_dir: &Path) -> io::Result<Secret> {
    let text = fs::read_to_string(config_dir.join(SECRET_FILE))?;
    match text.split_whitespace().nth(1) {
        Some(secret) => Ok(Secret::new(secret.to_owned())),
        None => Err(io::Error::other(format!("{SECRET_FILE} holds none"))),
    }
}

/// The password that belongs to `identity`: as it is kept, or a new one.
pub(super) fn ensure_secret(config_dir: &Path, identity: &str) -> io::Result<Secret> {
    let path = config_dir.join(SECRET_FILE);
    let known = fs::read_to_string(&path).unwrap_or_default();
    if known.split_whitespace().next() == Some(identity) {
        return read_secret(config_dir);
    }
    let mut random = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let secret = Secret::new(hex(&random));
    let text = Secret::new(format!("{identity} {}\n", secret.expose()));
    replace(&path, text.expose())?;
    Ok(secret)
}

/// Gives the stopped engine's directory its identity, with the hash of the password that belongs
/// to it; tenants' users stay. The same again changes nothing.
pub fn write(engine_dir: &Path, identity: &str, secret_hash: &str) -> io::Result<()> {
    let path = engine_dir.join(USERS_FILE);
    let known = match fs::read_to_string(&path) {
        Ok(known) => known,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let users = with_own_user(&known, secret_hash);
    if users != known {
        replace(&path, &users)?;
    }
    let path = engine_dir.join(IDENTITY_FILE);
    if fs::read_to_string(&path).is_ok_and(|known| known == identity) {
        return Ok(());
    }
    replace(&path, identity)
}

/// The identity of a directory.
pub fn read(engine_dir: &Path) -> io::Result<String> {
    fs::read_to_string(engine_dir.join(IDENTITY_FILE))
}

fn with_own_user(known: &str, secret_hash: &str) -> String {
    let is = |line: &str, name: &str| line.split(' ').nth(1) == Some(name);
    let own = format!("user {COFFER} on sanitize-payload #{secret_hash} ~* &* +@all");
    let rules: Vec<_> = rights::root().collect();
    let off = format!("user {ROOT} off {}", rules.join(" "));
    let has_root = known.lines().any(|line| is(line, ROOT));
    let first = [own.as_str()]
        .into_iter()
        .chain((!has_root).then_some(off.as_str()));
    let others = known.lines().filter(|line| !is(line, COFFER));
    first
        .chain(others)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Replaces a file as a whole, durably; private to its owner.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("coffer-kv-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_password_stays_with_its_identity() {
        let dir = dir("secret");
        assert!(read_secret(&dir).is_err());
        let first = ensure_secret(&dir, "one").unwrap();
        assert_eq!(first.expose().len(), 64);
        assert_eq!(ensure_secret(&dir, "one").unwrap(), first);
        assert_eq!(read_secret(&dir).unwrap(), first);
        assert_ne!(ensure_secret(&dir, "two").unwrap(), first);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_list_of_users_keeps_what_is_the_tenants() {
        let dir = dir("users");
        write(&dir, "one", "aa").unwrap();
        let own = |hash: &str| format!("user coffer on sanitize-payload #{hash} ~* &* +@all\n");
        let users = || fs::read_to_string(dir.join(USERS_FILE)).unwrap();
        let first = users();
        assert!(first.starts_with(&own("aa")), "{first}");
        assert!(first.contains("\nuser default off sanitize-payload ~* &* +@all -@admin "));
        assert_eq!(read(&dir).unwrap(), "one");
        let kept = "user default on #cc ~* &* +@all\nuser coffer_x on #dd ~* &* +@all\n";
        fs::write(dir.join(USERS_FILE), own("aa") + kept).unwrap();
        for _ in 0..2 {
            write(&dir, "two", "bb").unwrap();
            assert_eq!(users(), own("bb") + kept);
            assert_eq!(read(&dir).unwrap(), "two");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_hash_is_the_engines() {
        // From the engine's own manual of ACL SETUSER, for the password `hello`.
        assert_eq!(
            hash(&Secret::new("hello".to_owned())),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
    }
}
