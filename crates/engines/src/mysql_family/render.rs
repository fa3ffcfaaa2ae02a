//! The family's configuration as text: `my.cnf`, and `init.sql`, which runs at every start.
//!
//! Paths, port and sockets are not in here: they stand on the command line (`runtime.rs`), which
//! outranks every file.

use std::fmt::Write;

use super::Dialect;
use super::parameters::sizes;
use crate::engine::{ConfigFile, RenderContext};

/// Durable at every commit, with what replication and restores to a point in time want from the
/// first day. No names are resolved; nobody reads or writes files of the server by SQL.
const SETTINGS: &str = "\
require_secure_transport = ON
tls_version = TLSv1.2,TLSv1.3
skip_name_resolve = ON
local_infile = ON
innodb_flush_log_at_trx_commit = 1
sync_binlog = 1
log_bin = binlog
binlog_checksum = CRC32
binlog_row_image = FULL
binlog_expire_logs_seconds = 86400
character_set_server = utf8mb4
default_time_zone = '+00:00'
key_buffer_size = 64K
innodb_log_buffer_size = 4M
innodb_buffer_pool_dump_at_shutdown = OFF
innodb_buffer_pool_load_at_startup = OFF
innodb_print_all_deadlocks = ON
max_allowed_packet = 64M
";

/// The name of the file with what only this server has: its number among replicas.
pub(crate) const IDENTITY: &str = "identity.cnf";

/// The files for these sizes.
pub(crate) fn files(dialect: &dyn Dialect, context: &RenderContext) -> Vec<ConfigFile> {
    vec![
        ConfigFile {
            name: "my.cnf",
            content: settings(dialect, context),
        },
        ConfigFile {
            name: "init.sql",
            content: dialect.own_account_sql().to_owned(),
        },
    ]
}

fn settings(dialect: &dyn Dialect, context: &RenderContext) -> String {
    let memory_mib = context.memory_mib;
    let sizes = sizes(memory_mib, context.volume.as_gib(), dialect.overhead_mib());
    let mut text = String::with_capacity(2048);
    text.push_str("[mysqld]\n");
    let _ = writeln!(text, "bind_address = {}", addresses(context));
    let rows = [
        ("innodb_buffer_pool_size", sizes.buffer_pool_mib, "M"),
        ("max_binlog_size", sizes.binlog_file_mib, "M"),
        ("max_connections", sizes.max_connections, ""),
        ("table_open_cache", sizes.table_cache, ""),
        ("table_definition_cache", sizes.table_cache.max(400), ""),
    ];
    for (name, value, unit) in rows {
        let _ = writeln!(text, "{name} = {value}{unit}");
    }
    let on_off = if sizes.has_performance_schema {
        "ON"
    } else {
        "OFF"
    };
    let _ = writeln!(text, "performance_schema = {on_off}");
    let temp = sizes.temp_max_mib;
    let _ = writeln!(
        text,
        "innodb_temp_data_file_path = ibtmp1:12M:autoextend:max:{temp}M"
    );
    text.push_str(SETTINGS);
    text.push_str(&dialect.settings(context, &sizes));
    let dir = format!("{}/engine/{}", context.data_dir, dialect.name());
    let _ = writeln!(text, "\n!include {dir}/{IDENTITY}");
    text
}

fn addresses(context: &RenderContext) -> String {
    let listen: Vec<String> = context.listen.iter().map(ToString::to_string).collect();
    if listen.iter().any(|address| address == "0.0.0.0") {
        // It covers every other one, and stands alone.
        return "0.0.0.0".to_owned();
    }
    let mut addresses = vec!["127.0.0.1".to_owned()];
    for address in listen {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.join(",")
}
