//! Checks of single source files: head, sizes, width, words.

use super::Source;

/// Longest line; unit: characters.
const COLUMNS_MAX: usize = 100;
/// Longest file; unit: lines.
const FILE_LINES_MAX: usize = 1_000;
/// Longest function; unit: lines of code in its body, as clippy counts them.
const FUNCTION_LINES_MAX: usize = 70;

/// How many lines before a function may hold its reason for being longer.
const ATTRIBUTES_MAX: usize = 4;

/// Words for which the vocabulary has another; looked for in what is declared.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("customer", "tenant"),
    ("daemon", "agent or server"),
    ("dbtype", "datastore"),
    ("epoch", "generation"),
    ("job", "task"),
    ("leader", "primary"),
    ("master", "primary"),
    ("reporter", "guest agent"),
    ("saga", "workflow"),
    ("slave", "replica"),
    ("standby", "replica"),
    ("strand", "task"),
    ("vip", "endpoint"),
];

/// Declarations that keep another word, because it is the name of a thing that is not ours.
const NOT_OURS: &[&str] = &[
    // The key that encrypts the projects' keys is called so everywhere.
    "master_key",
    "MasterKey",
];

/// Marks of work put off, which belong into the issue tracker.
const PUT_OFF: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// What is wrong with one file.
pub fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| {
        findings.push(format!("{}:{line}: {what}", source.path));
    };
    if !source.text.starts_with("//! ") {
        find(
            1,
            "no head: say in `//!` lines what the file is for".to_owned(),
        );
    }
    let count = source.text.lines().count();
    if count > FILE_LINES_MAX {
        find(
            count,
            format!("{count} lines; split it before {FILE_LINES_MAX}"),
        );
    }
    for (index, line) in source.text.lines().enumerate() {
        for what in check_line(source, line) {
            find(index + 1, what);
        }
    }
    if !source.is_test() {
        for function in functions(&source.text)
            .into_iter()
            .filter(|f| f.lines > FUNCTION_LINES_MAX)
        {
            let Function { name, line, lines } = function;
            find(
                line,
                format!("{name} has {lines} lines; at most {FUNCTION_LINES_MAX}"),
            );
        }
    }
    findings
}

/// Median and ninetieth percentile of functions and files, for the log.
pub fn summary(sources: &[Source]) -> String {
    let shipped = || sources.iter().filter(|source| !source.is_test());
    let mut files: Vec<_> = shipped()
        .map(|source| source.text.lines().count())
        .collect();
    let mut lines: Vec<_> = shipped()
        .flat_map(|source| functions(&source.text))
        .map(|f| f.lines)
        .collect();
    files.sort_unstable();
    lines.sort_unstable();
    let at = |sorted: &[usize], percent: usize| {
        sorted
            .get(sorted.len().saturating_sub(1) * percent / 100)
            .copied()
            .unwrap_or(0)
    };
    format!(
        "{} files (median {} lines, p90 {}), {} functions (median {}, p90 {})",
        files.len(),
        at(&files, 50),
        at(&files, 90),
        lines.len(),
        at(&lines, 50),
        at(&lines, 90)
    )
}

fn check_line(source: &Source, line: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if line.chars().count() > COLUMNS_MAX {
        findings.push(format!("more than {COLUMNS_MAX} columns"));
    }
    let comment = line.split_once("//").map_or("", |(_, comment)| comment);
    if PUT_OFF.iter().any(|mark| {
        comment
            .split(|c: char| !c.is_alphanumeric())
            .any(|w| w == *mark)
    }) {
        findings.push("work put off: do it, or write an issue".to_owned());
    }
    let code = line.trim_start();
    let is_glob = code.starts_with("use ") || code.starts_with("pub use ");
    if is_glob && code.contains("::*") && !source.is_test() && code != "use super::*;" {
        findings.push("a glob import hides where names come from".to_owned());
    }
    if let Some((name, word, ours)) = declared(code).and_then(foreign_word) {
        findings.push(format!("{name}: we say {ours}, not {word}"));
    }
    if code.contains(concat!("-----BEGIN ", "PRIVATE KEY")) && !source.is_test() {
        findings.push("a private key in the source".to_owned());
    }
    findings
}

/// The name that a line declares: of a type, trait, function or module.
fn declared(code: &str) -> Option<&str> {
    let mut words = code
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|w| !w.is_empty());
    let is_prefix =
        |w: &&str| matches!(*w, "pub" | "crate" | "super" | "async" | "const" | "unsafe");
    let keyword = words.find(|word| !is_prefix(word))?;
    matches!(keyword, "struct" | "enum" | "trait" | "fn" | "mod" | "type").then(|| words.next())?
}

