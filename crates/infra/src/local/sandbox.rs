//! What every sandbox is given: its small files, its engine root, and the program that starts it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::failure::rejected;
use super::host::Host;
use super::jail::DATA_DIR;
use crate::error::{ProviderError, Result};

/// The tree of an engine root.
pub(super) fn root_tree(host: &Host, root: &str) -> Result<PathBuf> {
    let what = "find engine root";
    if root.is_empty()
        || !root
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    {
        return Err(rejected(what, format!("'{root}' is not a checksum")));
    }
    let tree = host.config.roots_dir.join(root).join("tree");
    if !tree.join("usr").is_dir() {
        let why = format!(
            "{} is missing or damaged: run `coffer image build`",
            tree.display()
        );
        return Err(rejected(what, why));
    }
    Ok(tree)
}

/// Program and arguments of the launcher for a spec.
pub(super) fn launcher(host: &Host, spec: &Path) -> Result<(String, Vec<String>)> {
    let mut words = host.config.launcher.iter().cloned();
    let program = words
        .next()
        .ok_or_else(|| rejected("launch sandbox", "no launcher is named"))?;
    let mut args: Vec<String> = words.collect();
    args.push(spec.display().to_string());
    Ok((program, args))
}

/// The program that relays, and its arguments.
pub(super) fn relay(host: &Host, spec: &Path) -> Result<(String, Vec<String>)> {
    let (program, _) = launcher(host, spec)?;
    let words = ["sandbox-relay".to_owned(), spec.display().to_string()];
    Ok((program, words.to_vec()))
}

/// The boot data with what only the provider knows.
pub(super) fn complete_boot(boot: &str, uids: (u32, u32)) -> Result<String> {
    let what = "read boot data";
    let bad = |why: String| ProviderError::Bug { what, why };
    let mut value: Value = serde_json::from_str(boot).map_err(|e| bad(e.to_string()))?;
    let object = value
        .as_object_mut()
        .ok_or_else(|| bad("it is not an object".to_owned()))?;
    object.insert("agent_uid".to_owned(), uids.0.into());
    object.insert("engine_uid".to_owned(), uids.1.into());
    object.insert("data_dir".to_owned(), DATA_DIR.into());
    Ok(value.to_string())
}

/// Small files of a sandbox, by their path in it.
pub(super) fn files(
    boot: &str,
    host_name: &str,
    address: Option<std::net::IpAddr>,
    uids: (u32, u32),
) -> Vec<(String, String)> {
    let (agent, engine) = uids;
    let own = address
        .map(|a| format!("{a} {host_name}\n"))
        .unwrap_or_default();
    let passwd = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n\
         coffer-agent:x:{agent}:{agent}::/nonexistent:/usr/sbin/nologin\n\
         engine:x:{engine}:{engine}::{DATA_DIR}:/usr/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    );
    let group =
        format!("root:x:0:\ncoffer-agent:x:{agent}:\nengine:x:{engine}:\nnogroup:x:65534:\n");
    let file = |path: &str, content: String| (path.to_owned(), content);
    vec![
        file("/run/coffer/boot.json", boot.to_owned()),
        file("/etc/passwd", passwd),
        file("/etc/group", group),
        file("/etc/hosts", format!("127.0.0.1 localhost\n{own}")),
        file("/etc/hostname", format!("{host_name}\n")),
        file("/etc/resolv.conf", String::new()),
        file(
            "/etc/machine-id",
            format!("{}\n", machine_id(host_name, boot)),
        ),
    ]
}

/// A machine id that differs between servers and stays the same for one.
fn machine_id(host_name: &str, boot: &str) -> String {
    let value: Value = serde_json::from_str(boot).unwrap_or_default();
    let server = value["server_id"].as_str().unwrap_or(host_name);
    server
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_data_get_what_the_provider_knows() {
        let boot = complete_boot(r#"{"engine":"postgresql","agent_uid":0}"#, (7, 8)).unwrap();
        let value: Value = serde_json::from_str(&boot).unwrap();
        assert_eq!(value["agent_uid"], 7);
        assert_eq!(value["engine_uid"], 8);
        assert_eq!(value["data_dir"], "/data");
        assert_eq!(value["engine"], "postgresql");
        assert!(complete_boot("[]", (7, 8)).is_err());
    }
}
