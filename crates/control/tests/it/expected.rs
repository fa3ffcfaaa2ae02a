//! JSON that is compared with a checked-in file.
//!
//! Ids and times of the test world are the same in every run, so that nothing is masked. To accept
//! a change: `COFFER_UPDATE_EXPECTED=1 cargo test -p coffer-control --test it`, then read the diff.

use std::path::PathBuf;

use serde_json::Value;

/// Compares `found` with `expected/NAME.json`.
#[track_caller]
pub(crate) fn assert_expected(name: &str, found: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/expected")
        .join(format!("{name}.json"));
    let mut text = serde_json::to_string_pretty(found).unwrap();
    text.push('\n');
    if std::env::var_os("COFFER_UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, known, "{} differs", path.display());
}
