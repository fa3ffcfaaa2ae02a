//! What `coffer-guest engine-tool` does under the engine's user, because only that user may touch
//! the files: operations of the engines, and keeping logs within a bound.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::postgresql::identity;

/// Runs one operation; the answer is one word for the caller.
pub fn run(args: &[String]) -> io::Result<String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["postgresql", "identity", pgdata, id] => {
            identity::write(Path::new(pgdata), id).map(|found| found.as_str().to_owned())
        }
        ["trim-logs", dir, bytes_max] => {
            let bytes_max = bytes_max.parse().map_err(io::Error::other)?;
            trim_logs(Path::new(dir), bytes_max).map(|count| count.to_string())
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "usage: engine-tool postgresql identity PGDATA UUID, or trim-logs DIR BYTES",
        )),
    }
}

/// Removes the oldest files of a directory until the rest is within the bound; the newest stays,
/// as the engine writes to it. Returns how many were removed.
fn trim_logs(dir: &Path, bytes_max: u64) -> io::Result<usize> {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.path().symlink_metadata()?;
        if meta.is_file() {
            files.push((meta.modified()?, meta.len(), entry.path()));
        }
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
    files.pop();
    let mut removed = 0;
    for (_, size, path) in files {
        if total <= bytes_max {
            break;
        }
        fs::remove_file(path)?;
        total -= size;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_the_oldest_and_keeps_the_newest() {
        let dir = std::env::temp_dir().join(format!("coffer-trim-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, age) in [("a", 30), ("b", 20), ("c", 10)] {
            let file = fs::File::create(dir.join(name)).unwrap();
            file.set_len(100).unwrap();
            let base = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
            file.set_modified(base - std::time::Duration::from_secs(age))
                .unwrap();
        }
        let words = ["trim-logs", dir.to_str().unwrap(), "150"].map(str::to_owned);
        assert_eq!(run(&words).unwrap(), "2");
        assert!(dir.join("c").exists() && !dir.join("a").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
