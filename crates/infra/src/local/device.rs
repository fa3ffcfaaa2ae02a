//! Block devices by their numbers, as control groups and mount tables name them.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

/// Where the kernel shows block devices by number.
const BY_NUMBER: &str = "/sys/dev/block";

/// A block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    major: u64,
    minor: u64,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Device {
    /// The device with this number.
    pub(super) const fn of(number: u64) -> Self {
        Self {
            major: major(number),
            minor: minor(number),
        }
    }

    /// The disk that a directory's file system lies on; `None` for one that lies on none (tmpfs,
    /// overlayfs) or on several (btrfs).
    pub(super) fn below(dir: &Path) -> Option<Self> {
        let number = fs::metadata(dir).ok()?.dev();
        Self::of(number).whole(Path::new(BY_NUMBER))
    }

    /// The disk that this is or is a part of: the kernel takes limits for whole disks only.
    fn whole(self, by_number: &Path) -> Option<Self> {
        // File systems without a device have numbers of this kind.
        if self.major == 0 {
            return None;
        }
        let own = by_number.join(self.to_string());
        if !own.join("partition").exists() {
            return Some(self);
        }
        let text = fs::read_to_string(own.join("../dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_part_stands_for_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, numbers) = (dir.path().join("devices/sda"), dir.path().join("block"));
        fs::create_dir_all(disk.join("sda1")).unwrap();
        fs::create_dir(&numbers).unwrap();
        fs::write(disk.join("dev"), "8:0\n").unwrap();
        fs::write(disk.join("sda1/partition"), "1\n").unwrap();
        symlink("../devices/sda", numbers.join("8:0")).unwrap();
        symlink("../devices/sda/sda1", numbers.join("8:1")).unwrap();
        let whole = |major, minor| Device { major, minor }.whole(&numbers);
        let sda = Device { major: 8, minor: 0 };
        assert_eq!(whole(8, 1), Some(sda));
        assert_eq!(whole(8, 0), Some(sda));
        assert_eq!(whole(0, 34), None, "a file system without a device");
        let unknown = Device { major: 7, minor: 3 };
        assert_eq!(whole(7, 3), Some(unknown));
        assert_eq!(unknown.to_string(), "7:3");
    }

    #[test]
    fn a_file_system_of_the_kernel_s_own_is_on_no_disk() {
        assert_eq!(Device::below(Path::new("/proc")), None);
    }
}
