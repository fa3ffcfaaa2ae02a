//! Servers: sandboxes started, watched, stopped, fenced and removed.
//!
//! A start makes everything a sandbox needs in one go and in an order in which each part may be
//! there already: records, network, rules, limits, and at last the launcher. So a start after a
//! crash or a reboot is the same call. Whether a server runs is told by its first process, by pid
//! and start time, never by what was written down.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_core::id::ServerId;
use coffer_core::units::{Incarnation, IoLimits, Turn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::{boottime_ms, wait_until};
use super::failure::{conflict, errno, io, is_shortage, outrun, rejected, transient};
use super::host::Host;
use super::launch::LaunchSpec;
use super::names::host_name;
use super::record::{Launched, ServerRecord, boot_id, write_json_for_this_boot};
use super::{cgroup, limits, loops, netns, network, process, publish, relay, sandbox, volume};
use crate::error::{ProviderError, Result};
use crate::provider::{Fence, Limits, Progress, ServerRef, ServerSpec, ServerState};

/// How long one call waits for a guest to end by itself before it says that it is pending.
const STOP_PATIENCE: Duration = Duration::from_millis(250);
/// When to ask again; unit: milliseconds.
const POLL_MS: u64 = 50;
/// LIMIT: size of what a guest prints; the older part is dropped when it is passed.
const CONSOLE_MAX: u64 = 1 << 20;

/// Makes a server, starts it if it does not run, and gives it new limits if they changed.
pub(super) fn ensure(host: &Host, spec: &ServerSpec) -> Result<ServerRef> {
    let key = spec.id.to_string();
    let _lock = host.lock("server", &key)?;
    let known = admit(host, spec)?;
    if let Some(record) = &known
        && launched(host, spec.id).is_some()
        && is_named(host, spec.id)
    {
        adjust(host, record, spec)?;
        return Ok(reference(host, record));
    }
    match &known {
        // What it had under an earlier address or group is found by what was written then.
        Some(known) => clear(host, known)?,
        None => clear_unknown(host, spec.id)?,
    }
    let record = write_down(host, spec, known)?;
    start(host, spec, &record)?;
    Ok(reference(host, &record))
}

/// Stops a server: asks its first process, and kills when the grace is over.
pub(super) fn stop(
    host: &Host,
    id: ServerId,
    (incarnation, turn): (Incarnation, Turn),
    grace_ms: u64,
) -> Result<Progress<()>> {
    let key = id.to_string();
    let _lock = host.lock("server", &key)?;
    let Some(mut record) = host.servers.find(&key)? else {
        return Ok(Progress::Ready(()));
    };
    if record.incarnation > incarnation {
        return Ok(Progress::Ready(()));
    }
    if record.turn > turn {
        return Err(outrun("stop server", &key));
    }
    if record.turn < turn {
        record.turn = turn;
        host.servers.put(&key, &record)?;
    }
    if let Some(running) = launched(host, id) {
        let by_ms = ask(host, &mut record, &running, grace_ms)?;
        let left = Duration::from_millis(by_ms.saturating_sub(boottime_ms()));
        if !wait_until(left.min(STOP_PATIENCE), || !running.is_alive()) && boottime_ms() < by_ms {
            let reason = "the guest stops its engine".to_owned();
            return Ok(Progress::Pending {
                reason,
                poll_after_ms: POLL_MS,
            });
        }
    }
    clear(host, &record)?;
    renew_uuid(host, &record)?;
    if record.stopping.take().is_some() {
        host.servers.put(&key, &record)?;
    }
    Ok(Progress::Ready(()))
}

/// Removes a server of this incarnation or an older one, and remembers that it did.
pub(super) fn delete(host: &Host, id: ServerId, incarnation: Incarnation) -> Result<()> {
    let key = id.to_string();
    let _lock = host.lock("server", &key)?;
    let record = host.servers.find(&key)?;
    if record.as_ref().is_some_and(|r| r.incarnation > incarnation) {
        return Ok(());
    }
    host.servers.bury(&key, incarnation)?;
    match &record {
        Some(record) => clear(host, record)?,
        None => clear_unknown(host, id)?,
    }
    let dir = host.sandbox_dir(id);
    if dir.exists() {
        // Sandboxes mount nothing on the host: what is there would be emptied and stay.
        loops::unmount_below(&dir)?;
        fs::remove_dir_all(&dir).map_err(io("remove server", dir.display()))?;
    }
    host.servers.remove(&key)
}

/// What is seen of a server.
pub(super) fn observe(host: &Host, id: ServerId) -> Result<ServerState> {
    let Some(record) = host.servers.find(&id.to_string())? else {
        return Ok(ServerState::Absent);
    };
    bound_console(&host.sandbox_dir(id).join("console.log"));
    Ok(match launched(host, id) {
        Some(_) => {
            if host.is_without_root {
                relay::watch_or_tell(host, id);
            }
            ServerState::Running(reference(host, &record))
        }
        None => ServerState::Stopped,
    })
}

/// Kills everything in a server and takes its addresses away; confirmed only when nothing is left.
pub(super) fn fence(host: &Host, server: &ServerRef) -> Result<Fence> {
    let key = server.id.to_string();
    let _lock = host.lock("server", &key)?;
    let Some(record) = host.servers.find(&key)? else {
        // Nothing with this id was ever made here, or it was removed: look, do not believe.
        let is_clear = clear_unknown(host, server.id).is_ok();
        return Ok(if is_clear {
            Fence::Fenced
        } else {
            Fence::Unknown
        });
    };
    match clear(host, &record) {
        Ok(()) => Ok(Fence::Fenced),
        Err(error) => {
            tracing::warn!(server = %server.id, %error, "fence not confirmed");
            Ok(Fence::Unknown)
        }
    }
}

/// The first process of a server, if it lives.
pub(super) fn launched(host: &Host, id: ServerId) -> Option<Launched> {
    let path = host.sandbox_dir(id).join("launched.json");
    Launched::living(&path)
}

/// Whether a server's namespace has its name. Without root names end with whoever held them: a
/// server that runs is not reached any more then, and is started anew when it is asked for.
fn is_named(host: &Host, id: ServerId) -> bool {
    !host.is_without_root || netns::is_alive(&host.names.server_path(id))
}

fn admit(host: &Host, spec: &ServerSpec) -> Result<Option<ServerRecord>> {
    let what = "ensure server";
    let key = spec.id.to_string();
    if host
        .servers
        .buried(&key)?
        .is_some_and(|gone| spec.incarnation <= gone)
    {
        return Err(conflict(
            what,
            format!("{key} of this incarnation was deleted"),
        ));
    }
    let record = host.servers.find(&key)?;
    match &record {
        Some(r) if r.incarnation != spec.incarnation => {
            let why = format!(
                "{key} exists as incarnation {}: delete that first",
                r.incarnation.0
            );
            Err(conflict(what, why))
        }
        Some(r) if r.turn > spec.turn => Err(outrun(what, &key)),
        _ => Ok(record),
    }
}

fn write_down(host: &Host, spec: &ServerSpec, known: Option<ServerRecord>) -> Result<ServerRecord> {
    let groups = host.groups.of(&spec.id.to_string());
    let record = ServerRecord {
        id: spec.id,
        incarnation: spec.incarnation,
        turn: spec.turn,
        roots: spec.roots.clone(),
        volume_id: spec.volume_id,
        network_id: spec.network_id,
        network_address: spec.network_address,
        memory_mib: spec.limits.memory_mib,
        vcpus: spec.limits.vcpus,
        io: spec.limits.io,
        uids: known.as_ref().map_or((0, 0), |k| k.uids),
        groups,
        stopping: None,
        card: spec.card.clone(),
    };
    if known.as_ref() == Some(&record) {
        return Ok(record);
    }
    host.put_server(record)
}

fn start(host: &Host, spec: &ServerSpec, record: &ServerRecord) -> Result<()> {
    let _volume_lock = host.lock("volume", &spec.volume_id.to_string())?;
    let volume = usable_volume(host, spec)?;
    let net = network::ensure_known(host, spec.network_id)?;
    if !net.cidr()?.contains(spec.network_address) || spec.network_address == net.tracker_address {
        let why = format!(
            "{} is not a member's address in {}",
            spec.network_address, net.subnet
        );
        return Err(rejected("ensure server", why));
    }
    let roots: Result<Vec<PathBuf>> = spec
        .roots
        .iter()
        .map(|root| sandbox::root_tree(host, root))
        .collect();
    let roots = roots?;
    network::ensure_server_ns(host, spec.id)?;
    let own = network::attach(host, spec.id, &net, spec.network_address)?;
    publish::plug_all(host, spec.id, &net, own)?;
    let groups = host.groups.ensure(&spec.id.to_string(), spec.limits)?;
    let dir = host.sandbox_dir(spec.id);
    fs::create_dir_all(&dir).map_err(io("ensure server", dir.display()))?;
    let uids = host.uids_inside(record.uids);
    let boot = sandbox::complete_boot(&spec.boot, uids)?;
    let name = host_name(spec.id);
    let launch = LaunchSpec {
        netns: Some(host.names.server_path(spec.id)),
        groups,
        roots,
        volume,
        guest_binary: host.config.guest_binary.clone(),
        arguments: vec!["init".to_owned()],
        files: sandbox::files(&boot, &name, Some(spec.network_address), uids),
        agent_uid: uids.0,
        engine_uid: uids.1,
        host_name: name,
        memory_mib: spec.limits.memory_mib,
        mount_point: host.mount_point(),
        console: dir.join("console.log"),
        launched: dir.join("launched.json"),
        is_waiting: false,
    };
    run_launcher(host, &launch, &dir.join("launch.json"))?;
    if record.io.is_none() {
        return Ok(());
    }
    limit_io(host, record, &record.io)
}

/// Sets how fast a running server may read and write its volume. Where that cannot be limited
/// nothing is set: the provider's abilities say so. Nor is it in groups that an earlier Coffer
/// made, which have no part for it, until the next start.
fn limit_io(host: &Host, record: &ServerRecord, io: &IoLimits) -> Result<()> {
    if host.io_missing().is_some() {
        return Ok(());
    }
    match volume::device(host, record.volume_id)? {
        Some(device) => cgroup::set_io_limits(&record.groups, device, io),
        None => Ok(()),
    }
}

fn run_launcher(host: &Host, launch: &LaunchSpec, path: &Path) -> Result<()> {
    let what = "launch sandbox";
    write_json_for_this_boot(path, launch)?;
    let (program, args) = sandbox::launcher(host, path)?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = process::run_to_end(what, &program, &args, None, limits::LAUNCH)?;
    if ended.code == Some(0) {
        return Ok(());
    }
    let words = ended.stderr.trim();
    if is_shortage(words) {
        return Err(transient(what, words));
    }
    Err(rejected(what, words))
}

/// The volume's file, whole, of the right incarnation and used by nobody.
fn usable_volume(host: &Host, spec: &ServerSpec) -> Result<PathBuf> {
    let what = "ensure server";
    let record = host
        .volumes
        .find(&spec.volume_id.to_string())?
        .filter(|v| v.is_ready);
    let record = record.ok_or(ProviderError::NotFound { what: "volume" })?;
    if record.incarnation != spec.volume_incarnation {
        let why = format!("volume {} is of another incarnation", spec.volume_id);
        return Err(conflict(what, why));
    }
    let file = volume::file_of(host, spec.volume_id);
    if !file.exists() {
        let why = format!("{} is gone: restore the pool or a backup", file.display());
        return Err(rejected(what, why));
    }
    if volume::user(host, spec.volume_id).is_some() || !loops::wait_released(&file)? {
        return Err(conflict(
            what,
            format!("volume {} is used by another server", spec.volume_id),
        ));
    }
    Ok(file)
}

fn adjust(host: &Host, record: &ServerRecord, spec: &ServerSpec) -> Result<()> {
    let Limits {
        memory_mib,
        vcpus,
        io,
    } = spec.limits;
    // A start that was cut short has written them down and not set them.
    if !io.is_none() || io != record.io {
        limit_io(host, record, &io)?;
    }
    let changed = ServerRecord {
        turn: spec.turn,
        memory_mib,
        vcpus,
        io,
        card: spec.card.clone(),
        ..record.clone()
    };
    if changed == *record {
        return Ok(());
    }
    if (record.memory_mib, record.vcpus) != (memory_mib, vcpus) {
        cgroup::set_limits(&record.groups, spec.limits)?;
    }
    host.servers.put(&record.id.to_string(), &changed)
}

/// Asks a running server to stop, once; returns until when it may take.
fn ask(host: &Host, record: &mut ServerRecord, init: &Launched, grace_ms: u64) -> Result<u64> {
    let boot = boot_id();
    let now = boottime_ms();
    if let Some((by_ms, asked_in)) = &record.stopping
        && *asked_in == boot
    {
        // A later call may shorten the grace, never lengthen it.
        return Ok((*by_ms).min(now.saturating_add(grace_ms)));
    }
    let by_ms = now.saturating_add(grace_ms);
    record.stopping = Some((by_ms, boot));
    host.servers.put(&record.id.to_string(), record)?;
    match kill(Pid::from_raw(init.pid), Signal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(by_ms),
        Err(e) => Err(errno("stop server", record.id)(e)),
    }
}

/// Ends all processes of a server and takes away what it had on the host, but its volume's file:
/// the kernel unmounts that when the last process is gone, and this waits for it.
fn clear(host: &Host, record: &ServerRecord) -> Result<()> {
    let what = "stop server";
    if let Some(running) = launched(host, record.id) {
        // Also reached where control groups are not.
        kill(Pid::from_raw(running.pid), Signal::SIGKILL).ok();
    }
    let ended = cgroup::kill_all(&record.groups)
        && wait_until(limits::END, || launched(host, record.id).is_none());
    publish::unplug_all(host, record.id)?;
    network::detach(host, record.id, record.network_id, record.network_address)?;
    netns::delete(&host.names.server_path(record.id))?;
    if !ended {
        return Err(transient(
            what,
            format!("processes of {} do not end", record.id),
        ));
    }
    cgroup::remove(&record.groups)?;
    let file = volume::file_of(host, record.volume_id);
    if volume::user(host, record.volume_id).is_none() && !loops::wait_released(&file)? {
        return Err(transient(
            what,
            format!("volume of {} is not released", record.id),
        ));
    }
    Ok(())
}

/// As [`clear`], for what carries our tag and no record knows.
fn clear_unknown(host: &Host, id: ServerId) -> Result<()> {
    let groups = host.groups.of(&id.to_string());
    if let Some(running) = launched(host, id) {
        // Also reached where control groups are not.
        kill(Pid::from_raw(running.pid), Signal::SIGKILL).ok();
    }
    let is_gone = || launched(host, id).is_none();
    if !cgroup::kill_all(&groups) || !wait_until(limits::END, is_gone) {
        return Err(transient(
            "stop server",
            format!("processes of {id} do not end"),
        ));
    }
    cgroup::remove(&groups)?;
    netns::delete(&host.names.server_path(id))
}

/// Gives a cloned volume a file system uuid of its own, now that it is cleanly unmounted.
fn renew_uuid(host: &Host, record: &ServerRecord) -> Result<()> {
    let key = record.volume_id.to_string();
    let _lock = host.lock("volume", &key)?;
    let file = volume::file_of(host, record.volume_id);
    let Some(mut volume) = host.volumes.find(&key)?.filter(|v| v.has_cloned_uuid) else {
        return Ok(());
    };
    if !file.exists() || !loops::renew_uuid(&file)? {
        return Ok(());
    }
    volume.has_cloned_uuid = false;
    host.volumes.put(&key, &volume)
}

/// Keeps what a guest prints within its bound; it is opened for appending, so it goes on at zero.
fn bound_console(path: &Path) {
    let is_large = fs::metadata(path).is_ok_and(|m| m.len() > CONSOLE_MAX);
    if is_large {
        let opened = fs::File::options().write(true).open(path);
        opened.and_then(|f| f.set_len(0)).ok();
    }
}

fn reference(host: &Host, record: &ServerRecord) -> ServerRef {
    ServerRef {
        id: record.id,
        incarnation: record.incarnation,
        provider_ref: host.names.server_ns(record.id),
        host: host.host_name.clone(),
    }
}
