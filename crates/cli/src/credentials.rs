//! Who is asking: `OS_*` variables, or a credentials file that only its owner can read.
//!
//! The variables are those that `openstack` uses, so one `eval "$(coffer env)"` serves both. A
//! password is never taken from the command line. The one module that reads the environment.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Where `coffer up` leaves the demo project's credentials, nearest first; `~` is the home.
const PLACES: &[&str] = &["~/.coffer/demo.toml", "/var/lib/coffer/demo.toml"];

/// What is needed to log in to one project.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Base of the identity service (`https://127.0.0.1:8779/v3`).
    pub auth_url: String,
    /// Name of the user.
    pub username: String,
    /// Password of the user.
    pub password: String,
    /// Name of the project.
    pub project_name: String,
    /// Region in the catalog.
    #[serde(default = "default_region")]
    pub region_name: String,
    /// Certificate of the CA that the API's certificate is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("auth_url", &self.auth_url)
            .field("username", &self.username)
            .field("project_name", &self.project_name)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Finds credentials: the given file, else `OS_*` variables, else `COFFER_CREDENTIALS`, else
    /// what `coffer up` left on this host.
    pub fn find(file: Option<&Path>) -> Result<Self> {
        if let Some(path) = file {
            return Self::read(path);
        }
        let variables: BTreeMap<String, String> = variables();
        if variables.contains_key("OS_AUTH_URL") {
            return Self::from_variables(&variables);
        }
        if let Some(path) = variables.get("COFFER_CREDENTIALS") {
            return Self::read(Path::new(path));
        }
        let home = variables.get("HOME").map_or("", String::as_str);
        let mut places = PLACES
            .iter()
            .map(|place| PathBuf::from(place.replace('~', home)));
        match places.find(|place| place.exists()) {
            Some(place) => Self::read(&place),
            None => Err(Failure::usage(
                "there are no credentials: start `coffer up`, or give --credentials FILE, or set \
                 OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME",
            )),
        }
    }

    /// Credentials from `OS_*` variables.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self> {
        let needed = |name: &str| {
            let value = variables
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned();
            value.ok_or_else(|| Failure::usage(format!("OS_AUTH_URL is set and {name} is not")))
        };
        Ok(Self {
            auth_url: needed("OS_AUTH_URL")?,
            username: needed("OS_USERNAME")?,
            password: needed("OS_PASSWORD")?,
            project_name: needed("OS_PROJECT_NAME")?,
            region_name: variables
                .get("OS_REGION_NAME")
                .cloned()
                .unwrap_or_else(default_region),
            ca_file: variables.get("OS_CACERT").map(PathBuf::from),
        })
    }

    /// Reads a credentials file; refuses one that others may read.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let cannot = |e: &dyn fmt::Display| Failure::usage(format!("read {shown}: {e}"));
        let mode = fs::metadata(path)
            .map_err(|e| cannot(&e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Failure::usage(format!(
                "{shown} holds a password and others may read it: chmod 600 {shown}"
            )));
        }
        let text = fs::read_to_string(path).map_err(|e| cannot(&e))?;
        // The parser's own message quotes the line, which may be the one with the password.
        let table: toml::Table = text.parse().map_err(|_| cannot(&"it is not TOML"))?;
        table
            .try_into()
            .map_err(|e: toml::de::Error| cannot(&e.message()))
    }

    /// Writes a credentials file that only its owner can read, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let next = self.write_beside(path)?;
        fs::rename(&next, path)
            .map_err(|e| Failure::failed(format!("write {}: {e}", path.display())))
    }

    /// Like [`Self::write`], but leaves a file alone that is there: of several writers, the first
    /// one's is kept.
    pub fn write_new(&self, path: &Path) -> Result<()> {
        let next = self.write_beside(path)?;
        let linked = fs::hard_link(&next, path);
        let _ = fs::remove_file(&next);
        match linked {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Failure::failed(format!("write {}: {e}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// The content in a file of this process, on disk, next to `path`.
    fn write_beside(&self, path: &Path) -> Result<PathBuf> {
        let shown = path.display();
        let cannot = |e: std::io::Error| Failure::failed(format!("write {shown}: {e}"));
        let text = toml::to_string(self).expect("credentials are plain text");
        let next = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&next);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next);
        file.and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .map_err(cannot)?;
        Ok(next)
    }

    /// Lines for a shell's `eval` that set the variables of `openstack`. They hold the password.
    pub fn export_lines(&self) -> String {
        let ca_file = self.ca_file.as_ref().map(|path| path.display().to_string());
        let pairs = [
            ("OS_AUTH_URL", Some(self.auth_url.clone())),
            ("OS_USERNAME", Some(self.username.clone())),
            ("OS_PASSWORD", Some(self.password.clone())),
            ("OS_PROJECT_NAME", Some(self.project_name.clone())),
            ("OS_USER_DOMAIN_NAME", Some("Default".to_owned())),
            ("OS_PROJECT_DOMAIN_NAME", Some("Default".to_owned())),
            ("OS_REGION_NAME", Some(self.region_name.clone())),
            ("OS_IDENTITY_API_VERSION", Some("3".to_owned())),
            ("OS_CACERT", ca_file),
        ];
        let line = |(name, value): (&str, Option<String>)| match value {
            Some(value) => format!("export {name}={}\n", quoted(&value)),
            None => format!("unset {name}\n"),
        };
        pairs.into_iter().map(line).collect()
    }
}

/// The variables of this process that are text.
fn variables() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn default_region() -> String {
    "RegionOne".to_owned()
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Credentials {
        Credentials {
            auth_url: "https://127.0.0.1:8779/v3".to_owned(),
            username: "demo".to_owned(),
            password: "it's secret".to_owned(),
            project_name: "demo".to_owned(),
            region_name: default_region(),
            ca_file: Some(PathBuf::from("/var/lib/coffer/ca.pem")),
        }
    }

    #[test]
    fn a_file_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.toml");
        sample().write(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(Credentials::read(&path).unwrap(), sample());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let failure = Credentials::read(&path).unwrap_err();
        assert!(failure.message.contains("chmod 600"), "{failure}");
    }

    #[test]
    fn a_broken_file_does_not_show_its_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo.toml");
        for text in [
            "password = s3cret",
            "password = \"s3cret\"\n",
            "password = [\"s3cret\"]",
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let failure = Credentials::read(&path).unwrap_err();
            assert!(!failure.message.contains("s3cret"), "{failure}");
        }
        assert!(!format!("{:?}", sample()).contains("secret"));
    }

    #[test]
    fn export_lines_survive_a_shell() {
        let lines = sample().export_lines();
        assert!(
            lines.contains(r"export OS_PASSWORD='it'\''s secret'"),
            "{lines}"
        );
        assert!(
            lines.contains("export OS_CACERT='/var/lib/coffer/ca.pem'"),
            "{lines}"
        );
    }

    #[test]
    fn a_missing_variable_is_named() {
        let variables = BTreeMap::from([("OS_AUTH_URL".to_owned(), "https://x".to_owned())]);
        let failure = Credentials::from_variables(&variables).unwrap_err();
        assert!(failure.message.contains("OS_USERNAME"), "{failure}");
    }
}
