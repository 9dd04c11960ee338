//! Proxied requests: streamed to the upstream, and its answer back.

use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Bytes},
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderValue, RETRY_AFTER, UPGRADE,
    },
};

use super::{Inbound, Room};
use crate::{
    config::{self, Proxy},
    relay::{
        Body,
        listen::Peer,
        proxy::{
            binding,
            download::Download,
            session::{self, Session},
            tunnel,
            upload::{Fault, Gate, Upload},
        },
        route::rewrite,
        upstream::{Answered, Pinned, Progress, SendError, Streamed, Switched},
    },
};

pub(super) async fn receive(
    room: &Room,
    proxy: &Proxy,
    maintenance: &Maintenance,
    mut inbound: Inbound<'_>,
) -> Response<Body> {
    let Ok(upgrade) = upgrade(proxy, &inbound) else {
        return room.refuse("upgrade", StatusCode::FORBIDDEN);
    };
    // Streams of HTTP/2 share a connection, and with it an identity.
    let session = Session::of(inbound.peer).filter(|_| inbound.head.version < Version::HTTP_2);
    let Some(session) = session else {
        return room.refuse("http2", StatusCode::MISDIRECTED_REQUEST);
    };
    let pool = room.route.upstream;
    let pinned = session.take(pool);
    // Who has a connection keeps it until it ends.
    let is_alone = pinned.as_ref().is_none_or(|pinned| !pinned.is_authenticated());
    if is_alone && room.pool.is_drained() {
        return maintenance.answer(room.refuse("maintenance", StatusCode::SERVICE_UNAVAILABLE));
    }
    let authenticates = binding::authenticates(&inbound.head.headers);
    let progress = Arc::new(Progress::new());
    let fault = Arc::new(OnceLock::new());
    let (request, gate) = match request(room, proxy, &mut inbound, upgrade, &progress, &fault) {
        Ok(request) => request,
        Err(Some(fault)) => return last(room.refuse(fault.name(), fault.status())),
        Err(None) => return room.refuse("upstream_target", StatusCode::BAD_REQUEST),
    };
    let client = session::client(inbound.peer);
    let was_bound =
        authenticates || pinned.as_ref().is_some_and(|pinned| pinned.is_authenticated());
    let sent = room.pool.send_pinned(pinned, request, authenticates, &progress, &client).await;
    let Answered { response, pinned, is_last, switched } = match sent {
        Ok(answered) => answered,
        Err(error) => {
            let answer = failed(room, &error, fault.get().copied());
            // Who was authenticated is so no more, and must not believe it.
            return if was_bound { last(answer) } else { answer };
        }
    };
    if binding::challenges(response.headers()) {
        pinned.authenticate();
    }
    if let Some(switched) = switched {
        return switch(inbound.peer, proxy, response, pinned, switched);
    }
    // An answer in the place of "continue": the body is not wanted, so neither end can
    // tell where a next request would begin.
    let is_unwanted = gate.is_some_and(|gate| !gate.shut());
    let ends = is_unwanted || (is_last && pinned.is_authenticated());
    let limit = proxy.idle_timeout;
    let is_reusable = !is_unwanted && !is_last;
    let response = response
        .map(|answer| Download::new(answer, pinned, session, pool, limit, is_reusable).boxed());
    if ends { last(response) } else { response }
}

type Prepared = (Request<Body>, Option<Arc<Gate>>);

/// The request as it goes to a server, and the gate that its body waits at. An error
/// without a fault: it cannot be rewritten.
fn request(
    room: &Room,
    proxy: &Proxy,
    inbound: &mut Inbound<'_>,
    upgrade: Option<HeaderValue>,
    progress: &Arc<Progress>,
    fault: &Arc<OnceLock<Fault>>,
) -> Result<Prepared, Option<Fault>> {
    let path_and_query = rewrite(&room.route, inbound.target.path_and_query()).ok_or(None)?;
    let mut headers = std::mem::take(&mut inbound.head.headers);
    if proxy.keep_host {
        let host = HeaderValue::from_str(inbound.target.host()).map_err(|_| None)?;
        headers.insert(HOST, host);
    }
    // Framed anew: a length that is not the body's would be a way to smuggle.
    let length = headers.remove(CONTENT_LENGTH);
    let expects = inbound.head.version == Version::HTTP_11
        && headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let body = inbound.body.take().filter(|body| !body.is_end_stream());
    if body.is_none() || !expects {
        headers.remove(EXPECT);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    let gate = (expects && body.is_some()).then(Arc::<Gate>::default);
    let body = match body {
        Some(body) => {
            let (progress, fault) = (Arc::clone(progress), Arc::clone(fault));
            Upload::new(body, room.route.body_bytes, gate.clone(), progress, fault)?.boxed()
        }
        None => {
            // IIS wants to be told, and clients of NTLM begin with an empty POST.
            if length.is_some() || matches!(inbound.head.method, Method::POST | Method::PUT) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Body::default()
        }
    };
    let mut request = Request::new(body);
    *request.method_mut() = inbound.head.method.clone();
    *request.uri_mut() = Uri::from(path_and_query);
    *request.headers_mut() = headers;
    if let Some(gate) = &gate {
        let gate = Arc::clone(gate);
        hyper::ext::on_informational(&mut request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                gate.open();
            }
        });
    }
    Ok((request, gate))
}

