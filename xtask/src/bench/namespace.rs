//! A network namespace of the benchmark's own: where a client is that has nothing but its address,
//! or a PostgreSQL that runs by hand.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};

use super::place;
use crate::process::Program;

/// Clients that were made so far: each has a link and a network of its own.
static CLIENTS: AtomicU8 = AtomicU8::new(0);

/// A namespace; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A namespace with nothing but its loopback.
    pub fn alone(what: &str) -> Result<Self> {
        let name = place::name(what);
        Program::new("ip", &["netns", "add", &name]).output()?;
        let made = Self { name };
        ip(&["-n", &made.name, "link", "set", "lo", "up"])?;
        Ok(made)
    }

    /// A namespace whose only way out is a link to this host.
    pub fn client() -> Result<Self> {
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let made = Self::alone(&format!("client-{number}"))?;
        let link = format!("cb{}-{number}", std::process::id());
        // From the range that is set aside for benchmarks.
        let (host, client) = (
            format!("198.18.{number}.1"),
            format!("198.18.{number}.2/30"),
        );
        let inside = made.name.as_str();
        let veth = ["type", "veth", "peer", "name", "eth0", "netns", inside];
        ip(&[&["link", "add", &link], &veth[..]].concat())?;
        ip(&["addr", "add", &format!("{host}/30"), "dev", &link])?;
        ip(&["link", "set", &link, "up"])?;
        ip(&["-n", inside, "addr", "add", &client, "dev", "eth0"])?;
        ip(&["-n", inside, "link", "set", "eth0", "up"])?;
        ip(&["-n", inside, "route", "add", "default", "via", &host])?;
        forward(&link)?;
        Ok(made)
    }

    /// What `ip netns` made of it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A program that runs in it.
    pub fn program(&self, words: &[&str]) -> Program {
        inside(&self.path(), words)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its links go with it.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// A program that runs in the namespace at this path.
pub fn inside(namespace: &std::path::Path, words: &[&str]) -> Program {
    let net = format!("--net={}", namespace.display());
    Program::new("nsenter", &[&[net.as_str()], words].concat())
}

/// Lets the host pass on what comes from the published links of the Coffer with this tag: what an
/// operator whose clients are elsewhere switches on for the whole host.
pub fn forward_published(tag: &str) -> Result<()> {
    let settings = fs::read_dir("/proc/sys/net/ipv4/conf").context("list links")?;
    for entry in settings.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("c{tag}p")) {
            forward(&name)?;
        }
    }
    Ok(())
}

fn forward(link: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
    fs::write(&path, "1").with_context(|| format!("write {path}"))
}

fn ip(words: &[&str]) -> Result<()> {
    Program::new("ip", words).output().map(drop)
}
