//! Asks a server whether it is well, again and again.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{HeaderMap, Method, StatusCode, body::Bytes, http::uri::PathAndQuery};
use tokio::time::{sleep, timeout};

use super::{Caller, Outbound, server::Server};
use crate::{config::HealthCheck, random::random};

/// More of an answer is not read; its connection is closed instead.
const LARGEST_ANSWER: usize = 64 << 10;

/// Probes for ever. The first probe is made at once, then one in each interval,
/// give or take a tenth, so that hosts that start together do not probe together.
pub(super) async fn run(server: Arc<Server>, caller: Arc<Caller>, check: HealthCheck) {
    loop {
        let result = match timeout(check.timeout, probe(&server, &caller, &check.path)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", check.timeout.as_secs_f32())),
        };
        let about = |problem| format!("probe of {}{}: {problem}", server.name, check.path);
        server.probed(result.map_err(about));
        sleep(spread(check.interval)).await;
    }
}

async fn probe(server: &Server, caller: &Caller, path: &str) -> Result<(), String> {
    let path_and_query: PathAndQuery = path.parse().map_err(|_| "not a path".to_owned())?;
    let mut headers = HeaderMap::new();
    caller.set(&mut headers);
    let body = Bytes::new().into();
    let outbound = Outbound { method: Method::GET, path_and_query, headers, body };
    let request = caller.request(server, outbound);
    let response = server.connections.send(request).await.map_err(|failure| failure.to_string())?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(format!("it answered {status} and not 200"));
    }
    // Read to its end, so that the connection can be used again.
    match Limited::new(response.into_body(), LARGEST_ANSWER).collect().await {
        Err(error) if !error.is::<LengthLimitError>() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn spread(interval: Duration) -> Duration {
    interval.mul_f64(0.2f64.mul_add(random(), 0.9))
}
