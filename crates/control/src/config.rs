//! The configuration: one tree of plain values, where each comes from, and what is wrong with it.
//!
//! Order: defaults, the TOML file, `COFFER__SECTION__KEY` variables, flags; the later wins. Every
//! mistake is reported at once, an unknown key with the nearest right one; serde's own refusal of
//! unknown fields stops at the first, so the file is walked here instead. The table at the end of
//! this file is the only list of keys: structs, defaults, parsing, `coffer config show` and
//! `docs/config.md` all come from it.

mod load;
mod value;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_core::access::Cidr;
use coffer_core::units::VOLUME_GIB_MAX;
use coffer_infra::local::HostPorts;
use thiserror::Error;

use crate::limits;
use load::Loader;
use value::Value;
pub use value::{ByteSize, LogFilter, LogFormat, StoreUrl, TrackerLink, VolumeMode};

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the configuration has {} mistake(s):\n  {}", .mistakes.len(), .mistakes.join("\n  "))]
pub struct ConfigError {
    /// What is wrong, where, and what would be right.
    pub mistakes: Vec<String>,
}

impl Config {
    /// Loads the configuration of this process: file, environment, then `flags`, which are pairs
    /// of `section.key` and text.
    pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Self, ConfigError> {
        let text = match file {
            None => None,
            Some(path) => Some((path.display().to_string(), load::read(path)?)),
        };
        let text = text
            .as_ref()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        let mut base = Self::default();
        if let Some(dir) = load::own_state_dir() {
            base.state.dir = dir;
        }
        base.overlaid(text, load::variables(), flags)
    }

    /// Combines a file's name and text, `COFFER__` variables, and flags.
    pub fn from_parts(
        file: Option<(&str, &str)>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        Self::default().overlaid(file, variables, flags)
    }

    fn overlaid(
        self,
        file: Option<(&str, &str)>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut loader = Loader {
            config: self,
            mistakes: Vec::new(),
        };
        if let Some((name, text)) = file {
            loader.file(name, text);
        }
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        for (name, text) in &variables {
            loader.variable(name, text);
        }
        for (name, text) in flags {
            let (section, key) = name.split_once('.').unwrap_or((name, ""));
            loader.set(&format!("--set {name}"), section, key, text);
        }
        loader.mistakes.extend(loader.config.contradictions());
        match loader.mistakes.is_empty() {
            true => Ok(loader.config),
            false => Err(ConfigError {
                mistakes: loader.mistakes,
            }),
        }
    }

