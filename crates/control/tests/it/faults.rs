//! The body of every kind of refusal, in both shapes.

use coffer_control::api::{fault, identity_error};
use coffer_control::error::{Error, Kind};
use serde_json::{Map, Value, json};

use crate::expected::assert_expected;

fn example(kind: Kind) -> Error {
    let mut error = Error::new(kind, "a-reason", "what is wrong, where, and what to do");
    match kind {
        Kind::RateLimited => error.retry_after = Some(12),
        Kind::Internal => return Error::internal("the private cause"),
        Kind::OverLimit | Kind::Unavailable => return error.with_hint("delete something"),
        _ => {}
    }
    error.with_context("the private cause")
}

#[test]
fn every_kind_has_its_body() {
    let mut all = Map::new();
    for &kind in Kind::ALL {
        let error = example(kind);
        let (status, trove) = fault(&error, "req-1");
        let (identity_status, keystone) = identity_error(&error, "req-1");
        let both = json!({
            "trove": { "status": status.as_u16(), "body": trove },
            "keystone": { "status": identity_status.as_u16(), "body": keystone },
        });
        assert!(
            !both.to_string().contains("private"),
            "{kind:?} shows its context"
        );
        all.insert(format!("{kind:?}"), both);
    }
    assert_expected("faults", &Value::Object(all));
}
