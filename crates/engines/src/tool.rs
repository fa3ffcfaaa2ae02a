//! What `coffer-guest engine-tool` does under the engine's user, because only that user may touch
//! the files: operations of the engines, and keeping logs within a bound.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::registry;

/// Runs one operation; the answer is one word for the caller. An engine's operations begin with its
/// name.
pub fn run(args: &[String]) -> io::Result<String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["trim-logs", dir, bytes_max, rest @ ..] => {
            let bytes_max = bytes_max.parse().map_err(io::Error::other)?;
            if *rest == ["renaming"] {
                rename_log(Path::new(dir), bytes_max)?;
            }
            Some(trim_logs(Path::new(dir), bytes_max).map(|count| count.to_string()))
        }
        ["clear-locks", files @ ..] => {
            let cleared = files
                .iter()
                .try_for_each(|file| clear_lock(Path::new(file)));
            Some(cleared.map(|()| "done".to_owned()))
        }
        [name, operation @ ..] => {
            registry::engine(name).and_then(|engine| engine.runtime().tool(operation))
        }
        [] => None,
    };
    done.unwrap_or_else(|| {
        let usage = "usage: engine-tool ENGINE OPERATION..., trim-logs DIR BYTES [renaming], or \
                     clear-locks FILE...";
        Err(io::Error::new(io::ErrorKind::InvalidInput, usage))
    })
}

/// Removes a lock file that says nothing; the engine does not run.
pub(crate) fn clear_lock(file: &Path) -> io::Result<()> {
    match fs::symlink_metadata(file) {
        Ok(meta) if meta.is_file() && meta.len() == 0 => fs::remove_file(file),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives the newest file of a directory another name when it is a large part of the bound: its
/// engine begins a new one with its next line, and the old one can be removed some day.
fn rename_log(dir: &Path, bytes_max: u64) -> io::Result<()> {
    let mut newest: Option<(SystemTime, u64, PathBuf)> = None;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = path.symlink_metadata()?;
        if meta.is_file() {
            newest = newest.max(Some((meta.modified()?, meta.len(), path)));
        }
    }
    let Some((modified, size, path)) = newest.filter(|(_, size, _)| *size > bytes_max / 4) else {
        return Ok(());
    };
    let seconds = modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(size, |since| since.as_secs());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{seconds}"));
    fs::rename(&path, name)
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
    fn clears_a_lock_that_says_nothing_and_no_other() {
        let dir = std::env::temp_dir().join(format!("coffer-lock-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (empty, held) = (dir.join("empty"), dir.join("held"));
        fs::write(&empty, "").unwrap();
        fs::write(&held, "20\n").unwrap();
        let files = [&empty, &held, &dir.join("none")].map(|file| file.display().to_string());
        let words = ["clear-locks".to_owned()].into_iter().chain(files);
        run(&words.collect::<Vec<_>>()).unwrap();
        assert!(!empty.exists() && held.exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn renames_a_log_that_only_grows() {
        let dir = std::env::temp_dir().join(format!("coffer-rename-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let log = dir.join("a.log");
        let words = ["trim-logs", dir.to_str().unwrap(), "100", "renaming"].map(str::to_owned);
        fs::write(&log, [b'x'; 25]).unwrap();
        run(&words).unwrap();
        assert!(log.exists(), "it is small");
        fs::write(&log, [b'x'; 126]).unwrap();
        run(&words).unwrap();
        assert!(!log.exists(), "it was renamed, and stays as the newest");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::write(&log, "a line after").unwrap();
        assert_eq!(run(&words).unwrap(), "1");
        assert!(log.exists(), "what the engine writes to stays");
        fs::remove_dir_all(&dir).unwrap();
    }

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
