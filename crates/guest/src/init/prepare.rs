//! Directories and their owners, before anything runs.
//!
//! A data volume may be a clone whose files belong to the users of a template or of another
//! instance, where the provider's mount does not show them as this one's. Init has no right to look
//! into other users' directories, so a tree is changed by taking each directory first and giving
//! it away last: the owner of the top says whether the whole tree is done, and a crash in between
//! is repaired by the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;

use coffer_wire::guest::v1::Boot;

use crate::boot;
use crate::checksum;
use crate::error::{GuestError, Result};

/// Makes what is missing of the agent's and gives it to it.
pub(super) fn for_agent(boot: &Boot) -> Result<()> {
    own(&boot::agent_dir(boot), boot.agent_uid, 0o700)?;
    own(&boot::layout(boot).config_dir, boot.agent_uid, 0o755)
}

/// Makes what is missing of the engine's and gives it to it.
pub(super) fn for_engine(boot: &Boot) -> Result<()> {
    let layout = boot::layout(boot);
    let engine = boot.engine_uid;
    // Init's own: user id 0, or in a sandbox with one user id, that one.
    own(&layout.tls_dir, nix::unistd::geteuid().as_raw(), 0o755)?;
    own(&layout.data_dir.join("engine"), engine, 0o700)?;
    own(&layout.log_dir, engine, 0o755)?;
    own(&layout.run_dir, engine, 0o755)
}

fn own(path: &Path, uid: u32, mode: u32) -> Result<()> {
    let what = || format!("prepare {}", path.display());
    match path.symlink_metadata() {
        Ok(found) if !found.is_dir() => {
            let why = io::Error::other("it is there and not a directory");
            return Err(GuestError::Io {
                what: what(),
                source: why,
            });
        }
        Ok(found) => {
            if found.uid() != uid || found.gid() != uid {
                give_tree(path, uid).map_err(GuestError::io(what()))?;
            }
            return Ok(());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(GuestError::io(what())(error)),
    }
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(GuestError::io(what()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(GuestError::io(what()))?;
    chown(path, Some(uid), Some(uid)).map_err(GuestError::io(what()))
}

fn give_tree(dir: &Path, uid: u32) -> io::Result<()> {
    let own_uid = nix::unistd::geteuid().as_raw();
    chown(dir, Some(own_uid), None)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give_tree(&entry.path(), uid)?;
        } else {
            lchown(entry.path(), Some(uid), Some(uid))?;
        }
    }
    chown(dir, Some(uid), Some(uid))
}

/// Checksums of what init has put into the TLS directory, by name: it cannot read what is the
/// engine's. On a full volume nothing can be written, and an agent that starts anew has nothing
/// new to write.
#[derive(Debug, Default)]
pub(super) struct Installed(BTreeMap<String, String>);

impl Installed {
    /// Puts a file there, unless it is.
    pub(super) fn put(&mut self, boot: &Boot, name: &str, content: &str) -> Result<()> {
        let checksum = checksum::of_bytes(content.as_bytes());
        let path = boot::layout(boot).tls_dir.join(name);
        let is_there = fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file());
        if is_there && self.0.get(name) == Some(&checksum) {
            return Ok(());
        }
        self.0.remove(name);
        install(boot, name, content)?;
        self.0.insert(name.to_owned(), checksum);
        Ok(())
    }
}

/// Puts a file into the TLS directory that the engine's user can read and nobody else. It is not
/// forced to disk: the agent installs its files anew at every start.
fn install(boot: &Boot, name: &str, content: &str) -> Result<()> {
    let is_plain = !name.is_empty()
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    if !is_plain {
        return Err(GuestError::Init {
            why: format!("'{name}' is not a plain file name"),
        });
    }
    let dir = boot::layout(boot).tls_dir;
    let (path, new) = (dir.join(name), dir.join(format!(".{name}.new")));
    let install = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_private(&new, content)?;
        chown(&new, Some(boot.engine_uid), Some(boot.engine_uid))?;
        fs::rename(&new, &path)
    };
    install().map_err(GuestError::io(format!("install {}", path.display())))
}

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?;
    file.write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let boot = Boot {
            protocol: 1,
            server_id: String::new(),
            instance_id: None,
            link_ca_pem: String::new(),
            bind: Vec::new(),
            engine: String::new(),
            engine_version: String::new(),
            agent_uid: uid,
            engine_uid: uid,
            data_dir: dir.path().display().to_string(),
            memory_mib: 1,
            vcpus: 1,
        };
        let path = boot::layout(&boot).tls_dir.join("engine.crt");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let mut installed = Installed::default();
        let mut put = |content: &str| {
            installed.put(&boot, "engine.crt", content).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            fs::metadata(&path).unwrap().ino()
        };
        let first = put("one");
        assert_eq!(put("one"), first);
        let other = put("two");
        assert_ne!(other, first);
        assert_ne!(put("one"), other);
        fs::remove_file(&path).unwrap();
        put("one");
        // Another init knows of nothing, and writes it.
        let mut next = Installed::default();
        next.put(&boot, "engine.crt", "three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert!(next.put(&boot, "../engine.crt", "three").is_err());
    }

    #[test]
    fn gives_a_tree_and_repairs_a_half_given_one() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test changes owners: run it as root"
        );
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("engine");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", top.join("link")).unwrap();
        // As a crash leaves it: the top taken, something below already given.
        chown(top.join("a/b"), Some(61_002), Some(61_002)).unwrap();
        own(&top, 61_002, 0o700).unwrap();
        for path in ["", "a", "a/b", "a/b/file", "link"] {
            let found = top.join(path).symlink_metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (61_002, 61_002), "{path}");
        }
        assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
    }
}
