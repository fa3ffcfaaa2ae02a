//! Lines on standard error, which the provider keeps with a bound. A subscriber of spans would
//! cost more memory than the agent has; no line holds a secret.

/// A change of state.
pub(crate) fn info(message: std::fmt::Arguments<'_>) {
    eprintln!("INFO coffer-guest: {message}");
}

/// Something failed and work goes on.
pub(crate) fn warn(message: std::fmt::Arguments<'_>) {
    eprintln!("WARN coffer-guest: {message}");
}
