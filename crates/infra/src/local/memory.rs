//! Memory that this process keeps: glibc's allocator is told to give back what is not used.
//!
//! Left alone it gives each thread an arena of its own, and takes the first large block that is
//! freed (a password hash's 19 MiB) as a sign to keep blocks of that size for ever.

use super::sys;

/// Arenas beside one for each processor: the first thread's, and one for those that block. Two
/// threads that have much to do in one arena wait for each other at every allocation.
const ARENAS_MORE: usize = 2;
/// Blocks of this size and more are given back as soon as they are freed; unit: bytes.
const MAPPED_FROM: i32 = 256 * 1024;
/// Free memory at the end of an arena above which it is given back; unit: bytes.
const TRIM_FROM: i32 = 256 * 1024;

/// Sets the allocator; to be called before the first thread. Another allocator than glibc's may
/// refuse, which costs memory and nothing else.
pub fn be_frugal() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = i32::try_from(processors + ARENAS_MORE).unwrap_or(i32::MAX);
    for (parameter, value) in [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
        (libc::M_TRIM_THRESHOLD, TRIM_FROM),
    ] {
        sys::set_allocator(parameter, value);
    }
}

/// Gives back what a burst has left free between what stays: in each arena only its end is given
/// back by itself. Takes about a millisecond for each ten MiB.
pub fn give_back() {
    sys::trim_allocator();
}
