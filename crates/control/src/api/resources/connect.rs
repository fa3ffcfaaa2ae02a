//! Connecting to an instance by hand: what to know, a user for the occasion, the engine's bytes.

use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use coffer_wire::rest::v1::connection::{
    Connection, ConnectionEnvelope, RELAY_PROTOCOL, Visit, VisitEnvelope, VisitRequest,
};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::OneInstance;
use crate::api::extract::{Json, Segments};
use crate::api::respond::ok;
use crate::app::connect::Visitor;
use crate::app::{AppState, RequestContext, connect, instance};
use crate::auth::login;
use crate::error::{Error, Kind, Result};

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(show, open))
        .routes(routes!(visit))
}

/// What a client has to know to connect through the relay.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/connect", tag = "connect",
    params(("instance_id" = String, Path)),
    responses((status = 200, body = ConnectionEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let known = connect::describe(&app, &view).await?;
    let connection = Connection {
        engine: view.manager,
        version: view.version_name,
        host_name: known.host_name,
        ca_pem: known.ca_pem,
        databases: known.databases,
    };
    Ok(ok(&ConnectionEnvelope { connection }))
}

/// Opens a connection to the engine's port: the request's own connection, upgraded.
#[utoipa::path(post, path = "/v1.0/{project_id}/instances/{instance_id}/connect", tag = "connect",
    params(("instance_id" = String, Path),
        ("upgrade" = String, Header, description = "coffer-relay")),
    responses((status = 101, description = "The engine's own protocol follows.")))]
async fn open(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    mut request: Request,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let upgrade = upgrade(&mut request)?;
    let relay = connect::open(&app, &context, &view).await?;
    let id = view.instance.id;
    let door = connect::door(&app)?.clone();
    door.start(async move {
        match upgrade.await {
            Ok(client) => {
                let end = login::taken_away(&app, &context.session);
                let passed = relay.pass(TokioIo::new(client), &*app.clock, end);
                if let Some(meter) = passed.await {
                    connect::lost(&app, &context, id, &meter).await;
                }
            }
            Err(error) => tracing::debug!(%error, "a client did not take its connection over"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(RELAY_PROTOCOL));
    Ok(response)
}

fn upgrade(request: &mut Request) -> Result<OnUpgrade> {
    let asked = request.headers().get(header::UPGRADE);
    let is_ours = asked.is_some_and(|value| value.as_bytes() == RELAY_PROTOCOL.as_bytes());
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade.filter(|_| is_ours).ok_or_else(|| {
        let message = format!("This route speaks {RELAY_PROTOCOL}: send the header Upgrade.");
        Error::new(Kind::BadRequest, "no-upgrade", message).with_hint("`coffer connect` does so")
    })
}

/// Makes a user for the occasion; it is dropped when this answer's connection ends.
#[utoipa::path(post, path = "/v1.0/{project_id}/instances/{instance_id}/visits", tag = "connect",
    params(("instance_id" = String, Path)), request_body = VisitRequest,
    responses((status = 200, body = VisitEnvelope, content_type = "application/x-ndjson")))]
async fn visit(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(request): Json<VisitRequest>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let visitor = connect::visit(&app, &context, &view, request.visit.database).await?;
    let first = VisitEnvelope {
        visit: Visit {
            user: visitor.name.clone(),
            password: visitor.password.expose().to_owned(),
        },
    };
    let mut line = serde_json::to_vec(&first).map_err(|e| Error::internal(e.to_string()))?;
    line.push(b'\n');
    let stay = Stay {
        first: Some(Bytes::from(line)),
        visitor,
        token: connect::door(&app)?.token(),
        taken_away: Box::pin(async move { login::taken_away(&app, &context.session).await }),
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(stay, Stay::next)));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// An answer that lasts as long as a visit.
struct Stay {
    first: Option<Bytes>,
    visitor: Visitor,
    token: CancellationToken,
    taken_away: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Stay {
    /// The next line, with what comes after it.
    async fn next(mut self) -> Option<(std::result::Result<Bytes, std::io::Error>, Self)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        tokio::select! {
            () = self.token.cancelled() => None,
            () = &mut self.taken_away => None,
            goes_on = self.visitor.relay.beat() => {
                goes_on.then_some((Ok(Bytes::from_static(b"\n")), self))
            }
        }
    }
}
