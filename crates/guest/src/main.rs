//! The executable `coffer-guest`: `init`, `agent`, `bootstrap`, and `engine-tool` for what has to
//! happen under the engine's user.

use std::process::ExitCode;

use coffer_guest::{agent, init};

const USAGE: &str = "usage: coffer-guest init | bootstrap | agent [--bootstrap] | \
                     engine-tool OPERATION... | --version";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["init"] => ended(init::run(init::Mode::Instance)),
        ["bootstrap"] => ended(init::run(init::Mode::Bootstrap)),
        ["agent"] => ended(agent::run_under_init()),
        ["agent", "--bootstrap"] => ended(agent::bootstrap_under_init()),
        ["engine-tool", ..] => match coffer_engines::tool::run(&args[1..]) {
            Ok(word) => {
                println!("{word}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.to_string()),
        },
        ["--version"] => {
            println!("coffer-guest {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => fail(USAGE),
    }
}

fn ended(result: coffer_guest::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("coffer-guest: {message}");
    ExitCode::FAILURE
}
