//! The probe: a real write, answered, and what the status tells beside it.
//!
//! The write is a key that is made and dropped within one transaction, so that no tenant ever
//! sees it, in no list and no count; its name is Coffer's all the same. What refuses a tenant's
//! writes (a full volume, full memory that nothing may be evicted from) refuses it too.

use sha2::{Digest, Sha256};

use crate::error::{EngineError, Result};
use crate::keyvalue::resp::Value;
use crate::keyvalue::session::{accept, ask_all};
use crate::keyvalue::{KeyValue, identity};
use crate::runtime::{EngineHost, ProbeReport};

/// The key.
const KEY: &str = "__coffer_probe__";

const REQUESTS: [&[&str]; 7] = [
    &["MULTI"],
    &["SET", KEY, "1"],
    &["DEL", KEY],
    &["EXEC"],
    &["INFO", "server"],
    &["INFO", "replication"],
    &["ACL", "LIST"],
];

/// Writes and reports.
pub(super) async fn probe(kind: &KeyValue, host: &dyn EngineHost) -> Result<ProbeReport> {
    let mut values = Vec::new();
    for answer in ask_all(host, &REQUESTS).await? {
        values.push(accept("write the probe", answer)?);
    }
    let [.., written, server, replication, users] = values.as_slice() else {
        return Err(missing());
    };
    if let Value::List(written) = written {
        for answer in written {
            accept("write the probe", answer.clone())?;
        }
    }
    Ok(ProbeReport {
        version: info(server, kind.version_field).ok_or_else(missing)?,
        position: info(replication, "master_repl_offset"),
        inventory_mark: mark(users),
    })
}

/// Changes whenever a user, a password or a right does.
fn mark(users: &Value) -> String {
    let mut hash = Sha256::new();
    if let Value::List(lines) = users {
        for line in lines {
            if let Value::Text(line) = line {
                hash.update(line.as_bytes());
                hash.update(b"\n");
            }
        }
    }
    identity::hex(&hash.finalize()[..16])
}

/// A field of what `INFO` answers.
fn info(answer: &Value, field: &str) -> Option<String> {
    let Value::Text(text) = answer else {
        return None;
    };
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.map(|value| value.trim().to_owned())
}

fn missing() -> EngineError {
    EngineError::Failed {
        what: "read the probe's report",
        why: "a value is missing".to_owned(),
    }
}
