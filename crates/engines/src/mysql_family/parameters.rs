//! Sizes of the family's parameters for a flavor and a volume. Pure arithmetic, no text.

/// What a configuration is sized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Unit: MiB.
    pub(crate) buffer_pool_mib: u32,
    /// Client connections.
    pub(crate) max_connections: u32,
    /// Unit: MiB.
    pub(crate) redo_log_mib: u32,
    /// Unit: MiB.
    pub(crate) temp_max_mib: u32,
    /// Unit: MiB.
    pub(crate) binlog_file_mib: u32,
    /// Tables kept open.
    pub(crate) table_cache: u32,
    /// Whether the server keeps its own statistics of what it does, which takes memory that a
    /// small flavor needs for data.
    pub(crate) has_performance_schema: bool,
}

/// Memory from which on there is room for the performance schema; unit: MiB.
const PERFORMANCE_SCHEMA_FROM_MIB: u32 = 2048;

/// Sizes for memory in MiB and a volume in GiB, for a server that needs `overhead_mib` beside its
/// pool.
///
/// Half of what the overhead leaves is the buffer pool: the rest is for sessions and the page
/// cache of logs. Redo and binary logs take a tenth of the volume each.
pub(crate) fn sizes(memory_mib: u32, volume_gib: u32, overhead_mib: u32) -> Sizes {
    let memory_mib = memory_mib.max(128);
    let volume_mib = volume_gib.max(1).saturating_mul(1024);
    let has_performance_schema = memory_mib >= PERFORMANCE_SCHEMA_FROM_MIB;
    Sizes {
        buffer_pool_mib: (memory_mib.saturating_sub(overhead_mib) / 2).max(24),
        max_connections: (memory_mib / 10).clamp(25, 2000),
        redo_log_mib: (volume_mib / 10).clamp(64, 8192),
        temp_max_mib: volume_mib / 2,
        binlog_file_mib: (volume_mib / 20).clamp(32, 512),
        table_cache: (memory_mib / 2).clamp(200, 4000),
        has_performance_schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_size_passes_its_bounds() {
        for memory in [0, 128, 256, 512, 1024, 4096, 65_536, u32::MAX] {
            for volume in [0, 1, 20, 1000, u32::MAX] {
                let sizes = sizes(memory, volume, 180);
                assert!(sizes.buffer_pool_mib >= 24);
                assert!(sizes.buffer_pool_mib <= (memory / 2).max(24));
                assert!(sizes.redo_log_mib >= 64 && sizes.redo_log_mib <= 8192);
                assert!(sizes.max_connections >= 25);
            }
        }
    }
}
