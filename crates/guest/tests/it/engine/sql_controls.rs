//! That what MySQL and MariaDB refuse their root works where it is allowed: on the same data, in
//! the same root, by a server that was started without Coffer's words.

use coffer_engines::conformance::{self, Fixture};

use super::sql_refusals::{ATTEMPTS, Rooted};

/// Where MariaDB's root has libraries; the server has none to load, which is why these are its
/// client's: they are opened, and the server misses in them what makes a library one of its own.
const MARIADB_LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu/libmariadb3/plugin";

/// What is close to an attempt and works: its name, statements, and what the answer holds.
type Control = (&'static str, &'static str, &'static str);

/// Libraries of MySQL's root, each of which has what is asked of it.
const OF_MYSQL: &[Control] = &[
    ("library", LOCKS, ""),
    ("library-by-path", LOCKS, ""),
    (
        "plugin",
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; \
         UNINSTALL PLUGIN rpl_semi_sync_source;",
        "",
    ),
];
const LOCKS: &str = "CREATE FUNCTION service_get_read_locks RETURNS INT SONAME \
                     'locking_service.so'; DROP FUNCTION service_get_read_locks;";

/// Libraries in MariaDB's root.
const OF_MARIADB: &[Control] = &[
    ("library", DIALOG, "symbol"),
    ("library-by-path", DIALOG, "symbol"),
    (
        "plugin",
        "INSTALL PLUGIN evil SONAME 'dialog.so';",
        "symbol",
    ),
];
const DIALOG: &str = "CREATE FUNCTION f RETURNS INTEGER SONAME 'dialog.so';";

/// A setting that root may change, as it may not those that only a start can.
const SETTING: &str = "SET GLOBAL max_connect_errors = 99;";
/// Attempts whose control that is.
const SETTINGS: &[&str] = &["file-directory", "plugin-directory", "init-file"];

fn libraries(engine: &str) -> &'static [Control] {
    match engine {
        "mysql" => OF_MYSQL,
        _ => OF_MARIADB,
    }
}

/// Stops the server, starts it with what is refused allowed, and shows that it works.
pub(super) async fn all(rooted: &Rooted<'_>, is_persisted: bool) {
    let engine = rooted.known.engine_name();
    assert!(rooted.server.stop().await, "it does not stop cleanly");
    let loosen = |args: &mut Vec<String>| {
        let is_coffers = |word: &String| {
            word.starts_with("--secure-file-priv=") || word.starts_with("--persisted-globals-load=")
        };
        args.retain(|word| !is_coffers(word));
        args.push("--secure-file-priv=".to_owned());
        if engine == "mariadb" {
            args.push(format!("--plugin-dir={MARIADB_LIBRARIES}"));
        }
    };
    rooted.server.start_with(loosen).await;
    conformance::wait_answering(rooted.world, rooted.server).await;
    if is_persisted {
        let show = "SELECT @@GLOBAL.max_connect_errors;";
        let value = rooted.told("persist-settings", show).await;
        assert_eq!(
            value.trim(),
            "77",
            "what was persisted is not there to load"
        );
    }
    for (attempt, sql, refusal) in ATTEMPTS {
        let library = libraries(engine).iter().find(|(name, ..)| name == attempt);
        let (sql, wanted) = match library {
            Some((_, sql, wanted)) => (*sql, *wanted),
            None if SETTINGS.contains(attempt) => (SETTING, ""),
            None => (*sql, ""),
        };
        let answer = rooted.ask(sql).await;
        let is_good = match &answer {
            Ok(said) => wanted.is_empty() && !said.contains(refusal),
            Err(why) => !wanted.is_empty() && why.contains(wanted),
        };
        assert!(is_good, "{attempt} does not work: {sql} {answer:?}");
    }
    assert!(rooted.server.stop().await, "it does not stop cleanly");
}
