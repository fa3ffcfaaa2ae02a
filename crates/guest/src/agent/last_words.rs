//! What an engine said before it ended, for people: the last line that quotes no client.
//!
//! Engines print the statement that failed, or was at work when they crashed, and a statement may
//! hold a password. What is found here goes into logs and into the instance's history.

/// Longest line that is passed on, in characters.
const CHARS_MAX: usize = 300;

/// What stands in lines that quote what a client sent: PostgreSQL's of a statement, its parameters
/// and rows, and of what a process that crashed was doing; MySQL's and MariaDB's of a query;
/// Redis' and Valkey's of a command's arguments. And the words of secrets.
const QUOTES: [&str; 13] = [
    "statement:",
    "query:",
    "query (",
    "context:",
    "detail:",
    "parameters:",
    "execute ",
    "at or near",
    ")=(",
    "argv[",
    "password",
    "identified",
    "secret",
];

/// The last line of an engine's output that says something and quotes no client.
pub(super) fn of(output: &str) -> Option<String> {
    let is_told = |line: &&str| !line.trim().is_empty() && !is_quote(line);
    let last = output.lines().rev().find(is_told)?;
    Some(last.chars().take(CHARS_MAX).collect())
}

fn is_quote(line: &str) -> bool {
    // A statement's further lines are indented.
    let is_further = line.starts_with(char::is_whitespace);
    let line = line.to_lowercase();
    is_further || QUOTES.iter().any(|quote| line.contains(quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_told() {
        let output = "LOG:  starting\nFATAL:  could not write: No space left on device\n\n";
        let told = of(output).unwrap();
        assert_eq!(told, "FATAL:  could not write: No space left on device");
        assert_eq!(of("\n  \n"), None);
        assert_eq!(of(&"x".repeat(400)).unwrap().len(), CHARS_MAX);
    }

    #[test]
    fn what_a_client_sent_is_not() {
        for quoted in [
            "STATEMENT:  CREATE ROLE joe LOGIN\n\tVALID UNTIL 'never' PASSWORD 'p4ss'",
            "2026-11-30 10:00:00 UTC [7] DETAIL:  Failed process was running: SELECT 'p4ss'",
            "Query (0x7f2a): SELECT 'p4ss'",
            "12:M 30 Nov 2026 10:00:00.000 # argv[1]: '\"p4ss\"'",
            "LOG:  duration: 3.1 ms  statement: SELECT 'p4ss'",
            "DETAIL:  Failing row contains (1, p4ss).",
            "ERROR:  syntax error at or near \"p4ss\"",
            "[Warning] Access denied for IDENTIFIED BY 'p4ss'",
        ] {
            let told = of(&format!("before it\n{quoted}\n"));
            assert_eq!(told.as_deref(), Some("before it"), "{quoted}");
        }
    }
}
