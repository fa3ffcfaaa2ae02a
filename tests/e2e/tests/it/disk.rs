//! Disks that fill up: the instance says what to do, nothing stays behind, and with space again it
//! goes on.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::run::Program;
use tempfile::TempDir;

/// A small file system of its own.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new(mib: u32) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("coffer-disk-")
            .tempdir_in("/var/tmp")?;
        let image = dir.path().join("image").display().to_string();
        let at = dir.path().join("at");
        std::fs::create_dir(&at)?;
        let run = |program: &str, words: &[&str]| Program::new(program, words).run()?.ok();
        run("truncate", &["-s", &format!("{mib}M"), &image])?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &at.display().to_string()])?;
        Ok(Self { dir })
    }

    fn path(&self) -> PathBuf {
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

    fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path().join("ballast"))?)
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
    let volumes = std::fs::read_dir(disk.path().join("volumes"))?.count();
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
