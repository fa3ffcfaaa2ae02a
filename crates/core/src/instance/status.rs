//! Lifecycle and health inside, Trove's two public words outside, derived in one function.

use std::fmt;

/// An enum stored and shown by a word: `as_str`, `FromStr`, `Display`, and the list of all.
#[macro_export]
macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, $kind:literal {
        $($(#[$vdoc:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word it is stored and shown by.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::Error;

            fn from_str(text: &str) -> $crate::Result<Self> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err($crate::Error::Word { kind: $kind, value: $crate::name::shown(text) }),
                }
            }
        }
    };
}

word_enum! {
    /// What Coffer is doing with an instance.
    Lifecycle, "lifecycle" {
        /// Being created.
        Building = "building",
        /// Created; nothing is being done with it.
        Active = "active",
        /// Its engine is being restarted.
        Restarting = "restarting",
        /// Its flavor or volume is being changed.
        Resizing = "resizing",
        /// Its publication or allowed addresses are being changed.
        Updating = "updating",
        /// It is being upgraded.
        Upgrading = "upgrading",
        /// It is being made the primary of its set.
        Promoting = "promoting",
        /// It is being removed from its set.
        Ejecting = "ejecting",
        /// It is being cut from its replica source.
        Detaching = "detaching",
        /// Its server is being stopped.
        Stopping = "stopping",
        /// It was stopped on request and stays so.
        Stopped = "stopped",
        /// It is being deleted.
        Deleting = "deleting",
        /// A workflow gave up; the fault says why.
        Failed = "failed",
        /// Gone.
        Deleted = "deleted",
    }
}

word_enum! {
    /// What the guest says of the engine.
    Health, "health" {
        /// Nothing was heard yet.
        Unknown = "unknown",
        /// The engine is starting.
        Starting = "starting",
        /// A probe with a real commit was answered.
        Healthy = "healthy",
        /// The engine runs but does not answer its probe.
        Blocked = "blocked",
        /// The engine was stopped on request.
        Shutdown = "shutdown",
        /// The engine exited by itself.
        Crashed = "crashed",
        /// The guest has not been heard for too long.
        Lost = "lost",
        /// A changed setting waits for a restart.
        RestartRequired = "restart_required",
    }
}

word_enum! {
    /// Trove's `status`.
    Status, "status" {
        /// Being created.
        Build = "BUILD",
        /// In service.
        Active = "ACTIVE",
        /// Being restarted.
        Reboot = "REBOOT",
        /// Being resized.
        Resize = "RESIZE",
        /// Being upgraded.
        Upgrade = "UPGRADE",
        /// Being promoted.
        Promote = "PROMOTE",
        /// Being ejected.
        Eject = "EJECT",
        /// Being detached.
        Detach = "DETACH",
        /// Stopped or being deleted.
        Shutdown = "SHUTDOWN",
        /// A setting waits for a restart.
        RestartRequired = "RESTART_REQUIRED",
        /// A workflow gave up.
        Error = "ERROR",
    }
}

/// Trove's `operating_status`; `None` is its empty string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatingStatus(pub Option<&'static str>);

impl fmt::Display for OperatingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.unwrap_or(""))
    }
}

/// The two words Trove's clients see. `operating_status` is empty while a task runs, as in Trove.
pub const fn public_status(lifecycle: Lifecycle, health: Health) -> (Status, OperatingStatus) {
    let status = match lifecycle {
        Lifecycle::Building => Status::Build,
        Lifecycle::Active => match health {
            Health::RestartRequired => Status::RestartRequired,
            Health::Unknown
            | Health::Starting
            | Health::Healthy
            | Health::Blocked
            | Health::Shutdown
            | Health::Crashed
            | Health::Lost => Status::Active,
        },
        // Trove leaves a change of access ACTIVE; Terraform tolerates no other word.
        Lifecycle::Updating => Status::Active,
        // As in Trove, where the task of a stop is REBOOTING.
        Lifecycle::Restarting | Lifecycle::Stopping => Status::Reboot,
        Lifecycle::Resizing => Status::Resize,
        Lifecycle::Upgrading => Status::Upgrade,
        Lifecycle::Promoting => Status::Promote,
        Lifecycle::Ejecting => Status::Eject,
        Lifecycle::Detaching => Status::Detach,
        Lifecycle::Stopped | Lifecycle::Deleting | Lifecycle::Deleted => Status::Shutdown,
        Lifecycle::Failed => Status::Error,
    };
    let operating = match lifecycle {
        Lifecycle::Active | Lifecycle::Failed => Some(operating_word(health)),
        // What was heard last, or not, is of no matter.
        Lifecycle::Stopped => Some(operating_word(Health::Shutdown)),
        Lifecycle::Building
        | Lifecycle::Updating
        | Lifecycle::Restarting
        | Lifecycle::Stopping
        | Lifecycle::Resizing
        | Lifecycle::Upgrading
        | Lifecycle::Promoting
        | Lifecycle::Ejecting
        | Lifecycle::Detaching
        | Lifecycle::Deleting
        | Lifecycle::Deleted => None,
    };
    (status, OperatingStatus(operating))
}

const fn operating_word(health: Health) -> &'static str {
    match health {
        Health::Unknown => "NEW",
        Health::Starting => "ACTIVE",
        Health::Healthy => "HEALTHY",
        Health::Blocked => "BLOCKED",
        Health::Shutdown => "SHUTDOWN",
        Health::Crashed => "FAILED",
        Health::Lost => "ERROR",
        Health::RestartRequired => "RESTART_REQUIRED",
    }
}

impl Lifecycle {
    /// Whether a workflow may begin that needs the instance at rest.
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Active | Self::Stopped | Self::Failed)
    }

    /// Whether the server of an instance in this state should be running.
    pub const fn wants_server(self) -> bool {
        !matches!(
            self,
            Self::Stopping | Self::Stopped | Self::Deleting | Self::Deleted | Self::Building
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for &one in Lifecycle::ALL {
            assert_eq!(one.as_str().parse::<Lifecycle>().unwrap(), one);
        }
        for &one in Health::ALL {
            assert_eq!(one.as_str().parse::<Health>().unwrap(), one);
        }
    }

    #[test]
    fn active_and_healthy_is_what_terraform_waits_for() {
        let (status, operating) = public_status(Lifecycle::Active, Health::Healthy);
        assert_eq!(
            (status.as_str(), operating.to_string().as_str()),
            ("ACTIVE", "HEALTHY")
        );
    }

    #[test]
    fn operating_status_is_empty_while_a_task_runs() {
        for &one in Lifecycle::ALL {
            let (_, operating) = public_status(one, Health::Healthy);
            assert_eq!(operating.0.is_some(), one.is_at_rest(), "{one}");
        }
    }
}
