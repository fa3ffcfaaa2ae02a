//! Structured logs on standard error.

use coffer_control::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging as configured.
pub(crate) fn start(config: &Config) {
    // What is no filter was refused with the configuration's other mistakes.
    let filter = EnvFilter::new(config.log.level.as_str());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written, on a disk that is full, is lost: to complain of it there
        // would end whoever had something to say.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first one's settings.
    let started = match config.log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging runs already");
    }
}
