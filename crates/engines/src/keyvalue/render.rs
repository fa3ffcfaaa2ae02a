//! The configuration as text.
//!
//! Paths, ports, and what keeps the tenant from the process stand on the command line
//! (`runtime.rs`), which outranks the file. All that is in here can be changed while the engine
//! runs, but for what [`ONLY_AT_START`] names.

use std::fmt::Write;

use crate::engine::RenderContext;
use crate::keyvalue::parameters::sizes;

/// Settings that are read at the start only: listening anew would turn clients away for a moment,
/// and Valkey 9.1 checks payloads whatever is set, and knows the setting in its file only.
#[cfg(feature = "guest")]
pub(super) const ONLY_AT_START: &[&str] = &["bind", "io-threads", "sanitize-dump-payload"];

const SETTINGS: &str = "\
maxmemory-policy noeviction
maxmemory-clients 25%
appendfsync everysec
no-appendfsync-on-rewrite no
auto-aof-rewrite-percentage 50
auto-aof-rewrite-min-size 16mb
tls-protocols \"TLSv1.2 TLSv1.3\"
tls-auth-clients no
tcp-keepalive 60
timeout 0
loglevel notice
sanitize-dump-payload yes
repl-diskless-sync yes
repl-diskless-sync-delay 0
";

/// The file for these sizes.
pub(super) fn settings(context: &RenderContext) -> String {
    let sizes = sizes(context.memory_mib, context.vcpus, context.volume.as_gib());
    let mut text = String::with_capacity(1024);
    let _ = writeln!(text, "bind {}", bind(context));
    let _ = writeln!(text, "maxmemory {}mb", sizes.maxmemory_mib);
    let _ = writeln!(text, "maxclients {}", sizes.maxclients);
    let _ = writeln!(text, "io-threads {}", sizes.io_threads);
    text.push_str(SETTINGS);
    text
}

fn bind(context: &RenderContext) -> String {
    let mut addresses = vec!["127.0.0.1".to_owned()];
    for address in context.listen.iter().map(ToString::to_string) {
        if address == "0.0.0.0" {
            // It covers loopback, and binding both would fail.
            addresses.retain(|known| known != "127.0.0.1");
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.join(" ")
}

/// Names and values of a file made here; quotes around a value go.
#[cfg(feature = "guest")]
pub(super) fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name, value.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_core::units::VolumeSize;

    fn context(memory_mib: u32, listen: &[&str]) -> RenderContext {
        RenderContext {
            version: "8.0".to_owned(),
            memory_mib,
            vcpus: 1,
            volume: VolumeSize::gib(1).unwrap(),
            listen: listen.iter().map(|one| one.parse().unwrap()).collect(),
            data_dir: "/data".to_owned(),
        }
    }

    #[test]
    fn smallest_flavor() {
        let text = settings(&context(256, &["10.9.0.12"]));
        assert_eq!(
            text.replace(SETTINGS, "---\n"),
            "bind 127.0.0.1 10.9.0.12\nmaxmemory 112mb\nmaxclients 512\nio-threads 1\n---\n"
        );
    }

    #[test]
    fn any_address_covers_loopback() {
        assert_eq!(bind(&context(256, &["0.0.0.0"])), "0.0.0.0");
    }

    #[cfg(feature = "guest")]
    #[test]
    fn what_is_rendered_is_read_again() {
        let text = settings(&context(512, &["0.0.0.0"]));
        let read: Vec<_> = parse(&text).collect();
        assert_eq!(read.len(), text.lines().count());
        assert!(read.contains(&("tls-protocols", "TLSv1.2 TLSv1.3")));
        assert!(read.contains(&("maxmemory", "240mb")));
    }
}