    /// The whole configuration as a TOML file, secrets masked.
    pub fn render_masked(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for entry in self.entries() {
            if entry.section != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = entry.section;
                let _ = writeln!(text, "{gap}[{section}]");
            }
            let quote = if entry.is_quoted { "\"" } else { "" };
            let _ = writeln!(text, "{} = {quote}{}{quote}", entry.key, entry.value);
        }
        text
    }

    /// The documentation of every key: the content of `docs/config.md`.
    pub fn docs_markdown() -> String {
        let mut text = DOCS_HEAD.to_owned();
        let mut section = "";
        for entry in Self::default().entries() {
            if entry.section != section {
                section = entry.section;
                let _ = write!(text, "\n## `[{section}]`\n\n{}\n", entry.section_doc);
                text.push_str("\n| key | holds | default | meaning |\n| --- | --- | --- | --- |\n");
            }
            let default = match entry.default {
                "" => "none".to_owned(),
                some => format!("`{some}`"),
            };
            let Entry { key, kind, doc, .. } = entry;
            let _ = writeln!(text, "| `{key}` | {kind} | {default} | {doc} |");
        }
        text
    }

    /// Where the SQLite file is, or the PostgreSQL server.
    pub fn store_url(&self) -> String {
        match &self.state.store_url {
            Some(url) => url.expose().to_owned(),
            None => format!("sqlite://{}", self.state.dir.join("coffer.db").display()),
        }
    }

    /// The pool directory: as configured, or below the state directory.
    pub fn pool_dir(&self) -> PathBuf {
        self.local
            .pool_dir
            .clone()
            .unwrap_or_else(|| self.state.dir.join("pool"))
    }

    /// What is wrong although each value can be read.
    fn contradictions(&self) -> Vec<String> {
        let mut found = self.wrong_numbers();
        let mut claim = |is_right: bool, words: &str| {
            if !is_right {
                found.push(words.to_owned());
            }
        };
        claim(
            !self.api.insecure_http || self.api.listen.ip().is_loopback(),
            "api.insecure_http is allowed on a loopback address only: change api.listen to \
             127.0.0.1 or leave TLS on",
        );
        claim(
            !self.tracker.listen.ip().is_unspecified(),
            "tracker.listen has to be one address, because APIs are told to dial it: name one of \
             this host's",
        );
        let endpoint = self.api.public_endpoint.as_deref();
        claim(
            endpoint.is_none_or(is_base),
            "api.public_endpoint has to be https://HOST or http://HOST, with a port and \
             path if need be",
        );
        let store = self.state.store_url.as_ref().map(StoreUrl::expose);
        claim(
            store.is_none_or(|url| !url.starts_with("sqlite://") || url.starts_with("sqlite:///")),
            "state.store_url has to name its file by an absolute path: sqlite:///path",
        );
        claim(
            !self.api.region.trim().is_empty(),
            "api.region must not be empty",
        );
        claim(
            self.conductor.lost_after > self.conductor.poll,
            "conductor.lost_after has to be longer than conductor.poll",
        );
        let kept = &self.retention;
        claim(
            kept.audit >= kept.tasks.max(kept.events).max(kept.instances),
            "retention.audit has to be as long as the longest of the others",
        );
        let pool = self.local.published_pool;
        claim(
            pool.is_none_or(|p| is_usable_pool(&p)),
            "local.published_pool has to be an IPv4 range of /8 to /30",
        );
        found
    }

    /// The first time of keeping outside its bounds.
    fn wrong_retention(&self) -> Option<String> {
        let kept = &self.retention;
        [
            ("retention.tasks", kept.tasks),
            ("retention.events", kept.events),
            ("retention.instances", kept.instances),
            ("retention.audit", kept.audit),
        ]
        .into_iter()
        .find_map(|(name, value)| between(name, value, RETENTION_MIN, RETENTION_MAX))
    }

    /// Numbers, durations and paths outside their bounds.
    fn wrong_numbers(&self) -> Vec<String> {
        let (limits, second) = (&self.limits, Duration::from_secs(1));
        let checks = [
            bounds(
                "limits.max_volume_gib",
                limits.max_volume_gib,
                1,
                VOLUME_GIB_MAX,
            ),
            bounds(
                "limits.quota_instances",
                limits.quota_instances,
                -1,
                i64::MAX,
            ),
            bounds(
                "limits.quota_volumes_gib",
                limits.quota_volumes_gib,
                -1,
                i64::MAX,
            ),
            bounds("limits.quota_ram_mib", limits.quota_ram_mib, -1, i64::MAX),
            bounds("limits.quota_backups", limits.quota_backups, -1, i64::MAX),
            bounds("taskmanager.workers", self.taskmanager.workers, 1, 256),
            bounds("local.cow_pool_gib", self.local.cow_pool_gib, 0, 1 << 20),
            bounds("local.uid_base", self.local.uid_base, 10_000, 4_000_000_000),
            between(
                "taskmanager.lease",
                self.taskmanager.lease,
                LEASE_MIN,
                600 * second,
            ),
            self.wrong_retention(),
            between("conductor.poll", self.conductor.poll, second, 300 * second),
            between(
                "conductor.lost_after",
                self.conductor.lost_after,
                second,
                3_600 * second,
            ),
            between(
                "api.token_lifetime",
                self.api.token_lifetime,
                60 * second,
                8_760 * 3_600 * second,
            ),
            match self.api.body_limit.0 {
                4_096..=67_108_864 => None,
                _ => Some("api.body_limit has to be 4KiB to 64MiB".to_owned()),
            },
            absolute("state.dir", Some(&self.state.dir)),
            absolute("local.pool_dir", self.local.pool_dir.as_ref()),
            absolute("local.roots_dir", Some(&self.local.roots_dir)),
            absolute("local.guest_binary", self.local.guest_binary.as_ref()),
        ];
        checks.into_iter().flatten().collect()
    }
}

/// A lease outlives the longest call and its margin, or no step could make one.
const LEASE_MIN: Duration = Duration::from_secs(15);
const _: () =
    assert!(LEASE_MIN.as_secs() > limits::CALL_MAX.as_secs() + limits::LEASE_MARGIN.as_secs());

/// Shorter than this, `explain` would lose what it is asked about.
const RETENTION_MIN: Duration = Duration::from_secs(86_400);
const RETENTION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// First lines of `docs/config.md`.
const DOCS_HEAD: &str = "# Configuration\n\n\
    <!-- Generated from crates/control/src/config.rs by `cargo xtask docs`; do not edit. -->\n\n\
    One TOML file, given as `coffer up --config FILE`; every key may be left out. A key is also \
    set by the environment variable `COFFER__SECTION__KEY` (`COFFER__API__LISTEN`) and by \
    `--set section.key=value`; the flag wins over the variable, the variable over the file.\n\
    An unknown key is refused, and all mistakes are reported at once. `coffer config show` prints \
    what holds, with secrets masked.\n\n\
    Durations are numbers with `ms`, `s`, `m`, `h` or `d` (`90s`); sizes are numbers with `KiB`, \
    `MiB` or `GiB`. Where the default is none, the empty text means none.\n";

