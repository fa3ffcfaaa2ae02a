//! PostgreSQL's client.

use std::ffi::OsString;
use std::path::Path;

use super::{Kind, Login, Secret, Told};

/// `psql`, which reads its password from a file of libpq's format.
pub(super) const KIND: Kind = Kind {
    engine: "postgresql",
    programs: &["psql"],
    package: "postgresql-client",
    in_root: |version| format!("usr/lib/postgresql/{version}/bin/psql"),
    env_remove: &["PGPASSWORD", "PGSERVICE"],
    secret: Secret::File(secret_file),
    words: |told| vec!["-d".into(), OsString::from(conninfo(told))],
};

fn secret_file(login: &Login, _: &Path) -> String {
    let secret = login.secret.replace('\\', "\\\\").replace(':', "\\:");
    format!("*:*:*:*:{secret}\n")
}

/// How to connect, in libpq's words.
fn conninfo(told: &Told<'_>) -> String {
    let login = told.login;
    let pairs = [
        ("host", told.host_name),
        ("hostaddr", &login.at.ip().to_string()),
        ("port", &login.at.port().to_string()),
        ("user", &login.user),
        ("dbname", login.database.as_deref().unwrap_or("postgres")),
        ("sslmode", "verify-full"),
        ("sslrootcert", told.ca),
        ("passfile", told.secret),
    ];
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let pairs = pairs.map(|(name, value)| format!("{name}='{}'", quoted(value)));
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_quoted() {
        let login = Login {
            at: "127.0.0.1:5".parse().unwrap(),
            user: "o'neil\\".to_owned(),
            database: None,
            secret: "a:b\\".to_owned(),
        };
        let told = Told {
            host_name: "i.coffer",
            login: &login,
            secret: "/secret",
            ca: "/ca",
        };
        let line = conninfo(&told);
        assert!(line.contains(r"user='o\'neil\\'"), "{line}");
        assert!(
            line.contains("dbname='postgres'") && line.contains("verify-full"),
            "{line}"
        );
        assert_eq!(
            secret_file(&login, Path::new("/psql")),
            "*:*:*:*:a\\:b\\\\\n"
        );
    }
}
