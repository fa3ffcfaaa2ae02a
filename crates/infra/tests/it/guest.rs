//! A guest for tests: listens where the boot data say, and does what a line tells it.
//!
//! As the first process of a sandbox it is everything at once: the agent (port 7070) and the
//! engine (port 5432). It is root there with the capabilities that a real guest's init has, which
//! makes it the strongest attacker that a sandbox can hold.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde_json::Value;

/// What [`direct`] reads and writes at once; unit: bytes.
pub(crate) const BLOCK: usize = 16 * 1024;
/// What `bootstrap` leaves in a template.
pub(crate) const SEED: &str = "made by bootstrap";

/// Makes a template's content: a little data with an owner other than root.
pub(crate) fn bootstrap() -> ExitCode {
    let boot = boot();
    assert_eq!(
        boot["bind"],
        serde_json::json!([]),
        "a template listens nowhere"
    );
    assert_eq!(boot["engine"], "test-engine");
    if boot["engine_version"] == "broken" {
        println!("this engine cannot initialise");
        return ExitCode::FAILURE;
    }
    fs::write("/data/seed", SEED).expect("the volume is writable");
    let uid = boot["engine_uid"]
        .as_u64()
        .and_then(|u| u32::try_from(u).ok());
    std::os::unix::fs::chown("/data/seed", uid, uid).expect("it may give files away");
    fs::create_dir("/data/engine").expect("the volume is writable");
    std::os::unix::fs::chown("/data/engine", uid, uid).expect("it may give files away");
    give("engine/first").expect("it may give files away");
    ExitCode::SUCCESS
}

/// Serves until SIGTERM.
pub(crate) fn init() -> ExitCode {
    let boot = boot();
    println!("guest {} starts", boot["server_id"]);
    for address in boot["bind"].as_array().into_iter().flatten() {
        listen(address.as_str().expect("bind holds text"));
    }
    listen("0.0.0.0:5432");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime starts");
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate()).expect("signals can be waited for");
        loop {
            term.recv().await;
            if boot["stubborn"] != true {
                fs::write("/data/stopped", "cleanly").expect("the volume is writable");
                return;
            }
        }
    });
    ExitCode::SUCCESS
}

fn boot() -> Value {
    let text = fs::read("/run/coffer/boot.json").expect("boot data are there");
    serde_json::from_slice(&text).expect("boot data are JSON")
}

fn listen(address: &str) {
    let listener = TcpListener::bind(address).expect("the address is ours");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
}

fn serve(stream: TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let Ok(mut out) = stream.try_clone() else {
        return;
    };
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let answer = answer(&line, peer).replace('\n', " ");
        if writeln!(out, "{answer}").is_err() {
            return;
        }
    }
}

fn answer(line: &str, peer: SocketAddr) -> String {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    match words.as_slice() {
        ["who"] => format!(
            "{} {}",
            boot()["server_id"].as_str().unwrap_or(""),
            peer.ip()
        ),
        ["boot", key] => boot()[*key].to_string(),
        ["write", name, text] => done(
            fs::write(format!("/data/{name}"), text)
                .and_then(|()| File::open(format!("/data/{name}"))?.sync_all()),
        ),
        ["give", name] => done(give(name)),
        ["owner", name] => owner(name).unwrap_or_else(|e| format!("error {e}")),
        ["read", name] => fs::read_to_string(format!("/data/{name}")).unwrap_or_default(),
        ["show", path] => fs::read_to_string(path).unwrap_or_else(|e| format!("error {e}")),
        ["list", path] => list(path),
        ["fill", name, mib] => fill(name, mib.parse().expect("a number")).to_string(),
        ["size"] => size().to_string(),
        ["dial", address] => dial(address),
        ["send", address] => done(send(address)),
        ["direct", how, count] => direct(how, count.parse().expect("a number")),
        ["hold", mib] => hold(mib.parse().expect("a number")),
        ["spin", ms] => spin(ms.parse().expect("a number")).to_string(),
        ["attack"] => attack(),
        other => format!("unknown {other:?}"),
    }
}

/// Makes a file that belongs to the engine.
fn give(name: &str) -> std::io::Result<()> {
    let path = format!("/data/{name}");
    let uid = boot()["engine_uid"]
        .as_u64()
        .and_then(|uid| u32::try_from(uid).ok());
    fs::write(&path, "the engine's")?;
    std::os::unix::fs::chown(&path, uid, uid)
}

/// Whose a file is: user and group.
fn owner(name: &str) -> std::io::Result<String> {
    let meta = fs::symlink_metadata(format!("/data/{name}"))?;
    Ok(format!("{}:{}", meta.uid(), meta.gid()))
}

fn done(result: std::io::Result<()>) -> String {
    result.map_or_else(|e| format!("error {e}"), |()| "ok".to_owned())
}

fn list(path: &str) -> String {
    let Ok(entries) = fs::read_dir(path) else {
        return "error".to_owned();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names.join(" ")
}

/// Writes up to so many MiB; returns how many fitted.
fn fill(name: &str, mib: u64) -> u64 {
    let Ok(mut file) = File::create(format!("/data/{name}")) else {
        return 0;
    };
    let block = vec![b'x'; 1 << 20];
    (0..mib)
        .take_while(|_| {
            file.write_all(&block)
                .and_then(|()| file.sync_data())
                .is_ok()
        })
        .count() as u64
}

/// Reads or writes the head of a file so many times 16 KiB, past the cache; returns how long that
/// took, in milliseconds.
fn direct(how: &str, count: u64) -> String {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_DIRECT)
        .open("/data/direct");
    let done = file.and_then(|file| {
        // Direct I/O wants memory that lies as the device's sectors do.
        let mut memory = vec![0_u8; 2 * BLOCK];
        let first = memory.as_ptr().align_offset(BLOCK);
        let block = &mut memory[first..first + BLOCK];
        let begun = monotonic();
        for n in 0..count {
            let at = n * BLOCK as u64;
            match how {
                "write" => file.write_all_at(block, at)?,
                _ => file.read_exact_at(block, at)?,
            }
        }
        Ok(monotonic() - begun)
    });
    done.map_or_else(
        |e| format!("error {e}"),
        |took| took.as_millis().to_string(),
    )
}

