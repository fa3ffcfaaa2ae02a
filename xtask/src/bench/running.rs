//! The engine of an instance, seen from the host: its process, its network, and what another one
//! has to be given that runs by hand and is to be like it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::client::{DATABASE, PASSWORD, USER};
use super::engine::Engine;
use super::instance::Service;

/// Where an engine by hand has what the instance's has elsewhere.
const MOVED: &[(&str, &str)] = &[
    ("/data/config/", "/run/"),
    ("/data/tls/", "/run/"),
    ("/data/engine/users.acl", "/run/users.acl"),
    ("/data/engine/tmp", "/tmp"),
    ("/run/engine/", "/run/"),
];
/// Where files lie that it gets a copy of.
const COPIED: &[&str] = &["/data/config/", "/data/tls/", "/data/engine/users.acl"];
/// Where logs lie; by hand they go where its script's go.
const LOGS: &str = "/data/log/";

/// The process of an instance's engine.
#[derive(Debug)]
pub struct Running {
    root: PathBuf,
    words: Vec<String>,
    /// Its network namespace.
    pub namespace: PathBuf,
}

/// What an engine by hand is given to be like an instance's.
#[derive(Debug)]
pub struct Likeness {
    /// Files for its `/run`, with their names.
    pub files: Vec<(String, Vec<u8>)>,
    /// The words of its command line.
    pub words: Vec<String>,
    /// Size of its volume; unit: GiB.
    pub volume_gib: u32,
}

impl Running {
    /// That of the only instance of an engine.
    pub fn of(service: &Service, engine: &Engine) -> Result<Self> {
        let mut all = service.processes(engine.process)?.into_iter();
        // Others of the same name are its children, which have no settings.
        let is_setting = |word: &String| word.starts_with("--") || word.starts_with("config_file=");
        let found = all.find_map(|pid| {
            let words = words_of(pid);
            words.iter().any(is_setting).then_some((pid, words))
        });
        let (pid, words) = found.context("find the engine's process")?;
        Ok(Self {
            root: PathBuf::from(format!("/proc/{pid}/root")),
            namespace: PathBuf::from(format!("/proc/{pid}/ns/net")),
            words,
        })
    }

    /// The file that a setting names.
    pub fn file_of(&self, setting: &str) -> Result<Vec<u8>> {
        let mut paths = self.words.iter();
        let path = paths.find_map(|word| word.strip_prefix(setting));
        self.read(path.with_context(|| format!("find {setting}"))?)
    }

    /// Its own words and files, brought to where an engine by hand has them.
    pub fn likeness(&self, engine: &Engine, volume_gib: u32) -> Result<Likeness> {
        let mut files = Vec::new();
        for path in self.words.iter().map(|word| value(word)) {
            if COPIED.iter().any(|dir| path.starts_with(dir)) {
                let name = Path::new(path).file_name().unwrap_or_default();
                let name = name.to_string_lossy().into_owned();
                let content = adapted(&name, self.read(path)?);
                files.push((name, content));
            }
        }
        let words = moved(self.words.get(1..).unwrap_or_default());
        let alone = engine.alone.iter().map(|&word| word.to_owned());
        Ok(Likeness {
            files,
            words: words.into_iter().chain(alone).collect(),
            volume_gib,
        })
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::read(&path).with_context(|| format!("read {}", path.display()))
    }
}

fn words_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    // Each word is ended; an empty one is a word.
    let line = line.strip_suffix('\0').unwrap_or(&line);
    line.split('\0').map(str::to_owned).collect()
}

/// What a word sets, or all of it.
fn value(word: &str) -> &str {
    word.split_once('=').map_or(word, |(_, value)| value)
}

/// A command line for an engine by hand.
fn moved(words: &[String]) -> Vec<String> {
    let is_kept = |word: &&String| !(word.starts_with("--") && word.contains(LOGS));
    let to = |word: &String| {
        if word.starts_with(LOGS) {
            return String::new();
        }
        MOVED
            .iter()
            .fold(word.clone(), |word, (from, to)| word.replace(from, to))
    };
    words.iter().filter(is_kept).map(to).collect()
}

/// A file without what only the instance has, and with the user that it has and the template has
/// not.
fn adapted(name: &str, content: Vec<u8>) -> Vec<u8> {
    match name {
        "my.cnf" => {
            let text = String::from_utf8_lossy(&content);
            let lines = text.lines().filter(|line| !line.starts_with("!include"));
            lines
                .map(|line| format!("{line}\n"))
                .collect::<String>()
                .into_bytes()
        }
        "init.sql" => format!(
            "CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
             CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL PRIVILEGES ON {DATABASE}.* TO {USER}@'%';\n"
        )
        .into_bytes(),
        _ => content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::engine::{MYSQL, REDIS};

    fn likeness(engine: &Engine, words: &[&str], files: &[(&str, &str)]) -> Likeness {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let running = Running {
            root: dir.path().to_owned(),
            words: words.iter().map(|&word| word.to_owned()).collect(),
            namespace: PathBuf::new(),
        };
        running.likeness(engine, 4).unwrap()
    }

    #[test]
    fn a_server_of_mysqls_family_by_hand_has_the_instances_settings() {
        let made = likeness(
            &MYSQL,
            &[
                "/usr/sbin/mysqld",
                "--defaults-file=/data/config/my.cnf",
                "--datadir=/data/engine/mysql",
                "--tmpdir=/data/engine/tmp",
                "--socket=/run/engine/mysqld.sock",
                "--log-error=/data/log/error.log",
                "--ssl-key=/data/tls/engine.key",
            ],
            &[
                ("data/config/my.cnf", "[mysqld]\na = 1\n!include /data/x\n"),
                ("data/tls/engine.key", "key"),
            ],
        );
        assert_eq!(
            made.words,
            [
                "--defaults-file=/run/my.cnf",
                "--datadir=/data/engine/mysql",
                "--tmpdir=/tmp",
                "--socket=/run/mysqld.sock",
                "--ssl-key=/run/engine.key",
                "--bind-address=127.0.0.1",
                "--server-id=1",
            ]
        );
        assert_eq!(made.files[0].1, b"[mysqld]\na = 1\n");
        assert_eq!(made.files[1], ("engine.key".to_owned(), b"key".to_vec()));
    }

    #[test]
    fn a_server_of_redis_kind_by_hand_has_the_instances_users() {
        let made = likeness(
            &REDIS,
            &[
                "/usr/bin/redis-server",
                "/data/config/redis.conf",
                "--save",
                "",
                "--aclfile",
                "/data/engine/users.acl",
                "--logfile",
                "/data/log/redis.log",
            ],
            &[
                ("data/config/redis.conf", "maxmemory 1mb\n"),
                ("data/engine/users.acl", "user joe on\n"),
            ],
        );
        let words = made.words.join(" ");
        assert_eq!(
            words,
            "/run/redis.conf --save  --aclfile /run/users.acl --logfile  --bind 127.0.0.1"
        );
        assert_eq!(made.files[1].0, "users.acl");
    }
}
