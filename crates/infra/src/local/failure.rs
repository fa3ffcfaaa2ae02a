//! From the kernel's and tools' failures to the provider's classes.

use std::fmt::Display;
use std::io;

use nix::errno::Errno;

use crate::error::ProviderError;

/// A failure that may pass by itself.
pub(super) fn transient(what: &'static str, why: impl Display) -> ProviderError {
    ProviderError::Transient {
        what,
        why: why.to_string(),
    }
}

/// A failure that lasts until somebody acts.
pub(super) fn rejected(what: &'static str, why: impl Display) -> ProviderError {
    ProviderError::Rejected {
        what,
        why: why.to_string(),
    }
}

/// Something else holds what is needed.
pub(super) fn conflict(what: &'static str, why: impl Display) -> ProviderError {
    ProviderError::Conflict {
        what,
        why: why.to_string(),
    }
}

/// A worker that lost its task asks after a later task has.
pub(super) fn outrun(what: &'static str, key: &str) -> ProviderError {
    conflict(what, format!("a later task has changed {key}"))
}

/// Whether the words of a failure, as [`io()`] and [`errno`] write them, end in a shortage of the
/// kernel's: a launcher can only pass words on.
pub(super) fn is_shortage(words: &str) -> bool {
    [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE]
        .into_iter()
        .any(|one| {
            let number = format!("(os error {})", one as i32);
            words.ends_with(one.desc()) || words.ends_with(&number)
        })
}

/// Classifies an I/O error by its number; `about` names the object.
pub(super) fn io(
    what: &'static str,
    about: impl Display,
) -> impl FnOnce(io::Error) -> ProviderError {
    move |error| classify(what, format!("{about}: {error}"), error.raw_os_error())
}

/// Classifies an error number; `about` names the object.
pub(super) fn errno(
    what: &'static str,
    about: impl Display,
) -> impl FnOnce(Errno) -> ProviderError {
    move |error| {
        classify(
            what,
            format!("{about}: {}", error.desc()),
            Some(error as i32),
        )
    }
}

fn classify(what: &'static str, why: String, number: Option<i32>) -> ProviderError {
    match number.map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => ProviderError::QuotaExceeded { what, why },
        Some(Errno::EPERM | Errno::EACCES) => ProviderError::Unauthorized {
            what,
            why: format!("{why}: run coffer as root, or see what `coffer doctor` misses"),
        },
        _ => ProviderError::Transient { what, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_from_what_lasts() {
        for short in [Errno::EAGAIN, Errno::ENOMEM] {
            assert!(is_shortage(&errno("launch", "fork")(short).to_string()));
            let same = io::Error::from_raw_os_error(short as i32);
            assert!(is_shortage(&io("launch", "mount")(same).to_string()));
        }
        for lasting in [Errno::ENOENT, Errno::EPERM, Errno::EINVAL] {
            assert!(!is_shortage(&errno("launch", "mount")(lasting).to_string()));
        }
    }
}
