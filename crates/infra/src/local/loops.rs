//! Volume files as mounted file systems: loop devices that detach themselves at their last use.
//!
//! A file in use is locked, and the loop device keeps that very lock: so one file is never mounted
//! twice, whoever tries, and "is it in use" is one non-blocking attempt at the lock. Where there
//! are no loop devices a volume is a directory, bound instead of mounted; the sandbox's first
//! process keeps its lock. A tool that works on a file has the lock too, and keeps it to its end.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::clock::wait_until;
use super::device::Device;
use super::failure::{conflict, errno, io, rejected, transient};
use super::owners::{self, Owners};
use super::{limits, process, sys};
use crate::error::Result;

const WHAT: &str = "mount volume";
/// How many times another process may snatch the free loop device from us.
const SNATCHED_MAX: u32 = 64;
/// How long a question whether a file is in use may keep us from using it.
const ASKING_LIMIT: Duration = Duration::from_secs(15);

/// Whether this host lets loop devices be used: a container may have some of their files only, or
/// all of them and not the right to give one a file.
pub(super) fn are_there() -> bool {
    let free = || {
        let control = File::open("/dev/loop-control").ok()?;
        let number = sys::free_loop(&control).ok()?;
        let path = format!("/dev/loop{number}");
        OpenOptions::new().read(true).write(true).open(path).ok()
    };
    free().is_some_and(|device| !is_refused(&device))
}

/// Whether the kernel refuses a file to a free device, tried with one in memory, which is taken
/// away when the device is closed. Any other failure than a refusal is somebody else's device.
fn is_refused(device: &File) -> bool {
    let backing = memfd_create(c"coffer-loop", MFdFlags::MFD_CLOEXEC).map(File::from);
    let Ok(backing) = backing else { return false };
    if backing.set_len(1 << 20).is_err() {
        return false;
    }
    let tried = sys::configure_loop(device, &backing);
    matches!(tried, Err(Errno::EPERM | Errno::EACCES))
}

/// Makes a file of this size with an empty XFS in it.
pub(super) fn format(file: &Path, bytes: u64, options: &[&str]) -> Result<()> {
    let what = "format volume";
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(file);
    made.map_err(io(what, file.display()))?;
    let held = lock_patiently(file)?;
    let emptied = held.set_len(0).and_then(|()| held.set_len(bytes));
    emptied.map_err(io(what, file.display()))?;
    let path = text(file)?;
    let sector = format!("size={}", sys::SECTOR_BYTES);
    let mut args = vec!["-q", "-f", "-s", &sector, "-m", "reflink=1"];
    args.extend(options);
    args.push(path);
    process::run_holding(what, "mkfs.xfs", &args, held)
}

/// Gives a file system a uuid of its own; `false` where it is in use. A tool that its Coffer left
/// behind holds the file: one that was mounted while it is written to would be found damaged.
pub(super) fn renew_uuid(file: &Path) -> Result<bool> {
    let Some(held) = lock(file)? else {
        return Ok(false);
    };
    let args = ["-f", "-U", "generate", text(file)?];
    process::run_holding("renew uuid", "xfs_admin", &args, held).map(|()| true)
}

/// Mounts a volume's file in this process's mount namespace; unmounting detaches the device. The
/// file system grows to the file's size if it is smaller. A directory is bound; what is returned
/// then holds its lock, and is to be kept open as long as the sandbox lives. Its files are shown as
/// the owners', if any are named, whoever has them on the volume.
pub(super) fn mount_volume(file: &Path, at: &Path, owners: Option<Owners>) -> Result<Option<File>> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if !file.is_dir() {
        return mount_file(file, at, flags, Some("nouuid,discard"), owners).map(|()| None);
    }
    let bind = |source: Option<&Path>, flags| {
        mount(
            source,
            at,
            None::<&str>,
            flags | MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(errno(WHAT, file.display()))
    };
    bind(Some(file), MsFlags::empty())?;
    bind(None, flags | MsFlags::MS_REMOUNT)?;
    owners.map_or(Ok(()), |owners| owners::show_as(at, owners))?;
    // Opened where it is bound: from the volume's own place the way up would lead to the host.
    lock_patiently(at).map(Some)
}

