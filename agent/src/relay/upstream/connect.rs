//! Connects to a server: TCP or verified TLS, and HTTP/1.1 in it. HTTP/2 is not offered.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{TryFutureExt, future::BoxFuture};
use hyper::{Uri, http::uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{HttpConnector, proxy::Tunnel},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

use super::Error;
use crate::{config, relay::BoxError, source::fetch::tunnel, tls};

pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// How long a connection is silent before the kernel asks whether the other end is still
/// there: devices on the way forget connections after about five minutes.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Connects within a limit that includes the name and the TLS handshake.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Way>,
    limit: Duration,
}

/// To a server itself, or through an HTTP proxy that is asked to CONNECT.
#[derive(Clone)]
enum Way {
    Direct(HttpConnector),
    Proxied(Tunnel<HttpConnector>),
}

impl Service<Uri> for Way {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(http) => http.poll_ready(context).map_err(Into::into),
            Self::Proxied(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        match self {
            Self::Direct(http) => Box::pin(http.call(server).map_err(Into::into)),
            Self::Proxied(tunnel) => Box::pin(tunnel.call(server).map_err(Into::into)),
        }
    }
}

impl Connector {
    /// Reads certificates, which blocks.
    pub(super) fn new(upstream: &config::Upstream) -> Result<Self, Error> {
        let certificate = upstream.client_certificate.as_ref();
        let identity = certificate
            .map(|certificate| tls::Identity { chain: &certificate.chain, key: &certificate.key });
        let ca_file = upstream.ca_file.as_deref();
        let plain = upstream.servers.iter().all(|server| server.scheme() == Some(&Scheme::HTTP));
        // A host that only speaks plain HTTP to its servers needs no authorities.
        let tls = if plain && ca_file.is_none() && identity.is_none() {
            tls::client_of_nobody()
        } else {
            tls::client(ca_file, identity)
        };
        let tls = tls.map_err(|source| Error::Tls { upstream: upstream.name.clone(), source })?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEP_ALIVE));
        http.set_connect_timeout(Some(upstream.connect_timeout));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(match &upstream.proxy {
                Some(proxy) => Way::Proxied(tunnel(proxy, http)),
                None => Way::Direct(http),
            });
        Ok(Self { https, limit: upstream.connect_timeout })
    }

    /// A new connection to a server. Safe to cancel.
    pub(super) fn connect(&self, server: Uri) -> BoxFuture<'static, Result<Stream, BoxError>> {
        // The connector is always ready: it makes a connection for each call.
        let connecting = self.https.clone().call(server);
        let limit = self.limit;
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    let problem = format!("not connected within {} s", limit.as_secs_f32());
                    Err(io::Error::new(io::ErrorKind::TimedOut, problem).into())
                }
            }
        })
    }
}
