//! Trove's routes that are known and not there: 501 with the reason, in the fault's shape.

use axum::Router;
use axum::routing::{MethodFilter, on};
use http::Method;

use super::rules::{self, PREFIX};
use crate::app::AppState;
use crate::error::{Error, Kind};

/// A router of all of them.
pub(super) fn router() -> Router<AppState> {
    let mut router = Router::new();
    for route in rules::all() {
        let Some(why) = route.missing else { continue };
        let path = format!("{PREFIX}{}", route.path);
        for verb in route.verbs.split(' ') {
            let method = Method::from_bytes(verb.as_bytes()).expect("the table names verbs");
            let filter = MethodFilter::try_from(method).expect("the table names known verbs");
            router = router.route(&path, on(filter, move || async move { not_there(why) }));
        }
    }
    router
}

/// The refusal of something that Trove has and this version has not.
pub(super) fn not_there(why: &str) -> Error {
    Error::new(Kind::NotImplemented, "not-implemented", why)
}
