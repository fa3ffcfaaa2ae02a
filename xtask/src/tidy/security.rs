//! Checks of `docs/security.md` against the tests: each attempt that a line of its tables names is
//! made by one, and each test that it names is there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The document.
const PAGE: &str = "docs/security.md";
/// Where the tests are that it may name.
const TESTS: &[&str] = &["tests/e2e/tests/it", "crates/guest/tests/it/engine"];

/// A file of tests.
#[derive(Debug)]
struct Tests {
    /// The module that it is.
    module: String,
    text: String,
}

/// What the document names and no test has.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let mut tests = Vec::new();
    for dir in TESTS {
        read(&root.join(dir), &mut tests)?;
    }
    Ok(findings(&page, &tests))
}

fn read(dir: &Path, tests: &mut Vec<Tests>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry.context("read a test's name")?.path();
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let module = match stem {
            Some("mod") => dir.file_name().and_then(|name| name.to_str()),
            other => other,
        };
        tests.push(Tests {
            module: module.context("name a module")?.to_owned(),
            text: fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?,
        });
    }
    Ok(())
}

fn findings(page: &str, tests: &[Tests]) -> Vec<String> {
    let rows = page.lines().filter_map(|line| {
        let name = line.strip_prefix("| `")?.split('`').next()?;
        let is_tried = |one: &Tests| one.text.contains(&format!("\"{name}\""));
        (!tests.iter().any(is_tried)).then(|| format!("{PAGE}: no test makes the attempt {name}"))
    });
    // Every second piece stands between code marks.
    let marked = page
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let named = marked.filter_map(|words| {
        let (module, test) = words.split_once("::")?;
        let is_it = |one: &Tests| one.module == module && one.text.contains(&format!("fn {test}("));
        (!tests.iter().any(is_it)).then(|| format!("{PAGE}: there is no test {words}"))
    });
    rows.chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_without_a_test_and_a_test_that_is_not_there_are_found() {
        let tests = [Tests {
            module: "hostile".to_owned(),
            text: "const A: &str = \"mount\";\nfn all_are_refused() {}\n".to_owned(),
        }];
        let page = "`hostile::all_are_refused`, `hostile::others`, `other::all_are_refused`\n\
                    | attempt | what |\n| --- | --- |\n| `mount` | x |\n| `unmount` | y |\n";
        assert_eq!(
            findings(page, &tests),
            [
                "docs/security.md: no test makes the attempt unmount",
                "docs/security.md: there is no test hostile::others",
                "docs/security.md: there is no test other::all_are_refused",
            ]
        );
    }
}
