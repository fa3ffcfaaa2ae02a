//! The system calls that have no safe wrapper: loop devices, reflinks, freezing, XFS growth, mounts
//! that map owners, capabilities, the allocator's settings, and the fork of the sandbox launcher.
//!
//! The only file of this crate with `unsafe` in it. It owns no state and decides nothing.
#![expect(unsafe_code, reason = "raw system calls, each with its argument")]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{ForkResult, fork};

const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const FICLONE: libc::c_ulong = 0x4004_9409;
const FIFREEZE: libc::c_ulong = 0xC004_5877;
const FITHAW: libc::c_ulong = 0xC004_5878;
const XFS_IOC_FSGEOMETRY_V1: libc::c_ulong = 0x8070_5864;
const XFS_IOC_FSGROWFSDATA: libc::c_ulong = 0x4010_586E;

const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Sector size of every loop device: the kernel asks for it under reflinked files.
pub(super) const SECTOR_BYTES: u32 = 4096;

/// Sets how glibc's allocator keeps memory; `false` when it refuses.
pub(super) fn set_allocator(parameter: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: mallopt takes two integers and changes the allocator's own settings only.
    unsafe { libc::mallopt(parameter, value) == 1 }
}

/// Gives what glibc's allocator keeps free back to the system; blocks its users meanwhile.
pub(super) fn trim_allocator() {
    // SAFETY: malloc_trim changes only what is free.
    unsafe { libc::malloc_trim(0) };
}

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

#[repr(C)]
struct XfsGeometry {
    block_size: u32,
    unused: [u32; 6],
    inode_max_percent: u32,
    data_blocks: u64,
    rest: [u64; 8],
}

#[repr(C)]
struct XfsGrow {
    new_blocks: u64,
    inode_max_percent: u32,
    padding: u32,
}

fn checked(answer: libc::c_int) -> Result<libc::c_int, Errno> {
    Errno::result(answer)
}

/// Number of a loop device that nobody uses; another process may take it first.
pub(super) fn free_loop(control: &File) -> Result<u32, Errno> {
    // SAFETY: the call takes no argument and the descriptor is open.
    let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    Ok(number.unsigned_abs())
}

/// Binds a file to a loop device: direct I/O, 4096-byte sectors, detached at its last use.
/// The device keeps this very open file, and with it a lock that the file holds.
pub(super) fn configure_loop(device: &File, backing: &File) -> Result<(), Errno> {
    // SAFETY: every field is a plain integer, for which zero is valid.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = backing.as_raw_fd().unsigned_abs();
    config.block_size = SECTOR_BYTES;
    config.info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    // SAFETY: the layout is the kernel's `struct loop_config`; it is read during the call only.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) })?;
    Ok(())
}

/// Device and inode of the file behind a loop device; `ENXIO` if it has none.
pub(super) fn loop_backing(device: &File) -> Result<(u64, u64), Errno> {
    // SAFETY: every field is a plain integer, for which zero is valid.
    let mut info: LoopInfo = unsafe { std::mem::zeroed() };
    // SAFETY: the layout is the kernel's `struct loop_info64`, which it fills.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) })?;
    Ok((info.device, info.inode))
}

/// Tells a loop device that its file has grown.
pub(super) fn refresh_loop_size(device: &File) -> Result<(), Errno> {
    // SAFETY: the call takes no argument and the descriptor is open.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY, 0) })?;
    Ok(())
}

/// Takes its file from a loop device, at its last use if it is in use.
pub(super) fn detach_loop(device: &File) -> Result<(), Errno> {
    // SAFETY: the call takes no argument and the descriptor is open.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0) })?;
    Ok(())
}

/// Makes `target` share all blocks of `source`.
pub(super) fn reflink(source: &File, target: &File) -> Result<(), Errno> {
    // SAFETY: the argument is an open descriptor's number.
    checked(unsafe { libc::ioctl(target.as_raw_fd(), FICLONE, source.as_raw_fd()) })?;
    Ok(())
}

/// Stops writes to a mounted file system and makes it consistent on disk.
pub(super) fn freeze(directory: &File) -> Result<(), Errno> {
    // SAFETY: the kernel ignores the argument.
    checked(unsafe { libc::ioctl(directory.as_raw_fd(), FIFREEZE, 0) })?;
    Ok(())
}

