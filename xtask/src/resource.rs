//! `cargo xtask new-resource NAME`: the skeleton of an API resource, from the domain to the verb
//! of the command line, so that the tree builds and the tests name what is missing.
//!
//! The files are written from the templates beside this one; the lists that name files get their
//! line. Nothing that is there is written over.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::edit::{Place, edit, with};

/// Longest name; unit: characters.
const NAME_CHARS_MAX: usize = 32;

/// Path of each file, and its template.
const FILES: &[(&str, &str)] = &[
    (
        "crates/core/src/__name__/mod.rs",
        include_str!("resource/core.rs.txt"),
    ),
    (
        "crates/store/migrations/__number_____names__.sql",
        include_str!("resource/migration.sql.txt"),
    ),
    (
        "crates/store/src/__name__.rs",
        include_str!("resource/store.rs.txt"),
    ),
    (
        "crates/wire/src/rest/v1/__name__.rs",
        include_str!("resource/wire.rs.txt"),
    ),
    (
        "crates/control/src/app/__name__.rs",
        include_str!("resource/app.rs.txt"),
    ),
    (
        "crates/control/src/api/views/__names__.rs",
        include_str!("resource/view.rs.txt"),
    ),
    (
        "crates/control/src/api/resources/__names__.rs",
        include_str!("resource/resource.rs.txt"),
    ),
    (
        "crates/cli/src/__name__.rs",
        include_str!("resource/cli.rs.txt"),
    ),
];

/// File, where, and the text that is added.
const LINES: &[(&str, Place, &str)] = &[
    (
        "crates/core/src/lib.rs",
        Place::Sorted("pub mod "),
        "pub mod __name__;",
    ),
    (
        "crates/store/src/lib.rs",
        Place::Sorted("pub mod "),
        "pub mod __name__;",
    ),
    (
        "crates/wire/src/rest/v1/mod.rs",
        Place::Sorted("pub mod "),
        "pub mod __name__;",
    ),
    (
        "crates/control/src/app/mod.rs",
        Place::Sorted("pub mod "),
        "pub mod __name__;",
    ),
    (
        "crates/control/src/api/views/mod.rs",
        Place::Sorted("pub(super) mod "),
        "pub(super) mod __names__;",
    ),
    (
        "crates/control/src/api/resources/mod.rs",
        Place::Sorted("pub(super) mod "),
        "pub(super) mod __names__;",
    ),
    (
        "crates/control/src/api/router.rs",
        Place::After(".merge(resources::audit::router())"),
        "        .merge(resources::__names__::router())",
    ),
    (
        "crates/control/src/api/rules.rs",
        Place::Before("route(\"GET\", \"/networks\", "),
        "    route(\"GET\", \"/__names__\", Rule::project(\"coffer:__name__:index\")),\n    \
         route(\"GET\", \"/__names__/{__name___name}\", Rule::project(\"coffer:__name__:show\")),",
    ),
    (
        "crates/cli/src/lib.rs",
        Place::Sorted("pub mod "),
        "pub mod __name__;",
    ),
    (
        "crates/cli/src/lib.rs",
        Place::Before("/// Print the OS_* variables"),
        "    /// __Names__ of the project\n    #[command(subcommand)]\n    \
         __Name__(__name__::Command),",
    ),
    (
        "crates/cli/src/lib.rs",
        Place::Before("Verb::Status =>"),
        "        Verb::__Name__(command) => __name__::run(client, options, command).await,",
    ),
];

/// The forms of a resource's name.
struct Words {
    name: String,
    number: String,
}

impl Words {
    fn fill(&self, template: &str) -> String {
        let name = &self.name;
        let camel: String = name.split('_').map(capital).collect();
        let words = name.replace('_', " ");
        let plural = format!("{}s", capital(&words));
        // The longer forms first: `__names__` holds no `__name__`, but is held by `___names__`.
        template
            .replace("__names__", &format!("{name}s"))
            .replace("__name__", name)
            .replace("__Names__", &plural)
            .replace("__Name__", &camel)
            .replace("__words__", &words)
            .replace("__verb__", &name.replace('_', "-"))
            .replace("__number__", &self.number)
    }
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + rest
}

