//! How long the local provider waits for whatever does not depend on it. Whoever asks a provider
//! stops listening after some ten seconds and asks again; what hangs is ended here, or goes on
//! under its object's lock, so that no repetition runs beside it.

use std::time::Duration;

/// How long one of the host's tools may take before it is killed, with all that it started.
pub(super) const TOOL: Duration = Duration::from_secs(20);
/// How long the launcher may take; growing a volume at its mount is part of it.
pub(super) const LAUNCH: Duration = Duration::from_secs(60);
/// How long an engine may take to initialise its data directory.
pub(super) const TEMPLATE: Duration = Duration::from_secs(300);
/// How long a snapshot may take; writes are held back for a part of it.
pub(super) const SNAPSHOT: Duration = Duration::from_secs(20);
/// How long processes may take to die of SIGKILL.
pub(super) const END: Duration = Duration::from_secs(10);
/// How long the kernel may take to unmount after the last process ended.
pub(super) const RELEASE: Duration = Duration::from_secs(20);
/// How long a call waits for an earlier one on the same object; shorter than anybody listens, so
/// that it is heard what is waited for, and calls do not pile up behind one that hangs.
pub(super) const LOCK: Duration = Duration::from_secs(5);
/// When to ask again for an object that an earlier call works on; unit: milliseconds.
pub(super) const BUSY_POLL_MS: u64 = 1_000;
