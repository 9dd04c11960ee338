//! From a request to an answer, right or wrong.

use std::{
    collections::BTreeMap, convert::Infallible, future::pending, io, net::IpAddr, time::Instant,
};

use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Asked, Content, Fault, Instance, Moment, On, Publication, State};
use crate::lock;

/// A body that may fail before its end.
type Body = UnsyncBoxBody<Bytes, io::Error>;
/// The status, the content type and the body, before anything goes wrong.
type Right = (StatusCode, &'static str, Bytes);

const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const PAGE: &[u8] = b"<!DOCTYPE html><html><body><h1>The service is unavailable</h1></body></html>";

/// Answers a request. An error means that the connection is to be reset.
pub(super) async fn answer(
    state: &State,
    client: IpAddr,
    request: &Request<Incoming>,
) -> io::Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    let query = parameters(request.uri().query().unwrap_or_default());
    let method = On::of(&path);
    let (index, right, fault) = {
        let mut content = lock(&state.content);
        let asked = Asked { at: Instant::now(), client, path, query, status: None };
        let fault = content.fault.clone().filter(|(on, _)| on.covers(method));
        // A failing service publishes nothing to a client that cannot see it.
        let right = content.right(&asked, fault.is_none());
        content.asked.push(asked);
        (content.asked.len().saturating_sub(1), right, fault.map(|(_, fault)| fault))
    };
    let response = match fault {
        Some(fault) => wrong(fault, right).await?,
        None => respond(right),
    };
    if let Some(asked) = lock(&state.content).asked.get_mut(index) {
        asked.status = Some(response.status().as_u16());
    }
    Ok(response)
}

impl Content {
    /// What the service answers when nothing is wrong with it.
    fn right(&mut self, asked: &Asked, may_move: bool) -> Right {
        if asked.method() == Some(On::List) {
            return (StatusCode::OK, TEXT, self.list.clone());
        }
        if !asked.query.get("clientrequestid").is_some_and(|id| is_guid(id)) {
            return refusal("ClientRequestId must be a GUID");
        }
        match asked.query.get("format").map(|format| format.to_ascii_lowercase()).as_deref() {
            None | Some("json") => {}
            Some(_) => return refusal("the stand-in speaks JSON only"),
        }
        let mut parts = asked.path.split('/').skip(2).filter(|part| !part.is_empty());
        let instance = parts.next().map(str::parse::<Instance>);
        match (asked.method(), instance, parts.next()) {
            (Some(On::Version), None, None) => {
                let all = Instance::ALL.into_iter().filter_map(|one| self.version(one, asked));
                json_answer(&Value::Array(all.collect()))
            }
            (Some(On::Version), Some(Ok(instance)), None) => match self.version(instance, asked) {
                Some(version) => json_answer(&version),
                None => missing(),
            },
            (Some(On::Endpoints), Some(Ok(instance)), None) => {
                self.sets(instance, asked, may_move).unwrap_or_else(missing)
            }
            _ => missing(),
        }
    }

    fn version(&self, instance: Instance, asked: &Asked) -> Option<Value> {
        let latest = self.latest(instance)?.version();
        let mut answer = json!({ "instance": instance.name(), "latest": latest });
        if asked.query.get("allversions").is_some_and(|all| all.eq_ignore_ascii_case("true")) {
            let published = self.published.get(&instance)?;
            let versions: Vec<_> = published.iter().rev().map(Publication::version).collect();
            answer.as_object_mut()?.insert("versions".to_owned(), json!(versions));
        }
        Some(answer)
    }

    fn sets(&mut self, instance: Instance, asked: &Asked, may_move: bool) -> Option<Right> {
        let moving = self.moving.take_if(|(_, next)| may_move && next.instance() == instance);
        let (before, after) = match moving {
            Some((Moment::BeforeSets, next)) => (Some(next), None),
            Some((Moment::AfterSets, next)) => (None, Some(next)),
            None => (None, None),
        };
        before.into_iter().for_each(|next| self.publish(next));
        let sets = select(self.latest(instance)?.sets(), &asked.query);
        after.into_iter().for_each(|next| self.publish(next));
        Some((StatusCode::OK, JSON, sets))
    }
}

