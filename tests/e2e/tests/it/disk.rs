//! Disks that fill up: the instance says what to do, nothing stays behind, and with space again it
//! goes on.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::run::Program;
use tempfile::TempDir;

/// A small file system of its own.
pub(crate) struct Disk {
    dir: TempDir,
}

impl Disk {
    pub(crate) fn new(mib: u32) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("coffer-disk-")
            .tempdir_in("/var/tmp")?;
        let image = dir.path().join("image").display().to_string();
        let at = dir.path().join("at");
        fs::create_dir(&at)?;
        let run = |program: &str, words: &[&str]| Program::new(program, words).run()?.ok();
        run("truncate", &["-s", &format!("{mib}M"), &image])?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        let disk = Self { dir };
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts it; the first error that the kernel finds makes it read-only.
    fn mount(&self) -> Result<()> {
        let (image, at) = (self.image(), self.path().display().to_string());
        let words = ["-o", "loop,errors=remount-ro", &image, &at];
        Program::new("mount", words).run()?.ok().map(drop)
    }

    fn image(&self) -> String {
        self.dir.path().join("image").display().to_string()
    }

    /// Lets the kernel find an error, upon which it takes no more changes, not even root's.
    pub(crate) fn fail(&self) -> Result<()> {
        let at = self.path().display().to_string();
        let words = ["-n", "-o", "SOURCE", at.as_str()];
        let device = Program::new("findmnt", words).run()?.ok()?;
        let name = device.trim().trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        fs::write(&trigger, "as the test wants").with_context(|| format!("write {trigger}"))
    }

    /// Mends it, as after such an error: what is on it is brought to another disk, and checked
    /// there. Who still has files of the old one open keeps those as they are.
    pub(crate) fn mend(&self) -> Result<()> {
        let at = self.path().display().to_string();
        Program::new("umount", ["-l", &at]).run()?.ok()?;
        let other = self.dir.path().join("other");
        let words = [
            "--sparse=always",
            &self.image(),
            &other.display().to_string(),
        ];
        Program::new("cp", words).run()?.ok()?;
        fs::rename(other, self.image())?;
        let checked = Program::new("e2fsck", ["-f", "-y", &self.image()]).run()?;
        // One says that something was mended.
        ensure!(matches!(checked.code, 0 | 1), "{checked:?}");
        self.mount()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("at")
    }

    /// Takes all space but some.
    fn fill(&self, but_mib: u64) -> Result<()> {
        let at = self.path().display().to_string();
        let free = Program::new("df", ["--output=avail", "-BM", &at])
            .run()?
            .ok()?;
        let free = free
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .trim_end_matches('M');
        let take = free.parse::<u64>()?.saturating_sub(but_mib);
        let ballast = self.path().join("ballast").display().to_string();
        Program::new("fallocate", ["-l", &format!("{take}M"), &ballast])
            .run()?
            .ok()?;
        Ok(())
    }

    /// Takes the last block too.
    fn fill_up(&self) -> Result<()> {
        self.fill(8)?;
        let rest = format!("of={}", self.path().join("rest").display());
        let ended = Program::new("dd", ["if=/dev/zero", &rest, "bs=4096"]).run()?;
        ensure!(ended.err.contains("No space left"), "{ended:?}");
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        for name in ["ballast", "rest"] {
            let path = self.path().join(name);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = self.path().display().to_string();
        if let Err(error) = Program::new("umount", ["-l", &at]).run() {
            eprintln!("unmount: {error:#}");
        }
    }
}

#[test]
fn a_full_pool_is_named_and_goes_on_with_space() -> Result<()> {
    let disk = Disk::new(4_000)?;
    let pool = format!("local.pool_dir={}", disk.path().display());
    let coffer = Coffer::start_with(&["--set", &pool, "--set", "local.volume_mode=fast"])?;
    // The template is made while there is space; each volume copies it.
    let warm = coffer.create("warm")?;
    let before = coffer.traces()?;
    disk.fill(8)?;
    let words = [
        "instance", "create", "db1", "--flavor", "small", "--size", "1", "--wait",
    ];
    let failed = coffer.coffer(&words)?;
    ensure!(failed.code != 0, "{failed:?}");
    let explained = coffer.coffer(&["instance", "explain", "db1"])?.ok()?;
    for word in ["ERROR", "pool", "enlarge"] {
        ensure!(explained.contains(word), "{word}: {explained}");
    }
    ensure!(coffer.traces()? == before, "left: {:#?}", coffer.traces()?);
    let volumes = fs::read_dir(disk.path().join("volumes"))?.count();
    ensure!(volumes == 1, "{volumes} files in the pool");
    warm.await_answer()
        .context("a neighbour serves meanwhile")?;
    disk.empty()?;
    coffer
        .coffer(&["instance", "delete", "db1", "--wait"])?
        .ok()?;
    coffer.create("db2")?;
    Ok(())
}

/// Requests until the write-ahead log, whose file is used again and again, needs new space.
const REQUESTS_MAX: u32 = 2_000;

/// The default of most hosts: mode `cow`, the pool's file and the database on one disk.
#[test]
fn a_full_disk_stops_changes_and_touches_no_tenant() -> Result<()> {
    let disk = Disk::new(7_000)?;
    let words = [
        "--set",
        "local.volume_mode=cow",
        "--set",
        "local.cow_pool_gib=4",
    ];
    let mut coffer = Coffer::start_in(&disk.path(), &words)?;
    coffer.expect_lines(&[
        "the disk of the database is full",
        "store-full",
        "(code: 13)",
    ]);
    let warm = coffer.create("warm")?;
    disk.fill_up()?;
    // Taken while there is some space left in the database's own files, or refused.
    let asked = [
        "--json", "instance", "create", "db1", "--flavor", "small", "--size", "1",
    ];
    let asked = coffer.coffer(&asked)?;
    let mut refusals = (0..REQUESTS_MAX).map(|n| {
        let name = format!("project-{n}");
        coffer.admin(&["project", "create", &name])
    });
    let refused = refusals.find(|answer| answer.as_ref().map_or(true, |a| a.code != 0));
    let refused = refused.context("a full disk refuses nothing")??;
    for word in ["disk of the database is full", "free space"] {
        ensure!(refused.err.contains(word), "{word}: {refused:?}");
    }
    // What the tenants have was reserved: their commits go on, far beyond what is cached.
    warm.psql(
        "CREATE TABLE big AS SELECT repeat(md5(n::text), 30) AS words \
         FROM generate_series(1, 200000) AS n",
    )?
    .ok()?;
    ensure!(warm.psql("SELECT count(*) FROM big")?.ok()?.trim() == "200000");
    disk.empty()?;
    if asked.code == 0 {
        let id = asked.json()?["id"].as_str().context("no id")?.to_owned();
        coffer.await_active(&id)?;
    }
    coffer.create("db2").map(drop)
}