/// Mounts the file that holds a whole pool of volumes, and keeps the file's blocks: what volumes
/// let go is for the next volume. (Debian's `fstrim.timer` trims what /etc/fstab lists.)
pub(super) fn mount_pool(file: &Path, at: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_file(file, at, flags, Some("nouuid"), None)
}

fn mount_file(
    file: &Path,
    at: &Path,
    flags: MsFlags,
    options: Option<&str>,
    owners: Option<Owners>,
) -> Result<()> {
    let backing = lock_patiently(file)?;
    let (device, path) = attach(&backing)?;
    mount(Some(path.as_str()), at, Some("xfs"), flags, options).map_err(|e| {
        rejected(
            WHAT,
            format!("{}: {}: see the kernel's log", file.display(), e.desc()),
        )
    })?;
    owners.map_or(Ok(()), |owners| owners::show_as(at, owners))?;
    // The file may have grown since the device was made. From here on whoever grows it finds the
    // mount; the mount holds the device, and the device the file with its lock.
    sys::refresh_loop_size(&device).map_err(errno(WHAT, path))?;
    let bytes = backing.metadata().map_err(io(WHAT, file.display()))?.len();
    let dir = File::open(at).map_err(io(WHAT, at.display()))?;
    sys::grow_xfs(&dir, bytes).map_err(errno(WHAT, at.display()))
}

/// A mounted volume, as seen from outside of the sandbox that has it.
#[derive(Debug)]
pub(super) struct Mounted {
    dir: File,
    device: File,
}

impl Mounted {
    /// The volume of this file if it is what is mounted at `at`, which may name anything else: a
    /// sandbox that is still being set up shows the host's directories.
    pub(super) fn find(file: &Path, at: &Path) -> Result<Option<Self>> {
        let Some(device) = device_of(file)? else {
            return Ok(None);
        };
        let Ok(dir) = File::open(at) else {
            return Ok(None);
        };
        let (Ok(seen), Ok(known)) = (dir.metadata(), device.metadata()) else {
            return Ok(None);
        };
        Ok((seen.dev() == known.rdev()).then_some(Self { dir, device }))
    }

    /// Makes the device and the file system as large as the file has become.
    pub(super) fn grow(&self, bytes: u64) -> Result<()> {
        let what = "grow volume";
        sys::refresh_loop_size(&self.device).map_err(errno(what, "loop device"))?;
        sys::grow_xfs(&self.dir, bytes).map_err(errno(what, "file system"))
    }

    /// Holds writes back and makes what is on disk consistent.
    pub(super) fn freeze(&self) -> Result<()> {
        sys::freeze(&self.dir).map_err(errno("hold writes back", "file system"))
    }

    /// Lets writes go on, if they were held back.
    pub(super) fn thaw(&self) -> Result<()> {
        sys::thaw(&self.dir).map_err(errno("let writes go on", "file system"))
    }
}

/// The loop device that has a volume's file; `None` while none has.
pub(super) fn number_of(file: &Path) -> Result<Option<Device>> {
    let device = device_of(file)?;
    device
        .map(|device| number(&device, "find loop device", file))
        .transpose()
}

fn number(device: &File, what: &'static str, file: &Path) -> Result<Device> {
    let facts = device.metadata().map_err(io(what, file.display()))?;
    Ok(Device::of(facts.rdev()))
}

/// Whether a volume's file is attached or being attached.
pub(super) fn is_in_use(file: &Path) -> Result<bool> {
    if !file.exists() {
        return Ok(false);
    }
    Ok(lock(file)?.is_none())
}

/// Waits until the kernel has let a volume's file go; true when it has.
pub(super) fn wait_released(file: &Path) -> Result<bool> {
    let mut failure = None;
    let is_over = wait_until(limits::RELEASE, || match is_in_use(file) {
        Ok(is_in_use) => !is_in_use,
        Err(e) => {
            failure = Some(e);
            true
        }
    });
    failure.map_or(Ok(is_over), Err)
}

