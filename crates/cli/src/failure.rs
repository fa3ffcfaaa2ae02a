//! Why a command ended badly: the message, and the exit code that scripts can act on.

use std::fmt;
use std::process::ExitCode;

use coffer_wire::fault::{Fault, FaultBody};

/// Result of a command.
pub type Result<T> = std::result::Result<T, Failure>;

/// Kind of a failure; its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was tried and did not work.
    Failed = 1,
    /// The command line or the credentials are not right.
    Usage = 2,
    /// What was named is not there.
    NotFound = 3,
    /// Coffer understood and will not: role, quota, conflict, validation.
    Refused = 4,
    /// Coffer did not answer.
    Unreachable = 5,
}

/// Why a command ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind it is.
    pub kind: Kind,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A command line that cannot be meant.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Something was tried and did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The failure that an HTTP answer stands for; the body is Trove's fault or Keystone's error.
    pub fn from_answer(status: u16, body: &[u8]) -> Self {
        let fault = serde_json::from_slice::<FaultBody>(body).ok();
        let words = match fault.as_ref().and_then(FaultBody::first) {
            Some((_, fault)) => words(fault),
            None => format!("coffer answered {status} without saying why"),
        };
        Self::new(kind_of(status), words)
    }

    /// The exit code of its kind.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

fn kind_of(status: u16) -> Kind {
    match status {
        401 => Kind::Usage,
        404 => Kind::NotFound,
        400..=499 | 501 => Kind::Refused,
        502..=504 => Kind::Unreachable,
        _ => Kind::Failed,
    }
}

fn words(fault: &Fault) -> String {
    let mut text = fault.message.trim().to_owned();
    for more in [fault.details.as_deref(), fault.hint.as_deref()]
        .into_iter()
        .flatten()
    {
        text = format!("{text}\n  {more}");
    }
    if fault.code >= 500 && !fault.request_id.is_empty() {
        text = format!("{text}\n  request {}", fault.request_id);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_becomes_words_and_an_exit_code() {
        let body = br#"{"overLimit":{"code":413,"message":"Quota exceeded.","hint":"delete one"}}"#;
        let failure = Failure::from_answer(413, body);
        assert_eq!(failure.kind, Kind::Refused);
        assert_eq!(failure.message, "Quota exceeded.\n  delete one");
        assert_eq!(Failure::from_answer(404, b"").kind, Kind::NotFound);
        assert_eq!(Failure::from_answer(500, b"<html>").kind, Kind::Failed);
        let keystone = br#"{"error":{"code":401,"title":"Unauthorized","message":"no"}}"#;
        let failure = Failure::from_answer(401, keystone);
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (Kind::Usage, "no")
        );
    }
}
