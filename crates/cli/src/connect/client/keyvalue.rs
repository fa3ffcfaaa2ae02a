//! The clients of Redis and Valkey, each of which speaks to both.
//!
//! They check that the certificate is signed by the project's CA; the name in it they do not look
//! at.

use std::ffi::OsString;

use super::{Kind, Secret, Told};

/// `redis-cli`.
pub(super) const REDIS: Kind = Kind {
    engine: "redis",
    programs: &["redis-cli", "valkey-cli"],
    package: "redis-tools",
    in_root: |_| "usr/bin/redis-cli".to_owned(),
    env_remove: &["VALKEYCLI_AUTH"],
    secret: Secret::Variable("REDISCLI_AUTH"),
    words,
};

/// `valkey-cli`.
pub(super) const VALKEY: Kind = Kind {
    engine: "valkey",
    programs: &["valkey-cli", "redis-cli"],
    package: "valkey-tools",
    in_root: |_| "usr/bin/valkey-cli".to_owned(),
    ..REDIS
};

fn words(told: &Told<'_>) -> Vec<OsString> {
    let login = told.login;
    let (host, port) = (login.at.ip().to_string(), login.at.port().to_string());
    let words = ["-h", &host, "-p", &port, "--tls", "--sni", told.host_name];
    let more = [
        "--cacert",
        told.ca,
        "--no-auth-warning",
        "--user",
        &login.user,
    ];
    words.into_iter().chain(more).map(OsString::from).collect()
}