fn monotonic() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    Duration::from(now.expect("it has a clock"))
}

fn size() -> u64 {
    let facts = nix::sys::statvfs::statvfs("/data").expect("the volume is mounted");
    facts.blocks() * facts.fragment_size()
}

fn dial(address: &str) -> String {
    let Ok(address) = address.parse() else {
        return "error address".to_owned();
    };
    match TcpStream::connect_timeout(&address, Duration::from_millis(700)) {
        Ok(_) => "connected".to_owned(),
        Err(e) => format!("error {e}"),
    }
}

fn send(address: &str) -> std::io::Result<()> {
    UdpSocket::bind("0.0.0.0:0")?
        .send_to(b"x", address)
        .map(drop)
}

/// Takes memory and never gives it back.
fn hold(mib: usize) -> String {
    let mut memory = vec![0_u8; mib << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    let pages = memory
        .iter()
        .step_by(4096)
        .map(|b| usize::from(*b))
        .sum::<usize>();
    std::mem::forget(memory);
    format!("held {pages}")
}

/// Keeps four threads busy for so long; returns the CPU time used, in milliseconds.
fn spin(ms: u64) -> u64 {
    let clock = || {
        let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
        let now = nix::time::clock_gettime(clock).expect("it has a clock");
        Duration::from(now)
    };
    let (cpu, end) = (clock(), monotonic() + Duration::from_millis(ms));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                while monotonic() < end {
                    std::hint::spin_loop()
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("it only spins");
    }
    u64::try_from((clock() - cpu).as_millis()).unwrap_or(u64::MAX)
}

/// Each attempt by name, with what came of it: `refused`, or how far it got.
fn attack() -> String {
    let attempts: Vec<(&str, Result<(), String>)> = vec![
        (
            "vsock",
            open_socket(AddressFamily::Vsock, SockType::Stream, None),
        ),
        (
            "packet",
            open_socket(AddressFamily::Packet, SockType::Raw, None),
        ),
        (
            "raw",
            open_socket(AddressFamily::Inet, SockType::Raw, Some(SockProtocol::Icmp)),
        ),
        (
            "mount",
            no(nix::mount::mount(
                Some("none"),
                "/tmp",
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            )),
        ),
        ("umount", no(nix::mount::umount("/data"))),
        (
            "remount",
            no(nix::mount::mount(
                None::<&str>,
                "/usr",
                None::<&str>,
                nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND,
                None::<&str>,
            )),
        ),
        (
            "user namespace",
            no(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)),
        ),
        (
            "network namespace",
            no(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)),
        ),
        ("chroot", no(nix::unistd::chroot("/tmp"))),
        (
            "device",
            no(nix::sys::stat::mknod(
                "/tmp/vda",
                nix::sys::stat::SFlag::S_IFBLK,
                nix::sys::stat::Mode::S_IRWXU,
                nix::sys::stat::makedev(254, 0),
            )),
        ),
        ("ptrace", no(nix::sys::ptrace::traceme())),
        ("host name", no(nix::unistd::sethostname("taken"))),
        ("reboot", no(nix::sys::reboot::set_cad_enabled(false))),
        ("write root", written("/usr/lib/libc.so.6")),
        ("write etc", written("/etc/passwd")),
        ("write sysctl", written("/proc/sys/kernel/core_pattern")),
        ("write own program", renamed("/usr/lib/coffer/coffer-guest")),
        ("cgroup files", absent("/sys/fs/cgroup")),
        ("host files", absent("/var/lib/dpkg")),
        ("other processes", alone()),
    ];
    let told: Vec<String> = attempts
        .into_iter()
        .map(|(name, r)| format!("{name}={}", r.map_or_else(|e| e, |()| "DONE".to_owned())))
        .collect();
    told.join(";")
}

fn no<T>(result: Result<T, Errno>) -> Result<(), String> {
    match result {
        Err(Errno::EPERM | Errno::EACCES | Errno::EROFS) => Err("refused".to_owned()),
        Err(e) => Err(format!("odd {e}")),
        Ok(_) => Ok(()),
    }
}

fn open_socket(
    family: AddressFamily,
    kind: SockType,
    protocol: Option<SockProtocol>,
) -> Result<(), String> {
    no(socket(family, kind, SockFlag::empty(), protocol))
}

fn written(path: &str) -> Result<(), String> {
    match File::options().write(true).open(path) {
        Err(e) => no::<()>(Err(Errno::from_raw(e.raw_os_error().unwrap_or(0)))),
        Ok(_) => Ok(()),
    }
}

fn renamed(path: &str) -> Result<(), String> {
    match fs::rename(path, format!("{path}-old")) {
        Err(e) => no::<()>(Err(Errno::from_raw(e.raw_os_error().unwrap_or(0)))),
        Ok(()) => Ok(()),
    }
}

fn absent(path: &str) -> Result<(), String> {
    if Path::new(path).exists() {
        Ok(())
    } else {
        Err("refused".to_owned())
    }
}

/// Only this process is in sight.
fn alone() -> Result<(), String> {
    let pids = list("/proc")
        .split(' ')
        .filter(|n| n.parse::<u32>().is_ok())
        .count();
    if pids == 1 {
        Err("refused".to_owned())
    } else {
        Ok(())
    }
}
