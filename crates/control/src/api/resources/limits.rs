//! Limits: quotas and rates.

use axum::extract::State;
use axum::response::Response;
use coffer_core::quota::{Quota, Resource};
use coffer_wire::rest::v1::limits::{AbsoluteLimit, Limit, LimitList, RateLimit};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::respond::ok;
use crate::app::{AppState, RequestContext, project};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// The quotas of the project, then the rates.
#[utoipa::path(get, path = "/v1.0/{project_id}/limits", tag = "limits",
    responses((status = 200, body = LimitList)))]
async fn list(State(app): State<AppState>, context: RequestContext) -> Result<Response> {
    let quotas = project::quotas(&app, context.tenant_id()?).await?;
    let mut limits = vec![Limit::Absolute(absolute(&app, &quotas))];
    if app.rates.per_minute() > 0 {
        limits.extend(rates(&app, &context)?);
    }
    Ok(ok(&LimitList { limits }))
}

fn absolute(app: &AppState, quotas: &[Quota]) -> AbsoluteLimit {
    let of = |resource: Resource| {
        let quota = quotas.iter().find(|quota| quota.resource == resource);
        quota.map_or_else(|| app.config.quotas.of(resource), |quota| quota.limit)
    };
    AbsoluteLimit {
        verb: "ABSOLUTE".to_owned(),
        max_instances: of(Resource::Instances),
        max_ram: of(Resource::Ram),
        max_backups: of(Resource::Backups),
        max_volumes: of(Resource::Volumes),
    }
}

fn rates(app: &AppState, context: &RequestContext) -> Result<Vec<Limit>> {
    let now = app.clock.now();
    let remaining = app
        .rates
        .remaining(context.tenant_id()?, app.clock.monotonic());
    let of_verb = |left: crate::api::rate::Remaining| {
        let wait = i64::try_from(left.wait.as_millis()).unwrap_or(i64::MAX);
        Limit::Rate(RateLimit {
            verb: left.verb.to_owned(),
            uri: "*".to_owned(),
            regex: ".*".to_owned(),
            value: app.rates.per_minute(),
            remaining: left.requests,
            unit: "MINUTE".to_owned(),
            next_available: now.plus_millis(wait).to_string(),
        })
    };
    let mut all: Vec<_> = remaining.into_iter().map(of_verb).collect();
    // Trove lists this one too, and compares it with whole URLs, which it never fits.
    all.push(Limit::Rate(RateLimit {
        verb: "POST".to_owned(),
        uri: "*/mgmt".to_owned(),
        regex: "^/mgmt".to_owned(),
        value: app.rates.per_minute(),
        remaining: app.rates.per_minute(),
        unit: "MINUTE".to_owned(),
        next_available: now.to_string(),
    }));
    Ok(all)
}