/// Lets writes go on; a file system that is not frozen is left as it is.
pub(super) fn thaw(directory: &File) -> Result<(), Errno> {
    // SAFETY: the kernel ignores the argument.
    match checked(unsafe { libc::ioctl(directory.as_raw_fd(), FITHAW, 0) }) {
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Grows a mounted XFS to `bytes`; smaller sizes change nothing.
pub(super) fn grow_xfs(directory: &File, bytes: u64) -> Result<(), Errno> {
    // SAFETY: every field is a plain integer, for which zero is valid.
    let mut now: XfsGeometry = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer has the size that the request's number carries (112 bytes).
    checked(unsafe { libc::ioctl(directory.as_raw_fd(), XFS_IOC_FSGEOMETRY_V1, &raw mut now) })?;
    let new_blocks = bytes / u64::from(now.block_size.max(1));
    if new_blocks <= now.data_blocks {
        return Ok(());
    }
    let grow = XfsGrow {
        new_blocks,
        inode_max_percent: now.inode_max_percent,
        padding: 0,
    };
    // SAFETY: the layout is the kernel's `struct xfs_growfs_data`; it is read only.
    checked(unsafe { libc::ioctl(directory.as_raw_fd(), XFS_IOC_FSGROWFSDATA, &raw const grow) })?;
    Ok(())
}

/// Which side of a fork this is.
#[derive(Debug)]
pub(super) enum Side {
    /// The caller, with the child's pid.
    Parent(nix::unistd::Pid),
    /// The new process.
    Child,
}

/// Forks the calling process, which must have one thread only.
pub(super) fn fork_single_threaded() -> Result<Side, Errno> {
    // SAFETY: the launcher has not started a thread, so the child's heap and locks are whole.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Ends this process, a copy of one whose destructors and exit handlers must not run twice.
pub(super) fn end_at_once() -> ! {
    // SAFETY: the call takes a number and does not return.
    unsafe { libc::_exit(0) }
}

/// A copy of the mount at a path, which is nowhere.
pub(super) fn clone_mount(at: &Path) -> Result<OwnedFd, Errno> {
    let path = CString::new(at.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs();
    // SAFETY: the path is a string with its end, and is read only.
    let answer =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let number = Errno::result(answer)?;
    let number = RawFd::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has a mount that is nowhere show its files' owners as the user namespace maps them.
pub(super) fn map_owners(mount: &OwnedFd, namespace: &File) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: the path is empty, and the structure is the kernel's and of the size that is told.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(answer).map(drop)
}

/// Puts a mount that is nowhere in its place.
pub(super) fn place_mount(mount: &OwnedFd, at: &Path) -> Result<(), Errno> {
    let path = CString::new(at.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: both paths are strings with their ends, and are read only.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(answer).map(drop)
}

/// Takes every capability out of the bounding set that is not in `kept`, and empties the
/// inheritable and ambient sets, so that no program started later can have more.
pub(super) fn bound_capabilities(kept: &[u8]) -> Result<(), Errno> {
    for capability in 0..64_u8 {
        if kept.contains(&capability) {
            continue;
        }
        // SAFETY: the call takes a number.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability)) };
        match checked(answer) {
            Ok(_) => {}
            // Past the last capability that this kernel has.
            Err(Errno::EINVAL) => break,
            Err(e) => return Err(e),
        }
    }
    // SAFETY: the call takes numbers.
    checked(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    })?;
    set_capabilities(kept)
}

fn set_capabilities(kept: &[u8]) -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let bits = kept
        .iter()
        .filter(|c| **c < 32)
        .fold(0_u32, |bits, c| bits | (1 << c));
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let low = Data {
        effective: bits,
        permitted: bits,
        inheritable: 0,
    };
    let data = [
        low,
        Data {
            effective: 0,
            permitted: 0,
            inheritable: 0,
        },
    ];
    // SAFETY: both point to structures of the kernel's layout for version 3, which are read.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(answer).map(drop)
}

/// Marks every descriptor from `first` on to be closed at the next exec.
pub(super) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers; nothing is closed before the exec.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Errno::result(answer).map(drop)
}

/// Makes standard input, output or error lead to `target`.
pub(super) fn redirect(target: BorrowedFd<'_>, standard: RawFd) -> Result<(), Errno> {
    // SAFETY: both are open descriptors; the standard one is not owned by a Rust object.
    checked(unsafe { libc::dup2(target.as_raw_fd(), standard) }).map(drop)
}

/// Highest version of landlock that the kernel speaks; `None` if it has none.
pub(super) fn landlock_version() -> Option<u32> {
    const VERSION_FLAG: libc::c_ulong = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no memory.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0_usize,
            VERSION_FLAG,
        )
    };
    u32::try_from(answer).ok().filter(|version| *version > 0)
}
