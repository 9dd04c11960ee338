//! The lab's HTTP client: one request, one connection, from a chosen address.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::peer::{Reached, reach};

/// The most that an answer may hold.
const MAX_BODY: usize = 16 << 20;

/// A GET.
#[derive(Clone, Debug)]
pub struct Get {
    /// The address that it is sent from, or any.
    pub source: Option<IpAddr>,
    /// Where it is sent to.
    pub target: SocketAddr,
    /// How TLS is spoken and which name the certificate must have; without it the
    /// request is plain HTTP.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Path and query.
    pub path: String,
    /// How long the connection may take to be made. Each SYN is repeated after 1 s.
    pub patience: Duration,
}

/// A POST, sent as a [`Get`] is.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where and how.
    pub to: Get,
    /// Header fields beside `Host`, `Connection` and `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Get {
    /// Sends it and reads the answer. The caller bounds the time, except for the
    /// connection's.
    ///
    /// # Errors
    ///
    /// If the connection was made, but TLS or HTTP failed on it.
    pub async fn send(self) -> Result<Reached<Response>> {
        self.request(Request::get(&self.path).body(Full::default())?).await
    }

    async fn request(&self, request: Request<Full<Bytes>>) -> Result<Reached<Response>> {
        let any = match self.target {
            SocketAddr::V4(_) => IpAddr::from([0u8; 4]),
            SocketAddr::V6(_) => IpAddr::from([0u8; 16]),
        };
        let stream = match reach(self.source.unwrap_or(any), self.target, self.patience).await? {
            Reached::Answered(stream) => stream,
            Reached::Refused => return Ok(Reached::Refused),
            Reached::TimedOut => return Ok(Reached::TimedOut),
        };
        let Some((config, name)) = &self.tls else {
            let host = self.target.to_string();
            return exchange(stream, &host, request).await.map(Reached::Answered);
        };
        let host = name.to_str().into_owned();
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name.clone(), stream)
            .await
            .with_context(|| format!("the TLS handshake with {host} failed"))?;
        exchange(stream, &host, request).await.map(Reached::Answered)
    }
}

impl Post {
    /// Sends it and reads the answer. The caller bounds the time, except for the
    /// connection's.
    ///
    /// # Errors
    ///
    /// See [`Get::send`].
    pub async fn send(self) -> Result<Reached<Response>> {
        let mut request = Request::post(&self.to.path).body(Full::new(self.body))?;
        request.headers_mut().extend(self.headers);
        self.to.request(request).await
    }
}

async fn exchange<S>(stream: S, host: &str, mut request: Request<Full<Bytes>>) -> Result<Response>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host)?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(anyhow::Error::from_boxed);
    connection.abort();
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body: body?.to_bytes() })
}
