//! The server behind the proxies: it takes everything and is done at once. Whoever gets
//! the large body gets it.

use std::{net::SocketAddr, rc::Rc};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use super::{http, stream::LARGE};

/// What Exchange expects; for all else, its status is what counts.
const RESULT: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
    <s:Body><SendNotificationResult xmlns=\"http://schemas.microsoft.com/exchange/services/2006/messages\">\
    <SubscriptionStatus>OK</SubscriptionStatus></SendNotificationResult></s:Body></s:Envelope>";

/// Serves, on connections that stay open, for as long as the local set runs.
pub fn serve(address: SocketAddr) -> Result<()> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    let socket = TcpListener::from_std(socket)?;
    let answer: Rc<str> = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\n\r\n{RESULT}",
        RESULT.len()
    )
    .into();
    spawn_local(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let answer = Rc::clone(&answer);
            spawn_local(async move {
                if let Err(error) = converse(stream, answer.as_bytes()).await {
                    eprintln!("the upstream is sent what it does not understand: {error:#}");
                }
            });
        }
    });
    Ok(())
}

const GET_LARGE: &[u8] = b"GET /EWS/large ";

async fn send_large(stream: &mut TcpStream) -> Result<()> {
    let part = vec![b'x'; 64 << 10];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..LARGE / part.len() {
        stream.write_all(&part).await?;
    }
    Ok(())
}

async fn converse(mut stream: TcpStream, answer: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        // How the proxies end connections is their affair.
        let Ok(read) = stream.read(&mut buffer[filled..]).await else { return Ok(()) };
        if read == 0 {
            ensure!(filled == 0, "a request breaks off after {filled} bytes");
            return Ok(());
        }
        filled += read;
        if buffer[..filled].starts_with(GET_LARGE) && buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if send_large(&mut stream).await.is_err() {
                return Ok(());
            }
            continue;
        }
        match http::length(&buffer[..filled])? {
            Some(length) if length == filled => {
                filled = 0;
                if stream.write_all(answer).await.is_err() {
                    return Ok(());
                }
            }
            Some(length) if length > buffer.len() => {
                let mut left = length - filled;
                while left > 0 {
                    let Ok(read @ 1..) = stream.read(&mut buffer).await else { return Ok(()) };
                    left = left.checked_sub(read).context("more than a request comes at once")?;
                }
                filled = 0;
                if stream.write_all(answer).await.is_err() {
                    return Ok(());
                }
            }
            Some(length) if length < filled => bail!("more than a request comes at once"),
            _ => ensure!(filled < buffer.len(), "a request is larger than {filled} bytes"),
        }
    }
}
