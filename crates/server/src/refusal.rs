//! How the tools on Coffer's host end when they do not do what they were asked: with the exit codes
//! of the verbs ([`coffer_cli::EXIT_CODES`]).

use std::process::ExitCode;

use coffer_cli::failure::{Failure, Kind};
use coffer_control::config::ConfigError;
use coffer_store::StoreError;

/// It was understood, and is not done: somebody else is at work, or something would be lost.
pub(crate) fn refused(message: impl Into<String>) -> anyhow::Error {
    Failure::new(Kind::Refused, message).into()
}

/// What was named is not there.
pub(crate) fn missing(message: impl Into<String>) -> anyhow::Error {
    Failure::new(Kind::NotFound, message).into()
}

/// The command line or the configuration is not right.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure::usage(message).into()
}

/// The exit code that an error stands for.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit_code();
    }
    let schema = error.downcast_ref::<StoreError>();
    if matches!(schema, Some(StoreError::OtherSchema { .. })) {
        return ExitCode::from(Kind::Refused as u8);
    }
    match error.downcast_ref::<ConfigError>() {
        Some(_) => ExitCode::from(Kind::Usage as u8),
        None => ExitCode::FAILURE,
    }
}
