//! The clients of MySQL, its kin and MariaDB.

use std::ffi::OsString;

use super::{Kind, Login, Secret, Told};

/// `mysql`, or the client of MariaDB, which speaks to MySQL as well.
pub(super) const MYSQL: Kind = Kind {
    engine: "mysql",
    programs: &["mysql", "mariadb"],
    package: "mariadb-client",
    in_root: |_| "usr/bin/mysql".to_owned(),
    env_remove: ENVIRONMENT,
    secret: Secret::File(secret_file),
    words,
};

/// The kin of MySQL have its client.
pub(super) const PERCONA: Kind = Kind {
    engine: "percona",
    ..MYSQL
};

/// See [`PERCONA`].
pub(super) const PXC: Kind = Kind {
    engine: "pxc",
    ..MYSQL
};

/// `mariadb`, or the client of MySQL.
pub(super) const MARIADB: Kind = Kind {
    engine: "mariadb",
    programs: &["mariadb", "mysql"],
    package: "mariadb-client",
    in_root: |_| "usr/bin/mariadb".to_owned(),
    env_remove: ENVIRONMENT,
    secret: Secret::File(secret_file),
    words,
};

const ENVIRONMENT: &[&str] = &[
    "MYSQL_PWD",
    "MYSQL_HOST",
    "MYSQL_TCP_PORT",
    "MYSQL_UNIX_PORT",
];

/// The only option file that is read: one of the user's own could name another password. Each
/// maker's client has its own word for looking at the server's certificate and passes over the
/// other's. The name looked for is that of loopback, which every certificate of the project has: so
/// that it is this instance is said by Coffer's own connection, which names it.
fn secret_file(login: &Login) -> String {
    let secret = login.secret.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "[client]\npassword=\"{secret}\"\nloose-ssl-mode=VERIFY_IDENTITY\n\
         loose-ssl-verify-server-cert\n"
    )
}

fn words(told: &Told<'_>) -> Vec<OsString> {
    let login = told.login;
    let mut words = vec![
        format!("--defaults-file={}", told.secret),
        "--protocol=TCP".to_owned(),
        format!("--host={}", login.at.ip()),
        format!("--port={}", login.at.port()),
        format!("--user={}", login.user),
        format!("--ssl-ca={}", told.ca),
    ];
    if let Some(database) = &login.database {
        words.push(format!("--database={database}"));
    }
    words.into_iter().map(OsString::from).collect()
}