/// A key with all that is known of it.
struct Entry {
    section: &'static str,
    section_doc: &'static str,
    key: &'static str,
    doc: &'static str,
    kind: &'static str,
    default: &'static str,
    is_quoted: bool,
    value: String,
}

fn bounds<T: PartialOrd + fmt::Display>(name: &str, value: T, low: T, high: T) -> Option<String> {
    let is_right = value >= low && value <= high;
    (!is_right).then(|| format!("{name} is {value}; it has to be {low} to {high}"))
}

fn between(name: &str, value: Duration, low: Duration, high: Duration) -> Option<String> {
    let is_right = value >= low && value <= high;
    let words = |d: &Duration| d.render();
    (!is_right).then(|| {
        format!(
            "{name} is {}; it has to be {} to {}",
            words(&value),
            words(&low),
            words(&high)
        )
    })
}

fn absolute(name: &str, path: Option<&PathBuf>) -> Option<String> {
    let path = path.filter(|path| !path.is_absolute())?;
    Some(format!(
        "{name} is {}; it has to be an absolute path",
        path.display()
    ))
}

/// Whether URLs can begin with it.
fn is_base(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    is_http && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none()
}

fn is_usable_pool(pool: &Cidr) -> bool {
    let text = pool.to_string();
    let prefix = text
        .split_once('/')
        .and_then(|(_, bits)| bits.parse::<u8>().ok());
    !text.contains(':') && prefix.is_some_and(|bits| (8..=30).contains(&bits))
}

