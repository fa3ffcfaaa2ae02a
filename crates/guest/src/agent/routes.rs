//! The protocol's routes: requests taken apart, answers put together.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coffer_engines::EngineError;
use coffer_wire::guest::v1::{
    Command, OTHER_CONTENT, Refusal, SessionRequest, Spec, StreamRequest, WRONG_OFFSET,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::agent::{Shared, commands, inventory, replace, sessions, spec, streams};
use crate::error::GuestError;
use crate::limits;

/// Body of an answer.
pub(crate) type AnswerBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// What a route gives, or why it refuses.
pub(crate) type Answer<T> = Result<T, Refused>;

/// A refusal with its HTTP status.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    reason: &'static str,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    pub(crate) fn unknown(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown",
            format!("{what} is not known here"),
        )
    }

    pub(crate) fn busy(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
    }

    pub(crate) fn older(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "older-generation", message)
    }

    pub(crate) fn other_content(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, OTHER_CONTENT, message)
    }

    pub(crate) fn conflict(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, reason, message)
    }

    pub(crate) fn gap(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, WRONG_OFFSET, message)
    }

    pub(crate) fn failed(error: &GuestError) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed",
            error.to_string(),
        )
    }

    pub(crate) fn engine(error: &EngineError) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.reason(),
            error.to_string(),
        )
    }

    fn into_response(self) -> Response<AnswerBody> {
        let body = Refusal {
            reason: self.reason.to_owned(),
            message: self.message,
        };
        respond(self.status, &body)
    }
}

/// A body whose pieces come through a channel; it ends when the sender is dropped, and the sender
/// learns when the connection is.
#[derive(Debug)]
pub(crate) struct Pieces(pub(crate) mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Answers a request.
pub(crate) async fn route(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    // Boxed: the tree of routes is large, and most connections wait in one of its leaves.
    Box::pin(dispatch(shared, request))
        .await
        .unwrap_or_else(Refused::into_response)
}

async fn dispatch(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> Answer<Response<AnswerBody>> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let ["v1", parts @ ..] = parts.as_slice() else {
        return Err(Refused::unknown(&path));
    };
    let method = request.method().clone();
    match (&method, parts) {
        (&Method::GET, ["enrol"]) => ok(&spec::enrolment(shared).await?),
        (&Method::PUT, ["enrol"]) => ok(&spec::enrol(shared, read(request).await?).await?),
        _ if !spec::is_enrolled(shared).await => Err(Refused::new(
            StatusCode::FORBIDDEN,
            "not-enrolled",
            "enrol this guest first",
        )),
        (&Method::PUT, ["spec"]) => {
            let wanted: Spec = read(request).await?;
            ok(&spec::accept(shared, wanted).await?)
        }
        (&Method::GET, ["status"]) => {
            ok(&spec::status(shared, query.number("after")?, query.wait()?).await)
        }
        (_, ["commands", ..]) => dispatch_command(shared, request, &parts[1..], &query).await,
        (&Method::GET, ["inventory"]) => {
            let limit = query
                .number("limit")?
                .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            ok(&inventory::page(shared, query.text("after").as_deref(), limit).await?)
        }
        (&Method::POST, ["sessions"]) => {
            let wanted: SessionRequest = read(request).await?;
            let pieces = sessions::open(shared, wanted).await?;
            Ok(Response::new(pieces.boxed()))
        }
        (&Method::PUT, ["agent", sha256]) => {
            let part = (
                query.number("offset")?.unwrap_or(0),
                query.number("length")?,
            );
            ok(&replace::take(shared, sha256, part, request.into_body()).await?)
        }
        (&Method::POST, ["agent", sha256]) => ok(&replace::replace(shared, sha256).await?),
        (_, ["streams", ..]) => dispatch_stream(shared, request, &parts[1..], &query).await,
        _ => Err(Refused::unknown(&format!("{method} {path}"))),
    }
}

async fn dispatch_command(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    parts: &[&str],
    query: &Query,
) -> Answer<Response<AnswerBody>> {
    match (request.method(), parts) {
        (&Method::POST, []) => {
            let command: Command = read(request).await?;
            ok(&commands::start(shared, command).await?)
        }
        (&Method::GET, [id]) => match commands::wait(shared, id, query.wait()?).await {
            Some(state) => ok(&state),
            None => Err(Refused::unknown("this command")),
        },
        (&Method::DELETE, [id]) => {
            commands::forget(shared, id).await?;
            nothing()
        }
        _ => Err(Refused::unknown("this route")),
    }
}

async fn dispatch_stream(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    parts: &[&str],
    query: &Query,
) -> Answer<Response<AnswerBody>> {
    let offset = query.number("offset")?;
    match (request.method(), parts) {
        (&Method::POST, []) => {
            let wanted: StreamRequest = read(request).await?;
            ok(&streams::open(shared, &wanted).await?)
        }
        (&Method::GET, [id]) => {
            let pieces = streams::read(shared, id, offset.unwrap_or(0))?;
            Ok(Response::new(pieces.boxed()))
        }
        (&Method::PUT, [id]) => {
            ok(&streams::write(shared, id, offset.unwrap_or(0), request.into_body()).await?)
        }
        (&Method::POST, [id, "ack"]) => {
            let offset = offset.ok_or_else(|| Refused::bad_request("'offset' is missing"))?;
            ok(&streams::acknowledge(shared, id, offset)?)
        }
        (&Method::DELETE, [id]) => {
            streams::cancel(shared, id);
            nothing()
        }
        _ => Err(Refused::unknown("this route")),
    }
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Answer<T> {
    let body = Limited::new(request.into_body(), limits::BODY_BYTES_MAX);
    let bytes = body
        .collect()
        .await
        .map_err(|_| Refused::bad_request("the body is cut short or above 1 MiB"))?
        .to_bytes();
    // The error's text names fields and positions, no values of them.
    serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Refused::bad_request(format!("the body is not understood at {place}"))
    })
}

fn ok<T: Serialize>(body: &T) -> Answer<Response<AnswerBody>> {
    Ok(respond(StatusCode::OK, body))
}

fn nothing() -> Answer<Response<AnswerBody>> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn respond<T: Serialize>(status: StatusCode, body: &T) -> Response<AnswerBody> {
    let text = serde_json::to_vec(body).expect("wire types become JSON");
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    response
}

/// The pairs of a query.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    }

    fn number(&self, name: &str) -> Answer<Option<u64>> {
        let bad = |_| Refused::bad_request(format!("'{name}' is not a number"));
        self.text(name)
            .map(|text| text.parse().map_err(bad))
            .transpose()
    }

    fn wait(&self) -> Answer<Duration> {
        let wait = self.number("wait_ms")?.unwrap_or(0);
        Ok(Duration::from_millis(wait).min(limits::POLL_MAX))
    }
}
