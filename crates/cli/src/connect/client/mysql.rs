//! The clients of MySQL, its kin and MariaDB.

use std::ffi::OsString;
use std::path::Path;

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
/// maker's client has its own word for looking at the server's certificate and warns of the
/// other's. MariaDB's reads a group that MySQL's passes over, but not the other way round: it is
/// known by the program that its names lead to, and what is not known gets both words. The name
/// looked for is that of loopback, which every certificate of the project has: so that it is this
/// instance is said by Coffer's own connection, which names it.
fn secret_file(login: &Login, client: &Path) -> String {
    let secret = login.secret.replace('\\', "\\\\").replace('"', "\\\"");
    let of_mysql = match is_of_mariadb(client) {
        true => "",
        false => "loose-ssl-mode=VERIFY_IDENTITY\n",
    };
    format!("[client]\npassword=\"{secret}\"\n{of_mysql}[client-mariadb]\nssl-verify-server-cert\n")
}

/// Whether a client is MariaDB's: Debian's `mysql` is a link to it.
fn is_of_mariadb(client: &Path) -> bool {
    let real = client.canonicalize().unwrap_or_default();
    let name = real.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b"mariadb")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_only_the_words_it_knows() {
        let login = Login {
            at: "127.0.0.1:5".parse().unwrap(),
            user: "a".to_owned(),
            database: None,
            secret: "b\"\\".to_owned(),
        };
        let dir = tempfile::tempdir().unwrap();
        let [mariadb, mysql, unknown] =
            ["mariadb", "mysql", "my client"].map(|name| dir.path().join(name));
        std::fs::write(&mariadb, "").unwrap();
        std::fs::write(&unknown, "").unwrap();
        std::os::unix::fs::symlink(&mariadb, &mysql).unwrap();
        let of_mariadb = "[client]\npassword=\"b\\\"\\\\\"\n\
                          [client-mariadb]\nssl-verify-server-cert\n";
        assert_eq!(secret_file(&login, &mariadb), of_mariadb);
        assert_eq!(secret_file(&login, &mysql), of_mariadb);
        let of_either = "[client]\npassword=\"b\\\"\\\\\"\nloose-ssl-mode=VERIFY_IDENTITY\n\
                         [client-mariadb]\nssl-verify-server-cert\n";
        assert_eq!(secret_file(&login, &unknown), of_either);
        assert_eq!(secret_file(&login, &dir.path().join("none")), of_either);
    }
}
