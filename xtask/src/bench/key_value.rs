//! redis-benchmark and valkey-benchmark, each of its engine's own root.
//!
//! They log in as root (the user `default`), because they look at the server's settings first and
//! give up when they may not.

use anyhow::{Result, ensure};

use super::client::{Client, PASSWORD};
use super::data_path::Target;
use crate::process::Program;

/// Keys that are set and asked for.
pub const KEYS: &str = "100000";
/// Requests of each kind in one half of a pair, and as many more in a pipeline.
const REQUESTS: u32 = 200_000;
const MORE_PIPED: u32 = 8;
/// Requests of each kind in a smoke run.
const FEW: u32 = 1_000;
/// What is asked.
const KINDS: [&str; 2] = ["SET", "GET"];

/// Requests of each kind, `depth` of them at a time in a pipeline.
fn requests(depth: u32, is_smoke: bool) -> u32 {
    match (is_smoke, depth) {
        (true, _) => FEW,
        (_, 1) => REQUESTS,
        _ => REQUESTS * MORE_PIPED,
    }
}

/// A load of as many sets as gets; [`read`] finds in its output how many there were.
pub fn load(client: &Client, target: &Target<'_>, depth: u32, is_smoke: bool) -> Program {
    let requests = requests(depth, is_smoke);
    let mut words = client.program(&format!("{}-benchmark", client.engine.name));
    let (port, requests) = (target.port.to_string(), requests.to_string());
    let (depth, ca) = (depth.to_string(), target.ca.display().to_string());
    let kinds = KINDS.join(",").to_lowercase();
    let more = [
        "-h",
        target.address,
        "-p",
        &port,
        "--tls",
        "--cacert",
        &ca,
        "-a",
        PASSWORD,
        "-t",
        &kinds,
        "-n",
        &requests,
        "-r",
        KEYS,
        "-P",
        &depth,
        "--csv",
    ];
    words.extend(more.map(str::to_owned));
    target.program(&words)
}

/// How many requests a load has made, if it says of each kind, in lines such as
/// `"SET","54054.05","0.4"`, that it did.
pub fn read(text: &str, depth: u32, is_smoke: bool) -> Result<f64> {
    for kind in KINDS {
        let begin = format!("\"{kind}\",\"");
        let is_told = text.lines().any(|line| line.starts_with(&begin));
        ensure!(is_told, "find {kind} in what the benchmark printed: {text}");
    }
    let kinds = u32::try_from(KINDS.len())?;
    Ok(f64::from(kinds * requests(depth, is_smoke)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_did_not_get_to_both_kinds_is_none() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"30000.00\",\"0.8\"\n";
        assert!(read(text, 1, true).is_err());
        let text = format!("{text}\"GET\",\"60000.00\",\"0.4\"\n");
        assert_eq!(read(&text, 1, true).unwrap(), 2_000.0);
        assert!(read("ERROR: failed to fetch CONFIG", 1, true).is_err());
    }
}
