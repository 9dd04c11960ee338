//! The other end of the control socket, for the command line.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::admin::api::{Obeyed, Order};

/// Limit for one question.
const LIMIT: Duration = Duration::from_secs(10);
/// Limit for an order, which may wait for polls.
const ORDER_LIMIT: Duration = Duration::from_secs(70);

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("no agent is running (nobody answers on {socket})")]
    NotRunning {
        /// The socket.
        socket: String,
    },
    /// This user may not open the socket.
    #[error(
        "this user may not use {socket}; run the command as root, or as a member of the group in \
         admin.group"
    )]
    Refused {
        /// The socket.
        socket: String,
    },
    /// The agent did not obey.
    #[error("{0}")]
    Disobeyed(String),
    /// The agent answered, but not as expected.
    #[error("asking the agent on {socket} for {path} failed: {reason}")]
    Failed {
        /// The socket.
        socket: String,
        /// What was asked for.
        path: String,
        /// What came back.
        reason: String,
    },
}

/// Asks the agent on a control socket.
///
/// # Errors
///
/// See [`Error`].
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    let body = get_text(socket, path).await?;
    serde_json::from_slice(&body).map_err(|error| Error::Failed {
        socket: socket.display().to_string(),
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Asks the agent on a control socket for what is no JSON.
///
/// # Errors
///
/// See [`Error`].
pub async fn get_text(socket: &Path, path: &str) -> Result<Bytes, Error> {
    exchange(socket, Method::GET, path, Bytes::new(), LIMIT).await
}

/// Has the agent on a control socket obey an order.
///
/// # Errors
///
/// See [`Error`].
pub async fn order(socket: &Path, order: &Order) -> Result<Obeyed, Error> {
    post(socket, "/v1/order", order).await
}

/// Posts something to the agent on a control socket.
///
/// # Errors
///
/// See [`Error`].
pub async fn post<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    order: &impl Serialize,
) -> Result<T, Error> {
    let failed = |error: serde_json::Error| Error::Failed {
        socket: socket.display().to_string(),
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let body = serde_json::to_vec(order).map_err(failed)?;
    let answer = exchange(socket, Method::POST, path, body.into(), ORDER_LIMIT).await?;
    serde_json::from_slice(&answer).map_err(failed)
}

/// Gets lines from the agent on a control socket, each as it comes, until `take` has enough or
/// the agent ends the answer.
///
/// # Errors
///
/// See [`Error`].
pub async fn follow(
    socket: &Path,
    path: &str,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<(), Error> {
    let name = socket.display().to_string();
    let failed =
        |reason: String| Error::Failed { socket: name.clone(), path: path.to_owned(), reason };
    let stream = connect(socket, path).await?;
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    // Ends with its end of this function.
    let _connection = AbortOnDrop(tokio::spawn(connection));
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = path.parse().unwrap_or_default();
    let response = tokio::time::timeout(LIMIT, sender.send_request(request))
        .await
        .map_err(|_| failed(format!("no answer within {} s", LIMIT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    let (status, mut body) = (response.status(), response.into_body());
    if status != StatusCode::OK {
        let said = body.collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
        return Err(failed(format!("{status}: {}", String::from_utf8_lossy(&said).trim())));
    }
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| failed(error.to_string()))?.into_data() else {
            continue;
        };
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if !take(line.trim_ascii()) {
                return Ok(());
            }
        }
    }
    Ok(())
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        let Self(task) = self;
        task.abort();
    }
}

async fn connect(socket: &Path, path: &str) -> Result<UnixStream, Error> {
    let name = || socket.display().to_string();
    UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::NotRunning { socket: name() }
        }
        io::ErrorKind::PermissionDenied => Error::Refused { socket: name() },
        _ => Error::Failed { socket: name(), path: path.to_owned(), reason: error.to_string() },
    })
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Bytes, Error> {
    let name = socket.display().to_string();
    let failed =
        |reason: String| Error::Failed { socket: name.clone(), path: path.to_owned(), reason };
    let stream = connect(socket, path).await?;
    let answer = tokio::time::timeout(limit, ask(stream, method, path, body))
        .await
        .map_err(|_| failed(format!("no answer within {} s", limit.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    let said = |body: &Bytes| String::from_utf8_lossy(body).trim().to_owned();
    match answer {
        (StatusCode::OK, body) => Ok(body),
        (StatusCode::FORBIDDEN, _) => Err(Error::Refused { socket: name.clone() }),
        (StatusCode::CONFLICT, body) => Err(Error::Disobeyed(said(&body))),
        (status, body) => Err(failed(format!("{status}: {}", said(&body)))),
    }
}

async fn ask(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}