/// Writes the skeleton; what was done, line by line.
pub fn write(root: &Path, name: &str) -> Result<String> {
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
    let is_word = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(is_letter)
        && !name.ends_with(['s', '_'])
        && name.len() <= NAME_CHARS_MAX;
    ensure!(
        is_word,
        "'{name}' is not a name: lower-case words in the singular, such as alarm or backup_plan"
    );
    let words = Words {
        name: name.to_owned(),
        number: format!("{:04}", next_migration(root)?),
    };
    let files: Vec<(PathBuf, String)> = FILES
        .iter()
        .map(|(path, text)| (root.join(words.fill(path)), words.fill(text)))
        .collect();
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        bail!("{} is there already", path.display());
    }
    let mut done = Vec::new();
    for (path, text) in &files {
        let dir = path.parent().context("find the file's directory")?;
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        done.push(format!("wrote {}", path.display()));
    }
    for (path, place, text) in LINES {
        let path = root.join(path);
        edit(&path, |old| with(old, *place, &words.fill(text)))?;
        done.push(format!("changed {}", path.display()));
    }
    let migrations = root.join("crates/store/src/migrate.rs");
    edit(&migrations, |old| with_migration(old, &words))?;
    done.push(format!("changed {}", migrations.display()));
    done.push("next: cargo fmt --all, cargo check --workspace, cargo xtask docs".to_owned());
    Ok(done.join("\n"))
}

/// The number of the next migration.
fn next_migration(root: &Path) -> Result<u32> {
    let dir = root.join("crates/store/migrations");
    let entries = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.split('_').next()?.parse::<u32>().ok());
    Ok(numbers.max().unwrap_or(0) + 1)
}

/// The list of migrations with one more at its end.
fn with_migration(old: &str, words: &Words) -> Option<String> {
    let begin = old.find("MIGRATIONS:")?;
    let end = begin + old[begin..].find("];")?;
    let number = words.number.trim_start_matches('0');
    let before = old[..end].trim_end();
    let comma = if before.ends_with(',') { "" } else { "," };
    let entry =
        words.fill("\"__names__\", include_str!(\"../migrations/__number_____names__.sql\")");
    let rest = &old[end..];
    Some(format!("{before}{comma}\n    ({number}, {entry}),\n{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = crate::root().unwrap();
        let kept = LINES.iter().map(|(path, _, _)| *path);
        let migrations = [
            "crates/store/src/migrate.rs",
            "crates/store/migrations/0001_first.sql",
        ];
        for path in kept.chain(migrations) {
            let to = dir.path().join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root.join(path), to).unwrap();
        }
        dir
    }

    #[test]
    fn a_skeleton_has_every_file_and_every_line() {
        let dir = tree();
        write(dir.path(), "backup_plan").unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        let words = Words {
            name: "backup_plan".to_owned(),
            number: "0002".to_owned(),
        };
        for (path, _) in FILES {
            let text = read(&words.fill(path));
            assert!(!text.contains("__"), "{path}: {text}");
        }
        for (path, _, line) in LINES {
            assert!(read(path).contains(&words.fill(line)), "{path}");
        }
        assert!(read("crates/store/src/migrate.rs").contains("0002_backup_plans.sql"));
        assert!(read("crates/core/src/backup_plan/mod.rs").contains("pub struct BackupPlan"));
        let again = write(dir.path(), "backup_plan").unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", "Plan", "plans", "1st", "a-b", "_a", "a_"] {
            let refused = write(Path::new("/nonexistent"), name)
                .unwrap_err()
                .to_string();
            assert!(refused.contains("is not a name"), "{name}: {refused}");
        }
    }
}
