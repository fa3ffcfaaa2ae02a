//! Prints `docs/config.md`, for `cargo xtask docs`.

use coffer_control::config::Config;

fn main() {
    print!("{}", Config::docs_markdown());
}
