//! What commands print: tables for people, JSON for programs. Standard output carries only that.
//!
//! A reader that has seen enough (`coffer instance list | head`) ends a command quietly; anything
//! else that keeps the output from its reader is a failure.

use std::io::{self, ErrorKind, Write as _};

use serde_json::Value;

use crate::Options;
use crate::failure::{Failure, Result};

/// A column: its title, and the place of its value in a row as a JSON pointer.
pub type Column = (&'static str, &'static str);

/// Widest cell of a table; longer text is cut. Unit: characters.
const CELL_MAX: usize = 80;

/// Prints rows as a table, or as a JSON array.
pub fn rows(options: &Options, columns: &[Column], rows: &[Value]) -> Result<()> {
    if options.json {
        return json(&Value::Array(rows.to_vec()));
    }
    let cells = |row: &Value| {
        columns
            .iter()
            .map(|(_, place)| cut(&cell(row, place)))
            .collect()
    };
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|(t, _)| (*t).to_owned()).collect()];
    lines.extend(rows.iter().map(cells));
    emit(&aligned(&lines))
}

/// Prints one object as lines of name and value, or as JSON.
pub fn object(options: &Options, columns: &[Column], value: &Value) -> Result<()> {
    if options.json {
        return json(value);
    }
    let filled = columns
        .iter()
        .filter(|(_, place)| !is_absent(value.pointer(place)));
    let lines: Vec<_> = filled
        .map(|(title, place)| vec![(*title).to_owned(), cell(value, place)])
        .collect();
    emit(&aligned(&lines))
}

/// Prints a sentence for people; with `--json`, an object that says the same.
pub fn done(options: &Options, words: &str, value: &Value) -> Result<()> {
    match options.json {
        true => json(value),
        false => emit(&format!("{}\n", printable(words))),
    }
}

/// Prints a JSON value.
pub fn json(value: &Value) -> Result<()> {
    emit(&format!("{value:#}\n"))
}

/// Writes text to standard output as it is.
pub fn emit(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    unless_unread(written)
        .map_err(|error| Failure::failed(format!("write to standard output: {error}")))
}

/// Writes a line to standard error; where nobody reads that, nobody is told.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}

/// A reader that went away has what it wanted.
fn unless_unread(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Text without what a terminal would act on.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

fn is_absent(value: Option<&Value>) -> bool {
    value.is_none_or(|v| v.is_null() || v.as_array().is_some_and(Vec::is_empty))
}

/// A value in words.
fn cell(row: &Value, place: &str) -> String {
    row.pointer(place).map_or_else(|| "-".to_owned(), words)
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => match (fields.get("address"), fields.get("name")) {
            (Some(address), _) => address_words(address, value),
            (None, Some(name)) => words(name),
            (None, None) => printable(&value.to_string()),
        },
    }
}

fn address_words(address: &Value, whole: &Value) -> String {
    let kind = whole
        .get("type")
        .map_or_else(String::new, |kind| format!(" ({})", words(kind)));
    format!("{}{kind}", words(address))
}

fn cut(text: &str) -> String {
    let line = text.replace('\n', " ");
    match line.char_indices().nth(CELL_MAX) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// Lines whose columns begin at the same place; the last one is not padded.
fn aligned(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        lines
            .iter()
            .filter_map(|l| Some(l.get(i)?.chars().count()))
            .max()
    };
    let widths: Vec<usize> = (0..count).map(|i| width(i).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_values_are_words() {
        let lines = vec![
            vec!["name".to_owned(), "status".to_owned()],
            vec!["a long name".to_owned(), "ACTIVE".to_owned()],
        ];
        assert_eq!(
            aligned(&lines),
            "name         status\na long name  ACTIVE\n"
        );
        let row =
            json!({"a": [{"address": "10.0.0.1", "type": "private"}, {"name": "x"}], "b": null});
        assert_eq!(cell(&row, "/a"), "10.0.0.1 (private), x");
        assert_eq!(
            (cell(&row, "/b"), cell(&row, "/c")),
            ("-".to_owned(), "-".to_owned())
        );
    }

    #[test]
    fn only_a_reader_that_left_is_no_failure() {
        assert!(unless_unread(Err(ErrorKind::BrokenPipe.into())).is_ok());
        assert!(unless_unread(Err(ErrorKind::StorageFull.into())).is_err());
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(words(&json!("a\u{1b}[2Jb")), "a\u{fffd}[2Jb");
        assert_eq!(cut(&"x".repeat(100)).chars().count(), CELL_MAX + 1);
    }
}
