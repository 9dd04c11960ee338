//! Answers of the HTTP server: whole ones, and one that goes on.

use std::{convert::Infallible, sync::Arc};

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    Response, StatusCode,
    body::{Bytes, Frame},
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{Recent, api::events::Event};

/// An answer.
pub(super) type Answer = Response<Either<Full<Bytes>, Lines>>;
/// Lines for as long as there are any, and somebody reads.
type Lines = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

pub(super) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(page) => response(StatusCode::OK, "application/json", page),
        Err(error) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the answer: {error}\n"))
        }
    }
}

pub(super) fn text(status: StatusCode, message: impl Into<String>) -> Answer {
    response(status, "text/plain; charset=utf-8", message.into().into_bytes())
}

pub(super) fn response(status: StatusCode, kind: &str, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// The recent events, and where `follow` says so those that come. `held` is kept until the
/// answer ends.
pub(super) fn events<T: Send + 'static>(recent: Recent, follow: bool, held: T) -> Answer {
    let Recent { past, coming } = recent;
    let past = stream::iter(past.into_iter().map(Event::Refused));
    let lines = if follow { past.chain(these(coming, held)).boxed() } else { past.boxed() };
    let lines = lines.filter_map(async |event| {
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        Some(Ok(Frame::data(Bytes::from(line))))
    });
    let mut response = Response::new(Either::Right(StreamBody::new(lines.boxed())));
    let kind = HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn these<T: Send + 'static>(
    coming: Receiver<Arc<super::api::events::Refused>>,
    held: T,
) -> BoxStream<'static, Event> {
    stream::unfold((coming, held), async |(mut coming, held)| {
        let event = match coming.recv().await {
            Ok(event) => Event::Refused(event),
            Err(RecvError::Lagged(count)) => Event::Missed { count },
            Err(RecvError::Closed) => return None,
        };
        Some((event, (coming, held)))
    })
    .boxed()
}
