//! The control side's end of the protocol, as small as a test needs it.

use std::sync::Arc;
use std::time::Duration;

use coffer_wire::guest::v1::{EngineHealth, Refusal, Status};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support::process;

/// Gives a new connection to the agent.
pub(crate) type Dial = Arc<
    dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>
        + Send
        + Sync,
>;

/// A client; each request on a connection of its own.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) dial: Dial,
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_id: String,
}

/// An answer whose body is still to come; dropping it closes the connection.
pub(crate) struct Open {
    pub(crate) response: Response<Incoming>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.server_id.clone()).unwrap();
        TlsConnector::from(Arc::clone(&self.config))
            .connect(name, (self.dial)().await?)
            .await
    }

    /// Sends a request and gives the answer's head.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Open, String> {
        let stream = self.connect().await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let driver = process::start(async move {
            connection.await.ok();
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.server_id)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Open { response, driver })
    }

    /// A request to its end.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> (StatusCode, Bytes) {
        let mut open = self.open(method, path, body).await.expect("an answer");
        let status = open.response.status();
        (
            status,
            open.response
                .body_mut()
                .collect()
                .await
                .expect("a body")
                .to_bytes(),
        )
    }

    /// A request that has to succeed.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str) -> T {
        self.send(method, path, &()).await
    }

    /// A request with a body that has to succeed.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> T {
        let (status, bytes) = self
            .request(method, path, serde_json::to_vec(body).unwrap())
            .await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// A request that has to be refused.
    pub(crate) async fn refused(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> (StatusCode, Refusal) {
        let (status, bytes) = self
            .request(method, path, serde_json::to_vec(body).unwrap())
            .await;
        assert!(!status.is_success(), "{method} {path} was not refused");
        (status, serde_json::from_slice(&bytes).expect("a refusal"))
    }

    /// The status now.
    pub(crate) async fn status(&self) -> Status {
        self.ask("GET", "/v1/status").await
    }

    /// Polls the status until it is as wanted, at most a minute.
    pub(crate) async fn until(&self, what: &str, is_wanted: impl Fn(&Status) -> bool) -> Status {
        let mut last: Option<Status> = None;
        let wait = async {
            loop {
                let after = last.as_ref().map_or(0, |status: &Status| status.sequence);
                let path = format!("/v1/status?after={after}&wait_ms=1000");
                if let Ok(mut open) = self.open("GET", &path, Vec::new()).await
                    && let Ok(body) = open.response.body_mut().collect().await
                    && let Ok(status) = serde_json::from_slice::<Status>(&body.to_bytes())
                {
                    if is_wanted(&status) {
                        return status;
                    }
                    last = Some(status);
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), wait).await {
            Ok(status) => status,
            Err(_) => panic!("waited a minute for: {what}; last: {last:?}"),
        }
    }

    /// Polls until the engine is healthy.
    pub(crate) async fn until_healthy(&self) -> Status {
        self.until("a healthy engine", |status| {
            status.health == EngineHealth::Healthy
        })
        .await
    }
}
