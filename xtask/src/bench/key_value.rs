//! redis-benchmark and valkey-benchmark, each of its engine's own root.
//!
//! They log in as root (the user `default`), because they look at the server's settings first and
//! give up when they may not.

use anyhow::{Context, Result, ensure};

use super::client::{Client, PASSWORD};
use super::data_path::Target;

/// Keys that are set and asked for.
pub const KEYS: &str = "100000";
/// Requests of each kind in one half of a pair, and as many more in a pipeline.
const REQUESTS: u32 = 40_000;
const MORE_PIPED: u32 = 8;
/// Requests of each kind in a smoke run.
const FEW: u32 = 1_000;
/// What is asked.
const KINDS: [&str; 2] = ["SET", "GET"];

/// Requests per second, as many sets as gets; `depth` of them at a time in a pipeline.
pub fn rate(client: &Client, target: &Target<'_>, depth: u32, is_smoke: bool) -> Result<f64> {
    let requests = match (is_smoke, depth) {
        (true, _) => FEW,
        (_, 1) => REQUESTS,
        _ => REQUESTS * MORE_PIPED,
    };
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
    let text = target.output(&words)?;
    read(&text).with_context(|| format!("read what the benchmark printed: {text}"))
}

/// Reads lines such as `"SET","54054.05","0.4"`; as many requests of each kind were made, one kind
/// after the other.
fn read(text: &str) -> Result<f64> {
    let mut seconds_of_one = 0.0;
    for kind in KINDS {
        let begin = format!("\"{kind}\",\"");
        let rest = text.lines().find_map(|line| line.strip_prefix(&begin));
        let rest = rest.with_context(|| format!("find {kind}"))?;
        let number = rest.split('"').next().unwrap_or_default();
        let rate: f64 = number.parse().with_context(|| format!("read {kind}"))?;
        ensure!(rate > 0.0, "{kind} was not answered");
        seconds_of_one += 1.0 / rate;
    }
    Ok(f64::from(u8::try_from(KINDS.len())?) / seconds_of_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_count_by_the_time_they_took() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"30000.00\",\"0.8\"\n\
                    \"GET\",\"60000.00\",\"0.4\"\n";
        assert!((read(text).unwrap() - 40_000.0).abs() < 0.001);
        assert!(read("ERROR: failed to fetch CONFIG").is_err());
    }
}