/// Makes the tree, its defaults, its documentation and its setter from one table.
macro_rules! config {
    ($(
        #[doc = $section_doc:literal]
        $section:ident: $struct:ident {
            $(#[doc = $doc:literal] $key:ident: $ty:ty = $default:literal;)*
        }
    )*) => {
        /// The whole configuration.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Config {
            $(#[doc = $section_doc] pub $section: $struct,)*
        }

        $(
            #[doc = $section_doc]
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $struct {
                $(#[doc = $doc] pub $key: $ty,)*
            }

            impl Default for $struct {
                fn default() -> Self {
                    Self { $($key: Value::parse($default).expect("a test parses each default"),)* }
                }
            }
        )*

        const SECTIONS: &[&str] = &[$(stringify!($section)),*];

        /// The keys of a section; none for one that does not exist.
        fn keys_of(section: &str) -> &'static [&'static str] {
            $(if section == stringify!($section) { return &[$(stringify!($key)),*]; })*
            &[]
        }

        impl Config {
            /// Sets one key that exists.
            fn assign(&mut self, section: &str, key: &str, text: &str) -> Result<(), String> {
                $($(
                    if section == stringify!($section) && key == stringify!($key) {
                        self.$section.$key = Value::parse(text)?;
                    }
                )*)*
                Ok(())
            }

            fn entries(&self) -> Vec<Entry> {
                vec![$($(Entry {
                    section: stringify!($section),
                    section_doc: $section_doc.trim_ascii(),
                    key: stringify!($key),
                    doc: $doc.trim_ascii(),
                    kind: <$ty as Value>::KIND,
                    default: $default,
                    is_quoted: <$ty as Value>::IS_QUOTED,
                    value: self.$section.$key.render(),
                },)*)*]
            }
        }
    };
}

config! {
    /// Where Coffer keeps what it must not forget.
    state: State {
        /// State directory: SQLite, keys, volumes; without root `~/.local/share/coffer` by default.
        dir: PathBuf = "/var/lib/coffer";
        /// The store; with none, SQLite in the state directory.
        store_url: Option<StoreUrl> = "";
    }
    /// The REST API and the built-in identity.
    api: Api {
        /// Address and port to listen on; port 0 takes a free one.
        listen: SocketAddr = "127.0.0.1:8779";
        /// Plain HTTP instead of TLS; on a loopback address only.
        insecure_http: bool = "false";
        /// Base of the URLs in catalog and version documents; with none, what the client used.
        public_endpoint: Option<String> = "";
        /// Region in the catalog.
        region: String = "RegionOne";
        /// Datastore of a new instance whose request names none; with none, it has to name one.
        default_datastore: Option<String> = "postgresql";
        /// Requests a minute for each project and verb; 0 for no limit.
        rate_limit_per_minute: u32 = "200";
        /// Largest request body.
        body_limit: ByteSize = "1MiB";
        /// How long a token is valid.
        token_lifetime: Duration = "12h";
    }
    /// The local provider: sandboxes on this host.
    local: Local {
        /// Where volumes lie; with none, `pool` in the state directory. A real XFS is best.
        pool_dir: Option<PathBuf> = "";
        /// How volumes are kept: see `coffer doctor` for what each mode costs here.
        volume_mode: VolumeMode = "auto";
        /// Pool file of mode `cow`, taken at the first start; 0: half of what is free; unit: GiB.
        cow_pool_gib: u32 = "0";
        /// Engine roots; shared by every Coffer of this host.
        roots_dir: PathBuf = "/var/cache/coffer/roots";
        /// Range of published addresses, routed to this host; with none, a private one is chosen.
        published_pool: Option<Cidr> = "";
        /// Publish ports of this host's address, `ADDRESS:FIRST-LAST`, not addresses of their own.
        published_ports: Option<HostPorts> = "";
        /// First of the user ids given to sandboxes, two for each.
        uid_base: u32 = "200000";
        /// The executable `coffer-guest`; with none, the one beside `coffer`.
        guest_binary: Option<PathBuf> = "";
    }
    /// What projects may have.
    limits: Limits {
        /// Largest volume of one instance; unit: GiB.
        max_volume_gib: u32 = "100";
        /// Default quota of instances; -1 for no limit.
        quota_instances: i64 = "10";
        /// Default quota of all volumes together; unit: GiB.
        quota_volumes_gib: i64 = "40";
        /// Default quota of memory of all instances together; unit: MiB.
        quota_ram_mib: i64 = "-1";
        /// Default quota of backups.
        quota_backups: i64 = "50";
    }
    /// The task manager.
    taskmanager: Taskmanager {
        /// Tasks worked on at the same time.
        workers: u32 = "32";
        /// Silence after which another worker takes a task over; the same for all of a store.
        lease: Duration = "20s";
    }
    /// How long history is kept. What lives, and what is still named by something kept, stays.
    retention: Retention {
        /// Tasks that ended, with their steps; the newest of each kind stays with its instance.
        tasks: Duration = "7d";
        /// Events of instances.
        events: Duration = "30d";
        /// Rows of deleted instances, once their tasks and events are gone.
        instances: Duration = "90d";
        /// The audit trail; not shorter than the others.
        audit: Duration = "400d";
    }
    /// The conductor.
    conductor: Conductor {
        /// How long a guest that has nothing to say may hold the conductor's question.
        poll: Duration = "10s";
        /// Silence after which an instance is shown as lost.
        lost_after: Duration = "90s";
    }
    /// The tracker: the control side's way into guests.
    tracker: Tracker {
        /// Guests are dialled inside their own namespace, or as a member of the tenant network.
        link: TrackerLink = "instance";
        /// Where its relay listens, over mutual TLS: an address that every API reaches.
        listen: SocketAddr = "127.0.0.1:0";
    }
    /// Logging.
    log: Log {
        /// Form of the lines.
        format: LogFormat = "text";
        /// Least severe level, or a filter such as `info,coffer_control=debug`.
        level: LogFilter = "info";
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn from_file(text: &str) -> Result<Config, ConfigError> {
        Config::from_parts(Some(("coffer.toml", text)), [], &[])
    }

    fn variable(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn the_defaults_are_right_and_survive_their_own_rendering() {
        let config = Config::from_parts(None, [], &[]).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(from_file(&config.render_masked()).unwrap(), config);
    }

    #[test]
    fn later_sources_win() {
        let file = Some(("f", "[api]\nregion = \"file\"\n[log]\nlevel = \"debug\"\n"));
        let variables = [variable("COFFER__API__REGION", "variable")];
        let config = Config::from_parts(file, variables.clone(), &[]).unwrap();
        assert_eq!(
            (config.api.region.as_str(), config.log.level.as_str()),
            ("variable", "debug")
        );
        let flags = [("api.region", "flag".to_owned())];
        let config = Config::from_parts(file, variables, &flags).unwrap();
        assert_eq!(config.api.region, "flag");
    }

    #[test]
    fn all_mistakes_come_at_once_with_the_nearest_right_name() {
        let text = "stray = 1\nlisten = 2\n[api]\nlisen = \"127.0.0.1:1\"\nlisten = \"here\"\n\
                    workers = 3\n[lmits]\nmax = 1\n[taskmanager]\nworkers = [1]\nlease = \"5\"\n\
                    [local]\nuid_base = 7\npool_dir = \"pool\"\n";
        let variables = [variable("COFFER__API__REGIO", "x")];
        let flags = [("nothing.at_all", String::new())];
        let error = Config::from_parts(Some(("f", text)), variables, &flags).unwrap_err();
        let expected = [
            "f: there is no key api.lisen; did you mean api.listen?",
            "f: api.listen: 'here' is not an address and port",
            "f: there is no key api.workers; did you mean taskmanager.workers?",
            "f: listen has to stand below [api]",
            "f: there is no section [lmits]; did you mean [limits]?",
            "f: stray stands outside every section",
            "f: taskmanager.lease: '5' is not a duration; write 500ms, 90s, 5m, 12h or 7d",
            "f: taskmanager.workers holds a array; a single value is meant",
            "COFFER__API__REGIO: there is no key api.regio; did you mean api.region?",
            "--set nothing.at_all: there is no key nothing.at_all",
            "local.uid_base is 7; it has to be 10000 to 4000000000",
            "local.pool_dir is pool; it has to be an absolute path",
        ];
        for mistake in expected {
            assert!(
                error.mistakes.iter().any(|m| m == mistake),
                "{mistake} not in {error}"
            );
        }
        assert_eq!(error.mistakes.len(), expected.len(), "{error}");
    }

    #[test]
    fn a_misspelt_level_or_endpoint_is_a_mistake_like_any_other() {
        let text =
            "[log]\nlevel = \"inof\"\n[api]\npublic_endpoint = \"https://\"\nlisten = \"x\"\n";
        let error = from_file(text).unwrap_err();
        assert_eq!(error.mistakes.len(), 3, "{error}");
        let words = error.to_string();
        assert!(words.contains("log.level: 'inof'") && words.contains("write error, warn, info"));
        let level = |text: &str| from_file(&format!("[log]\nlevel = \"{text}\"\n"));
        for good in [
            "debug",
            "WARN",
            "info,coffer_control=debug",
            "off,hyper::proto=trace",
        ] {
            assert_eq!(level(good).unwrap().log.level.as_str(), good);
        }
        for bad in [
            "",
            "info,",
            "info, debug",
            "coffer_control=inof",
            "=debug",
            "3",
            "coffer_control",
        ] {
            assert!(level(bad).is_err(), "{bad}");
        }
        let store = |text: &str| from_file(&format!("[state]\nstore_url = \"{text}\"\n"));
        assert!(store("sqlite:///var/lib/x.db").is_ok() && store("sqlite://x.db").is_err());
        let endpoint = |text: &str| from_file(&format!("[api]\npublic_endpoint = \"{text}\"\n"));
        for good in ["https://db.example:8779", "http://10.0.0.1/db", ""] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "db.example",
            "https://",
            "https:// db",
            "ftp://x",
            "https://db/?a=b",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_stays_on_loopback() {
        let open = "[api]\ninsecure_http = true\nlisten = \"0.0.0.0:8779\"\n";
        assert!(from_file(open).unwrap_err().mistakes[0].contains("loopback"));
        assert!(from_file("[api]\ninsecure_http = true\nlisten = \"[::1]:0\"\n").is_ok());
    }

    #[test]
    fn a_password_in_the_store_url_is_masked_everywhere() {
        let url = "postgresql://coffer:s3cret@db.example/coffer?sslkey=s3cret";
        let config = from_file(&format!("[state]\nstore_url = \"{url}\"\n")).unwrap();
        assert_eq!(config.store_url(), url);
        for text in [config.render_masked(), format!("{config:?}")] {
            assert!(
                !text.contains("s3cret") && text.contains("coffer:***@db.example"),
                "{text}"
            );
        }
        let error = from_file("[state]\nstore_url = \"s3cret\"\n")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn the_audit_trail_is_kept_longest_and_nothing_too_short() {
        let kept = |text: &str| from_file(&format!("[retention]\n{text}\n"));
        assert!(kept("tasks = \"1d\"\naudit = \"90d\"").is_ok());
        for bad in ["audit = \"89d\"", "events = \"401d\"", "tasks = \"23h\""] {
            assert_eq!(kept(bad).unwrap_err().mistakes.len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_published_pool_is_checked() {
        let pool = |text: &str| from_file(&format!("[local]\npublished_pool = \"{text}\"\n"));
        assert!(pool("10.9.0.0/24").is_ok() && pool("").is_ok());
        for bad in ["fd00::/64", "10.9.0.0/31", "everywhere"] {
            assert!(pool(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_documentation_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
        let text = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(text, Config::docs_markdown(), "run cargo xtask docs");
    }
}
