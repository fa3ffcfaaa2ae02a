//! The router: one line per resource, then what every request passes.

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;

use super::guard::{finish, guard};
use super::{missing, negotiate, openapi, resources};
use crate::app::AppState;
use crate::error::{Error, Kind};

/// Every documented route.
pub(super) fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::head())
        .merge(resources::public::router())
        .merge(resources::identity::router())
        .merge(resources::instances::router())
        .merge(resources::actions::router())
        .merge(resources::explain::router())
        .merge(resources::connect::router())
        .merge(resources::databases::router())
        .merge(resources::users::router())
        .merge(resources::grants::router())
        .merge(resources::root::router())
        .merge(resources::datastores::router())
        .merge(resources::flavors::router())
        .merge(resources::limits::router())
        .merge(resources::quotas::router())
        .merge(resources::networks::router())
        .merge(resources::management::router())
        .merge(resources::projects::router())
        .merge(resources::accounts::router())
        .merge(resources::roles::router())
        .merge(resources::sizes::router())
        .merge(resources::zones::router())
        .merge(resources::audit::router())
        .merge(resources::trackers::router())
}

/// The whole API over this state.
pub fn router(app: AppState) -> Router {
    let (router, _) = documented().split_for_parts();
    let routes = router
        .merge(resources::public::undocumented())
        .merge(resources::identity::below_identity())
        .merge(resources::users::aliases())
        .merge(resources::grants::aliases())
        .merge(resources::root::aliases())
        .merge(missing::router())
        .fallback(async || no_route())
        .method_not_allowed_fallback(async || no_route())
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(from_fn_with_state(app.clone(), finish))
        .with_state(app);
    let all = routes.clone();
    routes.fallback(move |request| negotiate::unversioned(all.clone(), request))
}

/// Unknown routes and unknown verbs alike, as in Trove.
pub(super) fn no_route() -> Error {
    Error::new(
        Kind::NotFound,
        "no-route",
        "The resource could not be found.",
    )
}
