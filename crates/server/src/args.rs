//! What the command line of `coffer` takes.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use coffer_control::config::Config;

use crate::refusal::usage;

/// Database-as-a-Service for people who own their machines.
#[derive(Debug, Parser)]
#[command(name = "coffer", version, propagate_version = true)]
#[command(after_help = coffer_cli::EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: coffer_cli::Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process
    Up(Place),
    /// Run the REST API only
    Api(Place),
    /// Run the task manager only
    TaskManager(Place),
    /// Run the conductor only
    Conductor(Place),
    /// Run the tracker only: the way into this host's instances for `coffer connect`
    Tracker(Place),
    /// Make the schema of a store that is new; one that was used is for `coffer upgrade`
    Migrate(Place),
    /// Print the configuration that holds, with secrets masked
    #[command(args_conflicts_with_subcommands = true)]
    Config {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: Option<ConfigCommand>,
    },
    /// Look at this host and say what is missing and what it means
    Doctor(Place),
    /// Print the certificate of Coffer's own CA, or of a project's databases
    Ca(Ca),
    /// Engine roots: what instances run from
    Image {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Back up and restore what Coffer must not forget
    State {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: StateCommand,
    },
    /// Rotate the keys under which secrets are sealed
    Key {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Bring an older state to this version, with a way back; databases go on serving
    Upgrade {
        #[command(flatten)]
        place: Place,
        /// The PostgreSQL store was backed up by pg_dump; a SQLite store is kept by itself
        #[arg(long)]
        store_is_backed_up: bool,
        /// Do nothing where no Coffer has started yet: for a service that starts afterwards
        #[arg(long)]
        if_started: bool,
    },
    /// Print the API's description
    #[command(hide = true)]
    Openapi,
    #[command(flatten)]
    Verb(coffer_cli::Verb),
}

/// Which Coffer is meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Place {
    /// Configuration file (docs/config.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// State directory
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Address and port of the API
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// Plain HTTP; on a loopback address only
    #[arg(long)]
    pub(crate) insecure_http: bool,
    /// Any other key
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl Place {
    /// The configuration that holds.
    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        let mut flags: Vec<(&str, String)> = Vec::new();
        if let Some(dir) = &self.state_dir {
            flags.push(("state.dir", dir.display().to_string()));
        }
        if let Some(listen) = &self.listen {
            flags.push(("api.listen", listen.clone()));
        }
        if self.insecure_http {
            flags.push(("api.insecure_http", "true".to_owned()));
        }
        for one in &self.set {
            let (key, value) = one
                .split_once('=')
                .ok_or_else(|| usage(format!("--set {one}: write it as section.key=value")))?;
            flags.push((key, value.to_owned()));
        }
        Ok(Config::load(self.config.as_deref(), &flags)?)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print it; the same as without this word
    Show(Place),
}

/// Whose certificate.
#[derive(Debug, clap::Args)]
pub(crate) struct Ca {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Name or id of a project: the CA of its databases
    #[arg(long)]
    pub(crate) project: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build the engine root of a recipe, unless it is there
    Build {
        /// Name of a recipe, or path of one
        name: String,
        /// Build even if it is there, to take newer packages
        #[arg(long)]
        again: bool,
    },
    /// List engine roots
    List,
    /// Remove an engine root
    Remove {
        /// Recipe, checksum or beginning of one
        name: String,
    },
    /// Compare an engine root with what was built
    Verify {
        /// Recipe, checksum or beginning of one
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Write a backup of the state, also while Coffer runs
    Backup {
        /// File to write, or directory to write a new file in
        target: PathBuf,
        /// Seal the master key and the credentials into it, by a passphrase that is asked for
        #[arg(long)]
        seal: bool,
        /// The same, with the passphrase in the first line of a file
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Put a backup into a state directory that has no store
    Restore {
        /// The backup
        file: PathBuf,
        /// File with the passphrase; with none it is asked for
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// The master key, if it is neither sealed in the backup nor in the state directory
        #[arg(long, value_name = "FILE")]
        master_key: Option<PathBuf>,
    },
    /// Show what a restored state does not know
    Report,
    /// Adopt what was created since the backup, forget what was deleted, and go on
    Confirm {
        /// Let what nothing is known of be removed
        #[arg(long)]
        discard_unknown: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Bring a new key into use and seal anew what is under the old one, also while Coffer runs
    Rotate {
        /// Name or id of a project: its key; with none, the master key
        #[arg(long)]
        project: Option<String>,
    },
    /// Say which keys there are
    Status,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        let args = Args::try_parse_from([&["coffer", "config"][..], words].concat()).unwrap();
        let Command::Config { place, command } = args.command else {
            panic!("{words:?} is not config");
        };
        let place = match command {
            Some(ConfigCommand::Show(place)) => place,
            None => place,
        };
        place.load().unwrap().render_masked()
    }

    #[test]
    fn config_is_shown_with_and_without_the_word() {
        let url = "state.store_url=postgresql://coffer:s3cret@db/coffer";
        for words in [&["show", "--set", url][..], &["--set", url]] {
            let text = shown(words);
            assert!(
                text.contains("coffer:***@db") && !text.contains("s3cret"),
                "{text}"
            );
        }
        let both = ["coffer", "config", "--set", url, "show"];
        assert!(Args::try_parse_from(both).is_err());
        let level = ["--set", "log.level=inof"];
        let args = Args::try_parse_from([&["coffer", "config"][..], &level].concat()).unwrap();
        let Command::Config { place, .. } = args.command else {
            panic!("it is config");
        };
        assert!(place.load().unwrap_err().to_string().contains("inof"));
    }
}
