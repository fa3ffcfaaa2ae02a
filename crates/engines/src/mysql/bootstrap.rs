//! Making MySQL's data directory: initialised, then started once to make Coffer's account.

use super::{Mysql, SERVER};
use crate::error::Result;
use crate::mysql_family::Dialect;
use crate::mysql_family::bootstrap::{check, datadir, program, tool};
use crate::runtime::EngineHost;

/// Both runs serve nobody; whether they are on disk is seen to when the template is published.
const ALONE: &[&str] = &[
    "--skip-networking",
    "--skip-log-bin",
    "--mysqlx=OFF",
    "--performance-schema=OFF",
    "--innodb-buffer-pool-size=128M",
    "--innodb-redo-log-capacity=64M",
    "--innodb-flush-log-at-trx-commit=0",
];

/// Makes the data directory of a template.
pub(super) async fn bootstrap(engine: &Mysql, host: &dyn EngineHost) -> Result<()> {
    let data = datadir(engine, host);
    let first_sql = format!("{data}.sql");
    let args = |more: &[&str]| {
        let own = ["--no-defaults".to_owned(), format!("--datadir={data}")];
        let words = [ALONE, &engine.launch_words(), more].concat();
        own.into_iter()
            .chain(words.into_iter().map(str::to_owned))
            .collect::<Vec<String>>()
    };
    let mut initialize = args(&["--initialize-insecure"]);
    // It loads no plugins yet.
    initialize.retain(|word| !word.starts_with("--plugin-load"));
    let made = host.run(program(SERVER, initialize, "")).await?;
    check("make the data directory", made)?;
    let what = "write the first statements";
    tool(engine, host, what, &["first-sql", &first_sql]).await?;
    let run = |name: &str| host.layout().run_dir.join(name).display().to_string();
    let words = [
        format!("--init-file={first_sql}"),
        format!("--socket={}", run("first.sock")),
        format!("--pid-file={}", run("first.pid")),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let started = host.run(program(SERVER, args(&words), "")).await?;
    check("make Coffer's account", started)
}
