//! A password from a file or from the terminal, where it is not shown.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::failure::{Failure, Result};

/// LIMIT: longest password; unit: bytes.
const PASSWORD_MAX: u64 = 4_096;

/// The first line of the file, or what is typed at the question.
pub fn read(question: &str, file: Option<&Path>) -> Result<String> {
    match file {
        Some(path) => {
            let shown = path.display();
            let opened = File::open(path).map_err(|e| Failure::usage(format!("read {shown}: {e}")));
            first_line(opened?, &shown.to_string())
        }
        None => ask(question),
    }
}

fn ask(question: &str) -> Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let Ok(mut terminal) = terminal else {
        return Err(Failure::usage(
            "there is no terminal to ask on: name a file with it",
        ));
    };
    if !terminal.is_terminal() {
        return Err(Failure::usage(
            "the password is asked for on a terminal only",
        ));
    }
    let cannot = |e: &dyn std::fmt::Display| Failure::failed(format!("ask for the password: {e}"));
    write!(terminal, "{question}: ").map_err(|e| cannot(&e))?;
    let hidden = Hidden::new(terminal.try_clone().map_err(|e| cannot(&e))?)?;
    let line = first_line(
        terminal.try_clone().map_err(|e| cannot(&e))?,
        "the terminal",
    );
    drop(hidden);
    writeln!(terminal).map_err(|e| cannot(&e))?;
    line
}

fn first_line(source: impl Read, name: &str) -> Result<String> {
    let mut line = String::new();
    let read = BufReader::new(source.take(PASSWORD_MAX)).read_line(&mut line);
    read.map_err(|e| Failure::usage(format!("read the password from {name}: {e}")))?;
    let line = line.trim_end_matches(['\r', '\n']);
    match line.is_empty() {
        true => Err(Failure::usage(format!("{name} holds no password"))),
        false => Ok(line.to_owned()),
    }
}

/// A terminal that does not show what is typed, until dropped.
struct Hidden<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> Hidden<T> {
    fn new(terminal: T) -> Result<Self> {
        let cannot = |e: nix::Error| Failure::failed(format!("hide the password: {e}"));
        let before = tcgetattr(&terminal).map_err(cannot)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet).map_err(cannot)?;
        Ok(Self { terminal, before })
    }
}

impl<T: AsFd> Drop for Hidden<T> {
    fn drop(&mut self) {
        // The terminal may be gone.
        tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line() {
        assert_eq!(first_line(&b"s3 cret\nmore\n"[..], "f").unwrap(), "s3 cret");
        assert!(first_line(&b"\n"[..], "f").is_err());
    }
}
