//! Sizes of PostgreSQL's parameters for a flavor and a volume. Pure arithmetic, no text.

/// What a configuration is sized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Unit: MiB.
    pub(super) shared_buffers_mib: u32,
    /// Unit: MiB.
    pub(super) effective_cache_size_mib: u32,
    /// Unit: KiB.
    pub(super) work_mem_kib: u32,
    /// Unit: MiB.
    pub(super) maintenance_work_mem_mib: u32,
    /// Client connections, superusers' reserve included.
    pub(super) max_connections: u32,
    /// Unit: MiB.
    pub(super) max_wal_size_mib: u32,
    /// Unit: MiB.
    pub(super) min_wal_size_mib: u32,
    /// Unit: MiB.
    pub(super) temp_file_limit_mib: u32,
    /// Parallel workers in all.
    pub(super) parallel_workers: u32,
    /// Parallel workers of one query.
    pub(super) gather_workers: u32,
    /// Autovacuum workers.
    pub(super) autovacuum_workers: u32,
}

/// Sizes for memory in MiB, CPUs, and a volume in GiB.
///
/// A quarter of memory is shared buffers and three quarters are assumed to be cache in all, as
/// the limit counts the page cache too. What sessions may take at once for sorting stays below
/// what the buffers leave. WAL takes at most a tenth of the volume, so that a small volume is not
/// filled by it.
pub(super) fn sizes(memory_mib: u32, vcpus: u32, volume_gib: u32) -> Sizes {
    let memory_mib = memory_mib.max(128);
    let vcpus = vcpus.max(1);
    let volume_mib = volume_gib.max(1).saturating_mul(1024);
    let shared_buffers_mib = memory_mib / 4;
    let max_connections = (memory_mib / 10).clamp(25, 2000);
    let left_kib = u64::from(memory_mib - shared_buffers_mib) * 1024;
    let work_mem_kib = (left_kib / (u64::from(max_connections) * 3)).clamp(1024, 131_072);
    let max_wal_size_mib = (volume_mib / 10).clamp(96, 16_384);
    Sizes {
        shared_buffers_mib,
        effective_cache_size_mib: memory_mib / 4 * 3,
        work_mem_kib: u32::try_from(work_mem_kib).expect("clamped to 128 MiB"),
        maintenance_work_mem_mib: (memory_mib / 16).clamp(16, 2048),
        max_connections,
        max_wal_size_mib,
        min_wal_size_mib: (max_wal_size_mib / 4).clamp(32, 1024),
        temp_file_limit_mib: volume_mib / 2,
        parallel_workers: vcpus,
        gather_workers: (vcpus / 2).clamp(0, 4),
        autovacuum_workers: vcpus.clamp(2, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_size_passes_its_bounds() {
        for memory in [0, 128, 512, 1024, 4096, 65_536, 1_048_576, u32::MAX] {
            for volume in [0, 1, 20, 1000, 65_536, u32::MAX] {
                let sizes = sizes(memory, 2, volume);
                assert!(sizes.shared_buffers_mib >= 32);
                assert!(sizes.min_wal_size_mib >= 32);
                assert!(sizes.min_wal_size_mib < sizes.max_wal_size_mib);
                assert!(sizes.work_mem_kib >= 1024);
                assert!(sizes.effective_cache_size_mib <= memory.max(128));
            }
        }
    }
}
