//! Sizes for a flavor and a volume. Pure arithmetic, no text.

/// What a configuration is sized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Memory for data and clients; unit: MiB.
    pub(super) maxmemory_mib: u32,
    /// Client connections.
    pub(super) maxclients: u32,
    /// Threads that read and write sockets, the main one included.
    pub(super) io_threads: u32,
}

/// What guest and engine take when they are idle; unit: MiB.
const IDLE_MIB: u32 = 32;

/// Sizes for memory in MiB, CPUs, and a volume in GiB.
///
/// Half of the memory that is left holds data: while the append-only file is rewritten, what is
/// changed exists twice. With three fifths, clients that overwrite everything at full speed
/// meanwhile have the engine killed for want of memory; with half they were seen to use what there
/// is and no more. The file then took up to four times the data (base, changes, new base, changes
/// meanwhile), so that data are a quarter of the volume at most.
pub(super) fn sizes(memory_mib: u32, vcpus: u32, volume_gib: u32) -> Sizes {
    let memory_mib = memory_mib.max(128);
    let volume_mib = volume_gib.max(1).saturating_mul(1024);
    let maxmemory_mib = ((memory_mib - IDLE_MIB) / 2).min(volume_mib / 4);
    Sizes {
        maxmemory_mib,
        maxclients: memory_mib.saturating_mul(2).min(10_000),
        io_threads: if vcpus < 4 { 1 } else { (vcpus - 1).min(8) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_size_passes_its_bounds() {
        for memory in [0, 128, 256, 1024, 65_536, u32::MAX] {
            for volume in [0, 1, 20, 65_536, u32::MAX] {
                let sizes = sizes(memory, 2, volume);
                assert!(sizes.maxmemory_mib >= 48, "{sizes:?}");
                assert!(sizes.maxmemory_mib <= memory.max(128) / 2);
                assert!(sizes.maxmemory_mib <= volume.max(1).saturating_mul(1024) / 4);
                assert!((256..=10_000).contains(&sizes.maxclients));
            }
        }
    }

    #[test]
    fn the_flavors_of_a_first_start() {
        let of = |memory, vcpus, volume| {
            let sizes = sizes(memory, vcpus, volume);
            (sizes.maxmemory_mib, sizes.maxclients, sizes.io_threads)
        };
        assert_eq!(of(256, 1, 1), (112, 512, 1));
        assert_eq!(of(512, 1, 1), (240, 1024, 1));
        assert_eq!(of(4096, 2, 1), (256, 8192, 1));
        assert_eq!(of(4096, 2, 20), (2032, 8192, 1));
        assert_eq!(of(65_536, 16, 1000), (32_752, 10_000, 8));
    }
}
