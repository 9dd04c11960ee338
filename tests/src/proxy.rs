//! An HTTP proxy, as an edge host without a way out has one.
//!
//! It knows CONNECT and nothing else, counts the tunnels, and resolves the name of
//! the real endpoint service to the stand-in, so that an agent with nothing but a
//! proxy and a certificate authority configured talks to the stand-in.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    lab::{Background, Lab, PROXY, SERVICE},
    lock,
    service::SERVICE_NAME,
};

/// Where it listens.
const PORT: u16 = 3128;
/// The longest request that it reads.
const MAX_HEAD: usize = 8 << 10;
/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running proxy.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<Mutex<State>>,
    _thread: Background,
    _lab: Lab,
}

#[derive(Debug, Default)]
struct State {
    tunnels: Vec<String>,
    refusing: bool,
}

impl Proxy {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If there is one in this lab already.
    pub fn start(lab: &Lab) -> Result<Self> {
        let listener = lab.wan().listen(SocketAddr::new(PROXY, PORT))?;
        let state = Arc::default();
        let shared = Arc::clone(&state);
        let thread = lab.wan().serve(move || serve(listener, shared))?;
        Ok(Self { state, _thread: thread, _lab: lab.clone() })
    }

    /// Its URL, for `feed.proxy`.
    #[must_use]
    pub fn url() -> String {
        format!("http://{PROXY}:{PORT}")
    }

    /// The targets of the tunnels so far, `host:port`, as they were asked for.
    #[must_use]
    pub fn tunnels(&self) -> Vec<String> {
        lock(&self.state).tunnels.clone()
    }

    /// Answers 407 to everything from now on, or no longer.
    pub fn refuse(&self, refusing: bool) {
        lock(&self.state).refusing = refusing;
    }
}

async fn serve(listener: std::net::TcpListener, state: Arc<Mutex<State>>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        // A client may be gone before it is accepted.
        let Ok((stream, _)) = listener.accept().await else { continue };
        // How a tunnel ends is for its client to see.
        tokio::spawn(tunnel(stream, Arc::clone(&state)));
    }
}

async fn tunnel(mut client: TcpStream, state: Arc<Mutex<State>>) -> io::Result<()> {
    let head = timeout(PATIENCE, read_head(&mut client)).await??;
    let mut words = head.split(' ');
    let (Some("CONNECT"), Some(target)) = (words.next(), words.next()) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n").await;
    };
    let refusing = {
        let mut state = lock(&state);
        if !state.refusing {
            state.tunnels.push(target.to_owned());
        }
        state.refusing
    };
    if refusing {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    }
    let address = match target.split_once(':') {
        Some((SERVICE_NAME, port)) => format!("{SERVICE}:{port}"),
        _ => target.to_owned(),
    };
    let Ok(mut server) = TcpStream::connect(address).await else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(io::Error::other("the request has no end"));
        }
        head.push(client.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
