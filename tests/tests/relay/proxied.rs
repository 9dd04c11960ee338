//! What a proxy does to requests and answers: as little as it can. Both ends are written
//! byte by byte.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use exogate_tests::{
    lab::{Family, Lab, Peer, edge},
    notification::RELAY_NAME,
    peer::HTTPS,
    process,
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use super::{Setting, identities::add_proxy};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long is waited for what must not come.
const QUIET: Duration = Duration::from_millis(400);

/// The server, whose connections the test answers by hand.
pub(super) struct Server(TcpListener);

impl Server {
    fn start(lab: &Lab) -> Self {
        Self(lab.edge().run(|| Ok(TcpListener::bind("127.0.0.1:0")?)).unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next connection.
    pub(super) fn accept(&self) -> End<TcpStream> {
        self.0.set_nonblocking(true).unwrap();
        let begin = std::time::Instant::now();
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return End(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            assert!(begin.elapsed() < PATIENCE, "nobody came");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nobody has come but those that were accepted.
    pub(super) fn is_quiet(&self) {
        self.0.set_nonblocking(true).unwrap();
        std::thread::sleep(QUIET);
        assert_eq!(self.0.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// One end of a connection.
pub(super) struct End<S>(pub(super) S);

pub(super) type Tls = StreamOwned<ClientConnection, TcpStream>;

impl<S: Read + Write> End<S> {
    pub(super) fn send(&mut self, text: &str) -> &mut Self {
        self.0.write_all(text.as_bytes()).unwrap();
        self.0.flush().unwrap();
        self
    }

    /// The next bytes, so many.
    pub(super) fn take(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// The next head, with its last empty line.
    pub(super) fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push_str(&self.take(1));
        }
        head
    }

    /// The other end has closed, or broken off; nothing came before that.
    pub(super) fn is_closed(&mut self) {
        match self.0.read(&mut [0; 1]) {
            Ok(0) => {}
            Ok(_) => panic!("there is something to read"),
            Err(error) => assert!(
                !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "it is open"
            ),
        }
    }
}

impl End<Tls> {
    /// Nothing comes.
    pub(super) fn is_quiet(&mut self) {
        self.0.sock.set_read_timeout(Some(QUIET)).unwrap();
        let error = self.0.read(&mut [0; 1]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        self.0.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

/// A client of the relay, that offers these protocols.
pub(super) fn client(lab: &Lab, protocols: &[&[u8]]) -> End<Tls> {
    let target = SocketAddr::new(edge(Family::V4), HTTPS);
    let stream = lab.peer(Peer::Exchange).run(|| Ok(TcpStream::connect(target)?)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut config = (*lab.authority().client().unwrap()).clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(RELAY_NAME).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).unwrap();
    }
    End(tls)
}

pub(super) fn setting() -> (Setting, Server) {
    let mut setting = Setting::new();
    let server = Server::start(&setting.lab);
    add_proxy(&mut setting.agent, &[server.url()]);
    setting.agent.set("route.exchange.idle_timeout", "2s").unwrap();
    setting.agent.set("route.exchange.body_size", "1KiB").unwrap();
    setting.agent.set("upstream.exchange.response_timeout", "2s").unwrap();
    setting.agent.set("upstream.exchange.breaker.failures", 1000).unwrap();
    (setting, server)
}

pub(super) fn started() -> (Setting, Server) {
    let (mut setting, server) = setting();
    setting.agent.start().unwrap();
    (setting, server)
}

pub(super) fn post(fields: &str, body: &str) -> String {
    format!("POST /EWS/Exchange.asmx HTTP/1.1\r\nHost: {RELAY_NAME}\r\n{fields}\r\n{body}")
}

/// The values of the fields of a name, in their order.
pub(super) fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let field = |line: &'a str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().filter_map(field).collect()
}

#[test]
fn a_client_waits_until_the_server_wants_the_body() {
    let (setting, server) = started();
    let expects = post("Expect: 100-continue\r\nContent-Length: 5\r\n", "");

    let mut asks = client(&setting.lab, &[]);
    asks.send(&expects);
    let mut upstream = server.accept();
    assert_eq!(values(&upstream.head(), "expect"), ["100-continue"]);
    asks.is_quiet();
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(asks.head().starts_with("HTTP/1.1 100 "));
    asks.send("12345");
    assert_eq!(upstream.take(5), "12345");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert!(asks.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(asks.take(2), "ok");

    // The same connections serve the next one, that is refused before its body.
    asks.send(&expects);
    upstream.head();
    upstream.send(
        "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"a\"\r\nContent-Length: 2\r\n\r\nno",
    );
    let refused = asks.head();
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    assert_eq!(values(&refused, "connection"), ["close"]);
    assert_eq!(asks.take(2), "no");
    asks.is_closed();
    upstream.is_closed();

    // A server that does not know the expectation gets the body all the same.
    let mut asks = client(&setting.lab, &[]);
    asks.send(&expects);
    let mut upstream = server.accept();
    upstream.head();
    assert!(asks.head().starts_with("HTTP/1.1 100 "));
    asks.send("12345");
    assert_eq!(upstream.take(5), "12345");
}

#[test]
fn a_client_that_waits_for_the_server_is_not_slow() {
    let (mut setting, server) = setting();
    setting.agent.listener().unwrap().insert("body_timeout".to_owned(), "1s".into());
    setting.agent.set("upstream.exchange.response_timeout", "10s").unwrap();
    setting.agent.start().unwrap();
    let mut asks = client(&setting.lab, &[]);
    asks.send(&post("Expect: 100-continue\r\nContent-Length: 5\r\n", ""));
    let mut upstream = server.accept();
    upstream.head();
    // The relay asks for the body when the server has said nothing for a second.
    assert!(asks.head().starts_with("HTTP/1.1 100 "));
    std::thread::sleep(QUIET);
    asks.send("12345");
    assert_eq!(upstream.take(5), "12345");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert!(asks.head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_is_silent_for_long_is_asked_by_the_kernel_on_both_sides() {
    let (setting, server) = started();
    let mut asks = client(&setting.lab, &[]);
    asks.send(&format!("GET /EWS/stream HTTP/1.1\r\nHost: {RELAY_NAME}\r\n\r\n"));
    let mut upstream = server.accept();
    upstream.head();
    let port = server.0.local_addr().unwrap().port();
    for end in [format!("sport = :{HTTPS}"), format!("dport = :{port}")] {
        let mut command = setting.lab.edge().command("ss");
        command.args(["-H", "-t", "-n", "-o", "state", "established", &end]);
        let begin = std::time::Instant::now();
        loop {
            let shown = process::run(&mut command, PATIENCE).unwrap().stdout;
            let timers: Vec<_> = shown.lines().map(|line| line.split("timer:").nth(1)).collect();
            // Another timer runs as long as what was sent is not acknowledged.
            let is_asked = |timer: &Option<&str>| {
                timer.is_some_and(|timer| {
                    timer.starts_with("(keepalive,5") || timer.starts_with("(keepalive,1min")
                })
            };
            if !timers.is_empty() && timers.iter().all(is_asked) {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{end}: {shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn bodies_go_on_as_they_come() {
    let (setting, server) = started();
    let mut asks = client(&setting.lab, &[]);
    asks.send(&post("Transfer-Encoding: chunked\r\n", ""));
    let mut upstream = server.accept();
    upstream.head();
    for _ in 0..3 {
        asks.send("4\r\n<a/>\r\n");
        assert_eq!(upstream.take(9), "4\r\n<a/>\r\n");
        // All of it takes longer than the server has for its answer.
        std::thread::sleep(Duration::from_secs(1));
    }
    asks.send("0\r\n\r\n");
    assert_eq!(upstream.take(5), "0\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(asks.head().starts_with("HTTP/1.1 200 "));
    for _ in 0..3 {
        upstream.send("4\r\n<b/>\r\n");
        assert_eq!(asks.take(9), "4\r\n<b/>\r\n");
        std::thread::sleep(Duration::from_secs(1));
    }
    // Silence for longer than idle_timeout ends both.
    asks.is_closed();
    upstream.is_closed();
}

#[test]
fn what_is_the_clients_and_the_servers_is_left_alone() {
    let (setting, server) = started();
    let mut asks = client(&setting.lab, &[b"h2", b"http/1.1"]);
    assert_eq!(asks.0.conn.alpn_protocol(), Some(&b"http/1.1"[..]), "only HTTP/1.1 is offered");
    asks.send(&post(
        "Authorization: Bearer abc.def\r\nCookie: X-BackEndCookie=S-1-5; a=b\r\nCookie: c=d\r\n\
         X-AnchorMailbox: a@example.com\r\nX-PreferServerAffinity: true\r\nIdempotency-Key: 7\r\n\
         Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
         X-Forwarded-For: 192.0.2.9\r\nContent-Length: 0\r\n",
        "",
    ));
    let mut upstream = server.accept();
    let head = upstream.head();
    assert!(head.starts_with("POST /EWS/Exchange.asmx HTTP/1.1\r\n"), "{head}");
    assert_eq!(values(&head, "host"), [RELAY_NAME]);
    assert_eq!(values(&head, "authorization"), ["Bearer abc.def"]);
    assert_eq!(values(&head, "cookie"), ["X-BackEndCookie=S-1-5; a=b", "c=d"]);
    assert_eq!(values(&head, "x-anchormailbox"), ["a@example.com"]);
    assert_eq!(values(&head, "x-preferserveraffinity"), ["true"]);
    assert_eq!(values(&head, "idempotency-key"), ["7"]);
    assert_eq!(values(&head, "content-length"), ["0"], "IIS asks for a length");
    let source = Peer::Exchange.address(Family::V4).to_string();
    assert_eq!(values(&head, "x-forwarded-for"), [source.as_str()]);
    for gone in ["connection", "x-mine", "keep-alive", "te", "transfer-encoding"] {
        assert_eq!(values(&head, gone), [""; 0], "{gone}");
    }
    upstream.send(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nSet-Cookie: a=1; path=/\r\n\
         WWW-Authenticate: NTLM\r\nWWW-Authenticate: Basic realm=\"m, x\"\r\nSet-Cookie: b=2\r\n\
         request-id: 5\r\nX-FEServer: EX1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
    );
    let head = asks.head();
    let challenges = ["Negotiate", "NTLM", "Basic realm=\"m, x\""];
    assert_eq!(values(&head, "www-authenticate"), challenges, "each in its line, in order");
    assert_eq!(values(&head, "set-cookie"), ["a=1; path=/", "b=2"]);
    assert_eq!(values(&head, "x-feserver"), ["EX1"]);
    assert_eq!(values(&head, "keep-alive"), [""; 0]);

    // Refused without the server hearing of it.
    let mut other = client(&setting.lab, &[]);
    other.send(&post("Connection: Upgrade\r\nUpgrade: websocket\r\n", ""));
    assert!(other.head().starts_with("HTTP/1.1 403 "));
    let mut other = client(&setting.lab, &[]);
    other.send(&post("Content-Length: 1025\r\n", ""));
    assert!(other.head().starts_with("HTTP/1.1 413 "));
    let mut other = client(&setting.lab, &[]);
    other.send(&format!("GET /EWS/..%2fowa HTTP/1.1\r\nHost: {RELAY_NAME}\r\n\r\n"));
    assert!(other.head().starts_with("HTTP/1.1 400 "));
    server.is_quiet();

    // A body that grows too large in the sending ends both ends.
    let mut other = client(&setting.lab, &[]);
    other
        .send(&post("Transfer-Encoding: chunked\r\n", &format!("400\r\n{}\r\n", "x".repeat(1024))));
    let mut upstream = server.accept();
    upstream.head();
    other.send("1\r\nx\r\n");
    assert!(other.head().starts_with("HTTP/1.1 413 "));
    let mut rest = Vec::new();
    let _ = upstream.0.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the server must not take it for whole");
}

const CHALLENGE: &str =
    "HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM TlRMTVNTUAAC\r\nContent-Length: 0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn an_authenticated_connection_is_its_clients_alone_and_ends_with_it() {
    let (setting, server) = started();
    let ntlm = post("Authorization: NTLM TlRMTVNTUAAB\r\nContent-Length: 0\r\n", "");
    let plain = post("Content-Length: 0\r\n", "");
    let authenticated = || {
        let mut asks = client(&setting.lab, &[]);
        asks.send(&ntlm);
        let mut upstream = server.accept();
        assert_eq!(values(&upstream.head(), "authorization"), ["NTLM TlRMTVNTUAAB"]);
        upstream.send(CHALLENGE);
        asks.head();
        asks.send(&ntlm);
        upstream.head();
        upstream.send(OK);
        asks.head();
        (asks, upstream)
    };
    // The client goes, and with it the connection.
    let (asks, mut upstream) = authenticated();
    drop(asks);
    upstream.is_closed();

    // The server goes, and with it the client's connection, although it is idle.
    let (mut asks, upstream) = authenticated();
    drop(upstream);
    asks.is_closed();

    // Others have theirs, and the first one keeps its own.
    let (mut first, mut of_first) = authenticated();
    let mut second = client(&setting.lab, &[]);
    second.send(&plain);
    let mut of_second = server.accept();
    of_second.head();
    of_second.send(OK);
    second.head();
    first.send(&plain);
    of_first.head();

    // What was sent once is not sent again.
    drop(of_first);
    let head = first.head();
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(values(&head, "connection"), ["close"]);
    first.is_closed();
    server.is_quiet();

    // Nor is a request without an answer.
    let (mut asks, mut upstream) = authenticated();
    asks.send(&plain);
    upstream.head();
    let head = asks.head();
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    asks.is_closed();
    upstream.is_closed();
    server.is_quiet();

    // A server that says that it closes is believed, and the client is told.
    let (mut asks, mut upstream) = authenticated();
    asks.send(&plain);
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(values(&asks.head(), "connection"), ["close"]);
    asks.is_closed();
    upstream.is_closed();
}

#[test]
fn whoever_is_nobody_does_not_notice_that_a_server_closes() {
    let (setting, server) = started();
    let plain = post("Authorization: Basic dTpw\r\nContent-Length: 2\r\n", "ab");
    let mut asks = client(&setting.lab, &[]);
    for last in [false, true] {
        asks.send(&plain);
        let mut upstream = server.accept();
        upstream.head();
        upstream.take(2);
        let close = if last { "Connection: close\r\n" } else { "" };
        upstream.send(&format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 0\r\n\r\n"));
        let head = asks.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(values(&head, "connection"), [""; 0]);
        drop(upstream);
    }
    // What may have been done is not done again, and what may be done twice is.
    asks.send(&plain);
    let mut upstream = server.accept();
    upstream.head();
    drop(upstream);
    assert!(asks.head().starts_with("HTTP/1.1 502 "));
    server.is_quiet();
    asks.send(&format!("GET /EWS/a HTTP/1.1\r\nHost: {RELAY_NAME}\r\n\r\n"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    assert!(asks.head().starts_with("HTTP/1.1 200 "));
    asks.send(&format!("GET /EWS/a HTTP/1.1\r\nHost: {RELAY_NAME}\r\n\r\n"));
    upstream.head();
    drop(upstream);
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    assert!(asks.head().starts_with("HTTP/1.1 200 "));
}
