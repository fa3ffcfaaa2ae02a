//! Making MariaDB's data directory: its own script, then statements to make Coffer's account.

use super::{Mariadb, OWN_ACCOUNT, SERVER};
use crate::error::Result;
use crate::mysql_family::bootstrap::{check, datadir, program};
use crate::runtime::EngineHost;

const SCRIPT: &str = "/usr/bin/mariadb-install-db";

/// Whether it is on disk is seen to when the template is published.
const WORDS: &[&str] = &[
    "--innodb-log-file-size=64M",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0",
    "--aria-log-file-size=8M",
];

/// What the script makes and nobody needs.
const CLEAN: &str = "\
DROP USER IF EXISTS `root`@`localhost`;
DELETE FROM mysql.proxies_priv;
";

/// Makes the data directory of a template.
pub(super) async fn bootstrap(engine: &Mariadb, host: &dyn EngineHost) -> Result<()> {
    let data = datadir(engine, host);
    let args = |more: &[&str]| {
        let own = ["--no-defaults".to_owned(), format!("--datadir={data}")];
        let words = WORDS.iter().chain(more);
        own.into_iter()
            .chain(words.map(|word| (*word).to_owned()))
            .collect::<Vec<String>>()
    };
    // The method is given so that no account is made that anybody enters without a password, and
    // force so that the sandbox's host name need not be resolved.
    let words = [
        "--skip-test-db",
        "--auth-root-authentication-method=socket",
        "--auth-root-socket-user=coffer-agent",
        "--skip-name-resolve",
        "--force",
    ];
    let made = host.run(program(SCRIPT, args(&words), "")).await?;
    check("make the data directory", made)?;
    // Alone, the server begins without accounts; reading them makes it take statements on them.
    let sql = format!("FLUSH PRIVILEGES;\n{OWN_ACCOUNT}{CLEAN}");
    let started = host
        .run(program(SERVER, args(&["--bootstrap"]), &sql))
        .await?;
    check("make Coffer's account", started)
}
