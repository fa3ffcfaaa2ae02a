//! The sandbox's first process: reaps everything, owns the engine, keeps the agent alive.
//!
//! It does as little as it can, because it is never upgraded: one thread, one `poll`, no state on
//! disk. It knows of the engine only the command that the agent gave it. An agent that dies or is
//! replaced by another binary does not touch the engine.

mod children;
mod choice;
mod confine;
mod image;
mod line;
mod prepare;
pub(crate) mod protocol;
pub(crate) mod spawn;
mod supervisor;

use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::boot;
use crate::error::{GuestError, Result};
use crate::init::supervisor::Supervisor;

pub use protocol::{Image, Process};

/// What init is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Run an instance until told to stop.
    Instance,
    /// Make a template's data directory, then end.
    Bootstrap,
}

/// Runs until SIGTERM, or until the bootstrap is done.
pub fn run(mode: Mode) -> Result<()> {
    let signals = [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ];
    let mask: SigSet = signals.into_iter().collect();
    mask.thread_block()
        .map_err(GuestError::sys("block signals"))?;
    let signal_fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(GuestError::sys("receive signals"))?;
    let _taken = spawn::take_place()?;
    nix::sys::prctl::set_child_subreaper(true).map_err(GuestError::sys("adopt orphans"))?;
    let boot = boot::read(Path::new(boot::BOOT_PATH))?;
    prepare::for_agent(&boot)?;
    let mut supervisor = Supervisor::new(boot.clone(), mode);
    supervisor.start_agent();
    // Where the mount maps no owners a clone has a thousand files to give away; the agent makes its
    // keys meanwhile, and what it asks for waits.
    prepare::for_engine(&boot)?;
    while !supervisor.is_over() {
        supervisor.wait(signal_fd.as_fd());
        while let Ok(Some(signal)) = signal_fd.read_signal() {
            let is_child = signal.ssi_signo == Signal::SIGCHLD as u32;
            if !is_child && signal.ssi_signo != Signal::SIGHUP as u32 {
                supervisor.stop();
            }
        }
        supervisor.turn();
    }
    nix::unistd::sync();
    supervisor.result()
}
