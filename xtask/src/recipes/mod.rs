//! Whether CONTRIBUTING.md's recipes are enough: each is followed by a toy on a scratch copy of the
//! tree, with no file touched but those that it names; the copy builds, and the toys pass what
//! newcomers are told by.
//!
//! All toys are built at once, with the libraries that the project's own build compiled. The copy
//! stays where it is, so that only what has changed is compiled again.

mod copy;
mod named;
mod toys;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::named::{Change, Recipe};
use self::toys::TOYS;
use crate::process::Program;
use crate::runners::{self, Ran, Runner};
use crate::{generated, tidy};

/// Packages whose tests tell of the toys, and the one that Coffer itself is in.
const PACKAGES: &[&str] = &[
    "coffer-control",
    "coffer-engines",
    "coffer-guest",
    "coffer-infra",
    "coffer-server",
    "coffer-testkit",
];

/// All of the project's libraries: they are compiled for what the toys' tests do with them, which
/// is little.
const OWN: &[&str] = &[
    "coffer-cli",
    "coffer-control",
    "coffer-core",
    "coffer-engines",
    "coffer-guest",
    "coffer-infra",
    "coffer-server",
    "coffer-store",
    "coffer-testkit",
    "coffer-wire",
];

/// What tells of the toys: program of tests, and which of its tests; all without a word. The
/// toy engine's own conformance is in the guest's, the toy step's harness in the testkit's.
const TOLD_BY: &[(&str, &[&str])] = &[
    (MATRIX.0, &["abacus", "capability", "matrix"]),
    ("coffer-guest-it", &["abacus"]),
    ("coffer-infra-coffer_infra", &["toy", "recipe"]),
    ("coffer-testkit-coffer_testkit", &[]),
    (
        "coffer-testkit-it",
        &["restart_under_every_fault", "scenario"],
    ),
    ("coffer-control-coffer_control", &["workflow"]),
    ("coffer-control-it", &[]),
];

/// What writes the README's matrix: program of tests, test, and variable.
const MATRIX: (&str, &str, &str) = (
    "coffer-engines-coffer_engines",
    "the_readme_shows",
    "COFFER_UPDATE_EXPECTED",
);

/// A program that does nothing but run the compiler. Where the tree is makes no difference to
/// cargo: the copy's crates would be taken for the project's, and those for the copy's. What was
/// compiled through a wrapper it keeps apart; the libraries go through none.
const WRAPPER: &str = "/usr/bin/env";

/// Where the scratch copy is, and what is built of it.
struct Scratch {
    /// The copy.
    tree: PathBuf,
    /// Its own programs: not beside the project's, which they would replace.
    programs: PathBuf,
    /// The project's build directory, for the libraries.
    libraries: PathBuf,
    log: PathBuf,
}

/// Follows the recipes in a directory, and answers how the tests ended that tell of it.
pub fn follow(root: &Path, dir: &Path, log: &Path) -> Result<Vec<Ran>> {
    let built = crate::built()?;
    let scratch = Scratch {
        tree: dir.join("tree"),
        programs: dir.join("target"),
        libraries: built.parent().context("find the build directory")?.into(),
        log: log.to_owned(),
    };
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).context("read CONTRIBUTING.md")?;
    let mut touched = scratch.put_toys(root, &dir.join("next"))?;
    let runners = scratch.build()?;
    let toys = copy::read(&scratch.tree)?;
    scratch.generate(&runners)?;
    let generated = copy::changes(&toys, &copy::read(&scratch.tree)?);
    let findings = findings(root, &text, &mut touched, generated)?;
    if !findings.is_empty() {
        bail!("CONTRIBUTING.md:\n  {}", findings.join("\n  "));
    }
    tidy::run(&scratch.tree).context("look whether the toys are tidy")?;
    scratch.run(&runners)
}

/// Where toys and recipes differ. What was generated belongs to the toy whose recipe names it.
fn findings(
    root: &Path,
    text: &str,
    touched: &mut [Vec<Change>],
    generated: Vec<Change>,
) -> Result<Vec<String>> {
    let is_top = |name: &str| !name.is_empty() && root.join(name).exists();
    let recipes = TOYS.iter().map(|t| Recipe::read(text, t.heading, is_top));
    let recipes = recipes.collect::<Result<Vec<_>>>()?;
    let mut findings = Vec::new();
    for change in generated {
        let owner = recipes.iter().position(|one| one.names(&change.path));
        match owner {
            Some(owner) => touched[owner].push(change),
            None => findings.push(format!("{} is generated and not named", change.path)),
        }
    }
    for ((toy, recipe), changes) in TOYS.iter().zip(&recipes).zip(touched) {
        let own = recipe.check(changes).into_iter();
        findings.extend(own.map(|finding| format!("{}: {finding}", toy.heading)));
    }
    Ok(findings)
}

