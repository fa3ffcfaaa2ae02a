//! Work on the tree that cargo does not do: checks, generated files, the test rings, quickstart.
//!
//! Started as `cargo xtask COMMAND`; `./test` and `./quickstart` lead here as well.

pub mod bench;
pub mod edit;
pub mod generated;
pub mod leftovers;
pub mod package;
pub mod process;
pub mod quickstart;
pub mod recipes;
pub mod resource;
pub mod rings;
pub mod roots;
pub mod runners;
pub mod setup;
pub mod soak;
pub mod tidy;
pub mod upgrade_from;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::quickstart::Build;

const HELP: &str = "\
usage: cargo xtask COMMAND

  tidy               check what no compiler checks: sizes, heads, arrows, words, documents
  docs [--check]     write the generated files, or compare them
  test [RING...]     run the rings in order, all of them without a name: see --list
  test --list        name the rings
  bench [ROW...]     measure what is promised and write docs/benchmarks.md; --list names the rows,
                     --continue leaves out those that this build was measured by, --smoke runs
                     each once, --minutes=N goes on for so long with a row whose interval is wide
  test --soak NAME   run a repeated test as often as docs/soak.md is to say, or go on with it;
                     without a name: name those there are
  upgrade-from [REV] upgrade an earlier commit's Coffer to this tree's with tasks in flight, and
                     write docs/upgrades.md; without REV: from before the newest change of crates/
  package            build the Debian package and say where it is
  new-resource NAME  write the skeleton of an API resource (a word in the singular)
  quickstart [--once]
                     from this tree to a database of each engine; --once leaves nothing behind
";

/// Runs the command that the words name.
pub fn run(words: &[&str]) -> Result<ExitCode> {
    let root = &root()?;
    match words {
        ["tidy"] => println!("{}", tidy::run(root)?),
        ["docs"] => {
            for name in generated::write(root)? {
                println!("wrote {name}");
            }
        }
        ["docs", "--check"] => generated::check(root)?,
        ["test", "--list"] => println!("{}", rings::names().join("\n")),
        ["test", "--soak"] => println!("{}", soak::names().join("\n")),
        ["test", "--soak", name] => return soak::run(root, name),
        ["upgrade-from"] => return upgrade_from::run(root, None),
        ["upgrade-from", revision] => return upgrade_from::run(root, Some(revision)),
        ["package"] => println!("{}", package::run(root)?.display()),
        ["new-resource", name] => println!("{}", resource::write(root, name)?),
        ["test", names @ ..] => return rings::run(root, names),
        ["bench", "--list"] => println!("{}", bench::names().collect::<Vec<_>>().join("\n")),
        ["bench", words @ ..] => return bench::run(root, words),
        ["quickstart"] => quickstart::run(root, false, Build::Shipped)?,
        ["quickstart", "--once"] => quickstart::run(root, true, Build::Shipped)?,
        ["help" | "--help" | "-h"] => print!("{HELP}"),
        _ => bail!("{} is not known\n{HELP}", words.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The root of the tree.
fn root() -> Result<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(parent.context("find the root of the tree")?.to_owned())
}

/// Where cargo puts what it builds: this program's own directory.
fn built() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    Ok(program
        .parent()
        .context("find this program's directory")?
        .to_owned())
}