/// The part of a name for which we have another word.
fn foreign_word(name: &str) -> Option<(&str, &'static str, &'static str)> {
    if NOT_OURS.iter().any(|kept| name.contains(kept)) {
        return None;
    }
    let parts = parts_of(name);
    let found = OTHER_WORDS
        .iter()
        .find(|(word, _)| parts.iter().any(|part| part == word))?;
    Some((name, found.0, found.1))
}

/// The words of an identifier, in lower case, singular.
fn parts_of(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in name.chars() {
        let is_break = c == '_' || c.is_uppercase();
        if is_break && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(String::new());
        }
        if let Some(last) = parts.last_mut().filter(|_| c != '_') {
            last.extend(c.to_lowercase());
        }
    }
    parts
        .into_iter()
        .map(|part| part.strip_suffix('s').unwrap_or(&part).to_owned())
        .collect()
}

/// A function and its length.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// The functions of formatted code: each ends at the first `}` with the indentation of its head.
fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = code.contains("fn ") && declared(code).is_some();
        let is_function = is_function && code.split("fn ").next().is_some_and(|p| !p.contains('='));
        let attributes = &lines[index.saturating_sub(ATTRIBUTES_MAX)..index];
        let is_excused = attributes
            .iter()
            .any(|line| line.contains("clippy::too_many_lines"));
        if !is_function || is_excused || line.ends_with(';') {
            continue;
        }
        let indent = line.len() - code.len();
        let at_indent = |l: &&str| l.get(..indent).is_some_and(|head| head.trim().is_empty());
        let is_end = |l: &&str| at_indent(l) && l.get(indent..).is_some_and(|t| t.starts_with('}'));
        let ends_head = |l: &&str| {
            let is_outer = at_indent(l) && l.get(indent..).is_some_and(|t| !t.starts_with(' '));
            is_outer && (l.ends_with('{') || l.ends_with(';'))
        };
        let rest = if line.ends_with('}') {
            &[][..]
        } else {
            &lines[index..]
        };
        let head = rest
            .iter()
            .position(ends_head)
            .map_or(rest.len(), |at| at + 1);
        let is_declaration = head > 0 && rest[head - 1].ends_with(';');
        let rest = if is_declaration {
            &[][..]
        } else {
            &rest[head..]
        };
        let end = rest.iter().position(is_end).unwrap_or(0);
        let is_code = |l: &&&str| !l.trim().is_empty() && !l.trim_start().starts_with("//");
        let length = rest[..end].iter().filter(is_code).count();
        let name = declared(code).unwrap_or_default().to_owned();
        found.push(Function {
            name,
            line: index + 1,
            lines: length,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&Source {
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let long = format!("//! x\n// {}\n", "é".repeat(98));
        let function = format!(
            "//! x\nfn long() {{\n{}}}\n",
            "    a();\n\n    // b\n".repeat(71)
        );
        let file = format!("//! x\n{}", "\n".repeat(1_000));
        let cases = [
            ("fn a() {}\n", "no head"),
            (long.as_str(), "columns"),
            (function.as_str(), "long has 71 lines"),
            (file.as_str(), "1001 lines"),
            (concat!("//! x\n// TO", "DO: later\n"), "put off"),
            ("//! x\nuse std::fs::*;\n", "glob"),
            ("//! x\npub(crate) struct SlaveList;\n", "replica"),
            ("//! x\nasync fn run_jobs() {}\n", "task"),
            (
                concat!("//! x\n// -----BEGIN ", "PRIVATE KEY\n"),
                "private key",
            ),
        ];
        for (text, expected) in cases {
            let found = findings("crates/a/src/b.rs", text);
            assert_eq!(found.len(), 1, "{expected}: {found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        let text = "//! x\nuse super::*;\nstruct MasterKey;\nfn objective() {}\nmod epochal;\n\
                    let slave = 1;\n// a todo list\n";
        assert_eq!(findings("crates/a/src/b.rs", text), Vec::<String>::new());
        let test = format!("//! x\nfn long() {{\n{}}}\n", "    a();\n".repeat(71));
        assert_eq!(
            findings("crates/a/tests/it/main.rs", &test),
            Vec::<String>::new()
        );
    }

    #[test]
    fn functions_are_measured_from_head_to_brace() {
        let text = "fn a() {}\nimpl X {\n    pub async fn b(\n        x: u8,\n    ) {\n        \
                    if x {\n        }\n    }\n    fn c();\n}\nlet f: fn(u8) = g;\n";
        let measured: Vec<_> = functions(text)
            .into_iter()
            .map(|f| (f.name, f.lines))
            .collect();
        assert_eq!(measured, [("a".to_owned(), 0), ("b".to_owned(), 2)]);
    }
}