/// Takes a file's loop device away, and what is mounted from it on the host: for what somebody left
/// behind. A sandbox's own is let go by the kernel.
pub(super) fn release(file: &Path) -> Result<()> {
    let what = "release volume";
    if !file.exists() {
        return Ok(());
    }
    let Some(device) = device_of(file)? else {
        return Ok(());
    };
    let number = number(&device, what, file)?.to_string();
    unmount_where(|fields| fields.get(2) == Some(&number.as_str()))?;
    match sys::detach_loop(&device) {
        Ok(()) | Err(Errno::ENXIO) => Ok(()),
        Err(e) => Err(errno(what, file.display())(e)),
    }
}

/// Unmounts what is mounted on the host below a directory.
pub(super) fn unmount_below(dir: &Path) -> Result<()> {
    unmount_where(|fields| {
        fields
            .get(4)
            .is_some_and(|at| Path::new(at).starts_with(dir))
    })
}

/// Unmounts, the newest first, what this mount namespace has; asked of the fields of
/// `/proc/self/mountinfo`.
fn unmount_where(is_wanted: impl Fn(&[&str]) -> bool) -> Result<()> {
    let what = "unmount";
    let list = "/proc/self/mountinfo";
    let text = fs::read_to_string(list).map_err(io(what, list))?;
    for line in text.lines().rev() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let Some(at) = fields.get(4).filter(|_| is_wanted(&fields)) {
            umount2(*at, MntFlags::MNT_DETACH).map_err(errno(what, at))?;
        }
    }
    Ok(())
}

/// The loop device that has a file. Found by inode: its path is told as the sandbox saw it.
fn device_of(file: &Path) -> Result<Option<File>> {
    let what = "find loop device";
    let facts = fs::metadata(file).map_err(io(what, file.display()))?;
    let entries = fs::read_dir("/sys/block").map_err(io(what, "/sys/block"))?;
    let found = entries
        .flatten()
        .filter(|entry| entry.path().join("loop").is_dir())
        .filter_map(|entry| File::open(Path::new("/dev").join(entry.file_name())).ok())
        .find(|device| sys::loop_backing(device) == Ok((facts.dev(), facts.ino())));
    Ok(found)
}

/// Takes the lock of a file that is not in use; somebody may just be asking whether it is.
fn lock_patiently(file: &Path) -> Result<File> {
    let mut answer = Ok(None);
    wait_until(ASKING_LIMIT, || {
        answer = lock(file);
        !matches!(answer, Ok(None))
    });
    answer?.ok_or_else(|| conflict(WHAT, format!("{} is mounted already", file.display())))
}

/// Locks a file until it is closed everywhere; `None` if somebody else has.
fn lock(file: &Path) -> Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .write(!file.is_dir())
        .open(file)
        .map_err(io(WHAT, file.display()))?;
    Ok(opened.try_lock().is_ok().then_some(opened))
}

fn attach(backing: &File) -> Result<(File, String)> {
    let control = "/dev/loop-control";
    let opened = File::open(control).map_err(io(WHAT, control))?;
    for _ in 0..SNATCHED_MAX {
        let number = sys::free_loop(&opened).map_err(errno(WHAT, control))?;
        let path = format!("/dev/loop{number}");
        let device = OpenOptions::new().read(true).write(true).open(&path);
        let device = device.map_err(io(WHAT, &path))?;
        match sys::configure_loop(&device, backing) {
            Ok(()) => return Ok((device, path)),
            Err(Errno::EBUSY) => {}
            Err(e) => return Err(errno(WHAT, path)(e)),
        }
    }
    Err(transient(
        WHAT,
        "other processes took every free loop device",
    ))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| rejected("name a file", "its path is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_use_as_long_as_a_tool_works_on_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held = lock(file.path()).unwrap().expect("nobody has it");
        let working = std::thread::spawn(|| process::run_holding("wait", "sleep", &["1"], held));
        // Not this process has it, but the tool.
        let of_tool = || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let mut inputs = all.filter_map(|one| fs::read_link(one.path().join("fd/0")).ok());
            inputs.any(|input| input == file.path())
        };
        assert!(wait_until(ASKING_LIMIT, of_tool), "it has not begun");
        assert!(is_in_use(file.path()).unwrap());
        working.join().unwrap().unwrap();
        assert!(!is_in_use(file.path()).unwrap());
    }
}
