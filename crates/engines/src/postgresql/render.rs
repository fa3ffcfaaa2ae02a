//! PostgreSQL's configuration as text: `postgresql.conf`, `pg_hba.conf`, `pg_ident.conf`.
//!
//! Paths, port and sockets are not in here: they stand on the command line (`runtime.rs`), where
//! neither a superuser's `ALTER SYSTEM` nor a file in the data directory can change them.

use std::fmt::Write;

use crate::engine::{ConfigFile, RenderContext};
use crate::postgresql::parameters::{Sizes, sizes};

const SETTINGS: &str = "\
password_encryption = 'scram-sha-256'
ssl = on
ssl_min_protocol_version = 'TLSv1.2'
superuser_reserved_connections = 5
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
hot_standby = on
wal_log_hints = off
wal_compression = lz4
fsync = on
full_page_writes = on
huge_pages = off
random_page_cost = 1.1
log_destination = 'stderr'
logging_collector = on
log_filename = 'postgresql-%Y%m%d-%H%M%S.log'
log_file_mode = 0644
log_rotation_age = 1d
log_rotation_size = 16MB
log_line_prefix = '%m [%p] %q%u@%d '
log_timezone = 'UTC'
log_statement = 'none'
log_lock_waits = on
log_checkpoints = on
timezone = 'UTC'
datestyle = 'iso, ymd'
lc_messages = 'C.UTF-8'
lc_monetary = 'C.UTF-8'
lc_numeric = 'C.UTF-8'
lc_time = 'C.UTF-8'
default_text_search_config = 'pg_catalog.english'
";

/// Nobody but the agent's user, on the local socket, becomes `coffer`, and nobody else enters its
/// database. Over TCP nothing is answered without TLS.
const HBA: &str = "\
# type    database  user    address  method
local     all       coffer           peer map=coffer
local     coffer    all              reject
local     all       all              scram-sha-256
host      all       coffer  all      reject
host      coffer    all     all      reject
hostssl   all       all     all      scram-sha-256
";

const IDENT: &str = "\
# map     system user   role
coffer    coffer-agent  coffer
";

/// The files for these sizes.
pub(super) fn files(context: &RenderContext) -> Vec<ConfigFile> {
    vec![
        ConfigFile {
            name: "postgresql.conf",
            content: settings(context),
        },
        ConfigFile {
            name: "pg_hba.conf",
            content: HBA.to_owned(),
        },
        ConfigFile {
            name: "pg_ident.conf",
            content: IDENT.to_owned(),
        },
    ]
}

fn settings(context: &RenderContext) -> String {
    let sizes = sizes(context.memory_mib, context.vcpus, context.volume.as_gib());
    let mut text = String::with_capacity(2048);
    let _ = writeln!(text, "listen_addresses = '{}'", listen_addresses(context));
    write_sizes(&mut text, &sizes);
    text.push_str(SETTINGS);
    let major: u32 = context
        .version
        .split('.')
        .next()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    if major >= 17 {
        text.push_str("summarize_wal = on\nallow_alter_system = off\n");
    }
    if major >= 18 {
        // The other ways of reading ahead want io_uring, which the sandbox refuses.
        text.push_str("io_method = 'worker'\n");
    } else {
        text.push_str("effective_io_concurrency = 64\n");
    }
    text
}

fn listen_addresses(context: &RenderContext) -> String {
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
    addresses.join(",")
}

fn write_sizes(text: &mut String, sizes: &Sizes) {
    let rows = [
        ("max_connections", sizes.max_connections, ""),
        ("shared_buffers", sizes.shared_buffers_mib, "MB"),
        ("effective_cache_size", sizes.effective_cache_size_mib, "MB"),
        ("work_mem", sizes.work_mem_kib, "kB"),
        ("maintenance_work_mem", sizes.maintenance_work_mem_mib, "MB"),
        ("max_wal_size", sizes.max_wal_size_mib, "MB"),
        ("min_wal_size", sizes.min_wal_size_mib, "MB"),
        ("temp_file_limit", sizes.temp_file_limit_mib, "MB"),
        ("max_worker_processes", sizes.parallel_workers.max(8), ""),
        ("max_parallel_workers", sizes.parallel_workers, ""),
        ("max_parallel_workers_per_gather", sizes.gather_workers, ""),
        ("autovacuum_max_workers", sizes.autovacuum_workers, ""),
    ];
    for (name, value, unit) in rows {
        let _ = writeln!(text, "{name} = {value}{unit}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_core::units::VolumeSize;

    fn head(version: &str, memory_mib: u32, vcpus: u32, gib: u32) -> String {
        let context = RenderContext {
            version: version.to_owned(),
            memory_mib,
            vcpus,
            volume: VolumeSize::gib(gib.into()).unwrap(),
            listen: vec!["10.9.0.12".parse().unwrap()],
            data_dir: "/data".to_owned(),
        };
        let text = settings(&context);
        assert!(text.contains(SETTINGS));
        text.replace(SETTINGS, "---\n")
    }

    #[test]
    fn small_flavor() {
        assert_eq!(
            head("17", 512, 1, 1),
            "listen_addresses = '127.0.0.1,10.9.0.12'\nmax_connections = 51\n\
             shared_buffers = 128MB\neffective_cache_size = 384MB\nwork_mem = 2570kB\n\
             maintenance_work_mem = 32MB\nmax_wal_size = 102MB\nmin_wal_size = 32MB\n\
             temp_file_limit = 512MB\nmax_worker_processes = 8\nmax_parallel_workers = 1\n\
             max_parallel_workers_per_gather = 0\nautovacuum_max_workers = 2\n---\n\
             summarize_wal = on\nallow_alter_system = off\neffective_io_concurrency = 64\n"
        );
    }

    #[test]
    fn middle_flavor() {
        assert_eq!(
            head("15", 4096, 2, 20),
            "listen_addresses = '127.0.0.1,10.9.0.12'\nmax_connections = 409\n\
             shared_buffers = 1024MB\neffective_cache_size = 3072MB\nwork_mem = 2563kB\n\
             maintenance_work_mem = 256MB\nmax_wal_size = 2048MB\nmin_wal_size = 512MB\n\
             temp_file_limit = 10240MB\nmax_worker_processes = 8\nmax_parallel_workers = 2\n\
             max_parallel_workers_per_gather = 1\nautovacuum_max_workers = 2\n---\n\
             effective_io_concurrency = 64\n"
        );
    }

    #[test]
    fn large_flavor() {
        assert_eq!(
            head("18", 65_536, 16, 1000),
            "listen_addresses = '127.0.0.1,10.9.0.12'\nmax_connections = 2000\n\
             shared_buffers = 16384MB\neffective_cache_size = 49152MB\nwork_mem = 8388kB\n\
             maintenance_work_mem = 2048MB\nmax_wal_size = 16384MB\nmin_wal_size = 1024MB\n\
             temp_file_limit = 512000MB\nmax_worker_processes = 16\nmax_parallel_workers = 16\n\
             max_parallel_workers_per_gather = 4\nautovacuum_max_workers = 5\n---\n\
             summarize_wal = on\nallow_alter_system = off\nio_method = 'worker'\n"
        );
    }

    #[test]
    fn any_address_covers_loopback() {
        let context = RenderContext {
            version: "17".to_owned(),
            memory_mib: 512,
            vcpus: 1,
            volume: VolumeSize::gib(1).unwrap(),
            listen: vec!["0.0.0.0".parse().unwrap()],
            data_dir: "/data".to_owned(),
        };
        assert_eq!(listen_addresses(&context), "0.0.0.0");
    }
}