/// The answer to a request that has none of a server's.
fn failed(room: &Room, error: &SendError, fault: Option<Fault>) -> Response<Body> {
    if let Some(fault) = fault {
        return last(room.refuse(fault.name(), fault.status()));
    }
    let (reason, status) = match error {
        SendError::Unavailable { .. }
        | SendError::Connect { .. }
        | SendError::Busy { .. }
        | SendError::Stopping(_) => ("upstream_unavailable", StatusCode::SERVICE_UNAVAILABLE),
        SendError::Timeout { .. } => ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT),
        SendError::Reset { .. } | SendError::Invalid { .. } | SendError::Request { .. } => {
            ("upstream_unanswered", StatusCode::BAD_GATEWAY)
        }
    };
    tracing::warn!(route = room.route.name, %error, %status, "no answer for a client");
    room.refuse(reason, status)
}

/// What is answered while all servers are drained.
#[derive(Debug, Default)]
pub(in crate::relay) struct Maintenance(Option<(Bytes, HeaderValue, HeaderValue)>);

impl Maintenance {
    /// Reads its file, which blocks.
    pub(in crate::relay) fn load(given: Option<&config::Maintenance>) -> Result<Self, String> {
        let Some(given) = given else { return Ok(Self::default()) };
        let file = given.file.display();
        let body = std::fs::read(&given.file)
            .map_err(|error| format!("maintenance.file: {file} cannot be read: {error}"))?;
        let content_type = HeaderValue::from_str(&given.content_type)
            .map_err(|error| format!("maintenance.content_type: {error}"))?;
        Ok(Self(Some((body.into(), content_type, given.retry_after.as_secs().into()))))
    }

    fn answer(&self, refusal: Response<Body>) -> Response<Body> {
        let Some((body, content_type, retry_after)) = &self.0 else { return refusal };
        let body = Full::new(body.clone()).map_err(|never| match never {}).boxed();
        let mut response = refusal.map(|_| body);
        response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        response.headers_mut().insert(RETRY_AFTER, retry_after.clone());
        response
    }
}

/// The last answer of its connection.
fn last(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The protocol that a request may change its connection to, if it asks for one. An error
/// if it asks for what is not allowed, or in a way that leaves doubts.
fn upgrade(proxy: &Proxy, inbound: &Inbound<'_>) -> Result<Option<HeaderValue>, ()> {
    let protocol = match inbound.upgrades.as_slice() {
        [] => return Ok(None),
        [one] => one,
        _ => return Err(()),
    };
    if !inbound.names_upgrade {
        return Err(());
    }
    let has_body = inbound.body.as_ref().is_some_and(|body| !body.is_end_stream());
    let is_plain =
        inbound.head.method == Method::GET && inbound.head.version == Version::HTTP_11 && !has_body;
    let is_allowed = protocol.to_str().is_ok_and(|protocol| proxy.upgrades_to(protocol));
    if is_plain && is_allowed { Ok(Some(protocol.clone())) } else { Err(()) }
}

/// Tells the client that the protocol changes. What comes after that is nobody's business
/// here, and goes both ways until the connection ends.
fn switch(
    peer: &Peer,
    proxy: &Proxy,
    response: Response<Streamed>,
    pinned: Pinned,
    switched: Switched,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, switched.protocol.clone());
    // There are no more requests, and nobody drives connections that are kept for one.
    if let Some(session) = Session::of(peer) {
        session.clear();
    }
    let limit = proxy.idle_timeout;
    peer.attached.hand_over(move |stream, unread| {
        async move {
            // It counts as under way, and as a connection to its server, until the end.
            let (_answer, mut pinned) = (body, pinned);
            let server = match switched.stream(&mut pinned).await {
                Ok(server) => server,
                Err(error) => {
                    tracing::debug!(%error, "a server ended while it changed the protocol");
                    return;
                }
            };
            // Whoever breaks off, the other one is told by the end of its connection.
            let _ = tunnel::pass(stream, server, &unread, limit).await;
        }
        .boxed()
    });
    Response::from_parts(head, Body::default())
}