impl Scratch {
    /// Makes the copy with all toys in it; what each toy touches.
    fn put_toys(&self, root: &Path, next: &Path) -> Result<Vec<Vec<Change>>> {
        copy::fill(root, &copy::project(root)?, next)?;
        let mut before = copy::read(next)?;
        let mut touched = Vec::new();
        for toy in TOYS {
            toy.put(next)
                .with_context(|| format!("put the toy {} into a copy", toy.name))?;
            let after = copy::read(next)?;
            touched.push(copy::changes(&before, &after));
            before = after;
        }
        copy::follow(next, &self.tree)?;
        Ok(touched)
    }

    /// Cargo in the copy, for all packages that are wanted.
    fn cargo(&self, words: &[&str]) -> Program {
        let packages = PACKAGES.iter().flat_map(|name| ["--package", name]);
        let mut words: Vec<&str> = words.iter().copied().chain(packages).collect();
        let quick: Vec<String> = OWN.iter().map(|name| unoptimised(name)).collect();
        words.extend(quick.iter().flat_map(|setting| ["--config", setting]));
        Program::new("cargo", &words)
            .in_dir(&self.tree)
            .with("CARGO_BUILD_BUILD_DIR", &self.libraries.to_string_lossy())
            .with("CARGO_TARGET_DIR", &self.programs.to_string_lossy())
            .with("RUSTC_WORKSPACE_WRAPPER", WRAPPER)
            .with("CARGO_INCREMENTAL", "0")
    }

    /// Builds the programs of tests, and those that write files of the tree.
    fn build(&self) -> Result<Vec<Runner>> {
        // With the examples come the features that tests ask for, so that both builds have the same
        // libraries.
        let words =
            "build --profile test --bin coffer --example config-docs --example workflow-docs";
        let words: Vec<&str> = words.split(' ').collect();
        self.cargo(&words)
            .logged(&self.log.with_extension("programs.log"))?;
        let words = "test --no-run --lib --test it --message-format json-render-diagnostics";
        let words: Vec<&str> = words.split(' ').collect();
        let messages = self.log.with_extension("json");
        self.cargo(&words)
            .logged_apart(&messages, &self.log.with_extension("tests.log"))?;
        runners::built(&messages)
    }

    /// Writes the files of the copy that programs write.
    fn generate(&self, runners: &[Runner]) -> Result<()> {
        generated::write_from(&self.tree, &self.programs.join("debug"))?;
        let (name, test, variable) = MATRIX;
        find(runners, name)?
            .program(&[test])
            .with(variable, "1")
            .output()
            .map(drop)
    }

    /// Runs what tells of the toys.
    fn run(&self, runners: &[Runner]) -> Result<Vec<Ran>> {
        let logs = self.log.with_extension("");
        let run = |(name, words): &(&str, &[&str])| {
            let runner = find(runners, name)?;
            Ok(runner.run(runner.program(words), &logs))
        };
        TOLD_BY.iter().map(run).collect()
    }
}

/// The setting that has a package compiled quickly.
fn unoptimised(package: &str) -> String {
    format!("profile.dev.package.{package}.opt-level=0")
}

fn find<'a>(runners: &'a [Runner], name: &str) -> Result<&'a Runner> {
    let found = runners.iter().find(|runner| runner.name() == name);
    found.with_context(|| format!("no program of tests is called {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_toy_has_its_recipe_here() {
        let root = crate::root().unwrap();
        let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
        for toy in TOYS {
            let is_top = |name: &str| !name.is_empty() && root.join(name).exists();
            Recipe::read(&text, toy.heading, is_top).unwrap();
        }
    }

    #[test]
    fn what_is_generated_is_of_the_toy_whose_recipe_names_it() {
        let root = crate::root().unwrap();
        let text: String = TOYS
            .iter()
            .map(|toy| format!("### {}\n\n1. `docs/{}.md`\n\n", toy.heading, toy.name))
            .collect();
        let change = |path: &str| Change {
            path: path.to_owned(),
            old: String::new(),
            new: "x".to_owned(),
        };
        let mut touched: Vec<Vec<Change>> = TOYS.iter().map(|_| Vec::new()).collect();
        let generated = ["engine", "provider", "step", "other"];
        let generated = generated.map(|name| change(&format!("docs/{name}.md")));
        let found = findings(&root, &text, &mut touched, generated.into()).unwrap();
        let expected = [
            "docs/other.md is generated and not named",
            "An API resource: docs/resource.md is named and not touched",
        ];
        assert_eq!(found, expected);
    }
}