/// The sets that the parameters ask for; without any, exactly what was captured.
fn select(sets: &Bytes, query: &BTreeMap<String, String>) -> Bytes {
    let areas = query.get("serviceareas");
    let no_ipv6 = query.get("noipv6").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if areas.is_none() && !no_ipv6 {
        return sets.clone();
    }
    let Ok(mut records) = serde_json::from_slice::<Vec<Value>>(sets) else { return sets.clone() };
    if let Some(areas) = areas {
        // Common always comes back.
        let wanted: Vec<_> = areas.split(',').chain(["Common"]).map(str::trim).collect();
        records.retain(|record| {
            let area = record.get("serviceArea").and_then(Value::as_str).unwrap_or_default();
            wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(area))
        });
    }
    if no_ipv6 {
        let lists = records.iter_mut().filter_map(|record| record.get_mut("ips")?.as_array_mut());
        lists.for_each(|ips| ips.retain(|ip| ip.as_str().is_some_and(|ip| !ip.contains(':'))));
    }
    json_answer(&Value::Array(records)).2
}

async fn wrong(fault: Fault, right: Right) -> io::Result<Response<Body>> {
    let (status, kind, body) = right;
    Ok(match fault {
        Fault::TooManyRequests => {
            respond((StatusCode::TOO_MANY_REQUESTS, TEXT, Bytes::from_static(b"Too many requests")))
        }
        Fault::ServerError => {
            respond((StatusCode::INTERNAL_SERVER_ERROR, HTML, Bytes::from_static(PAGE)))
        }
        Fault::Hang => pending().await,
        Fault::Reset => return Err(io::Error::other("reset on purpose")),
        Fault::Slow { piece, pause } => {
            let pieces = stream::unfold(body, move |mut rest| async move {
                if rest.is_empty() {
                    return None;
                }
                sleep(pause).await;
                let next = rest.split_to(piece.clamp(1, rest.len()));
                Some((Ok(Frame::data(next)), rest))
            });
            typed(status, kind, StreamBody::new(pieces).boxed_unsync())
        }
        Fault::Html => respond((StatusCode::OK, HTML, Bytes::from_static(PAGE))),
        Fault::Truncated => {
            let announced = body.len();
            let half = Ok(Frame::data(body.slice(..announced / 2)));
            let cut = Err(io::Error::other("cut off on purpose"));
            let body = StreamBody::new(stream::iter([half, cut])).boxed_unsync();
            let mut response = typed(status, kind, body);
            response.headers_mut().insert(CONTENT_LENGTH, announced.into());
            response
        }
        Fault::Empty => respond((StatusCode::OK, kind, Bytes::new())),
        Fault::EmptyArray => respond((StatusCode::OK, kind, Bytes::from_static(b"[]"))),
        Fault::Huge { bytes } => {
            const PIECE: usize = 64 << 10;
            let blanks = Bytes::from(vec![b' '; PIECE]);
            let pieces = stream::unfold(bytes, move |rest| {
                let next = blanks.slice(..rest.min(PIECE));
                async move { (rest > 0).then(|| (Ok(Frame::data(next)), rest.saturating_sub(PIECE))) }
            });
            let open = stream::iter([Ok(Frame::data(Bytes::from_static(b"[")))]);
            let body = StreamBody::new(stream::StreamExt::chain(open, pieces)).boxed_unsync();
            typed(StatusCode::OK, JSON, body)
        }
        Fault::Redirect { location } => {
            let mut response = respond((StatusCode::FOUND, TEXT, Bytes::new()));
            let location = location.parse().map_err(io::Error::other)?;
            response.headers_mut().insert(LOCATION, location);
            response
        }
    })
}

fn refusal(why: &'static str) -> Right {
    (StatusCode::BAD_REQUEST, TEXT, Bytes::from_static(why.as_bytes()))
}

fn missing() -> Right {
    (StatusCode::NOT_FOUND, TEXT, Bytes::from_static(b"there is no such method or instance"))
}

/// JSON as the service writes it: indented, with CRLF.
fn json_answer(value: &Value) -> Right {
    let text = format!("{value:#}").replace('\n', "\r\n");
    (StatusCode::OK, JSON, text.into())
}

fn respond((status, kind, body): Right) -> Response<Body> {
    let body = Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync();
    typed(status, kind, body)
}

fn typed(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// The parameters of a query; their names count in any case.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}

fn is_guid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}
