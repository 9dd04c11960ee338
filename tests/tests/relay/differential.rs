//! Framing, held against nginx and haproxy: what both refuse is not passed on, and what
//! we and one of them pass on is the same to the server behind. There are no exceptions.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Child,
    time::{Duration, Instant},
};

use exogate_tests::{lab::Lab, pega::Pega, raw::Below};

use super::{
    SOON, Setting,
    hostile::{ENDED, PROXIED, Place, QUIET, one},
    identities::add_proxy,
    smuggling::smuggled,
};

const NGINX: &str = "
daemon off;
pid PLACE/pid;
error_log PLACE/error.log;
events {}
http {
    access_log off;
    client_body_temp_path PLACE/body;
    proxy_temp_path PLACE/proxy;
    fastcgi_temp_path PLACE/fastcgi;
    uwsgi_temp_path PLACE/uwsgi;
    scgi_temp_path PLACE/scgi;
    server {
        listen 127.0.0.1:8191;
        location / {
            proxy_pass http://127.0.0.1:8092;
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }
    }
}";

const HAPROXY: &str = "
defaults
    mode http
    timeout connect 3s
    timeout client 3s
    timeout server 3s
listen one
    bind 127.0.0.1:8192
    server pega 127.0.0.1:8093
";

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(lab: &Lab, name: &str, text: &str, arguments: &[&str]) -> Program {
    let place = lab.directory().join(name);
    fs::create_dir(&place).unwrap();
    let config = place.join("config");
    fs::write(&config, text.replace("PLACE", place.to_str().unwrap())).unwrap();
    let mut command = lab.edge().command(name);
    Program(command.args(arguments).arg(&config).spawn().unwrap())
}

fn connect(lab: &Lab, port: u16) -> TcpStream {
    let begin = Instant::now();
    loop {
        match lab.edge().run(|| Ok(TcpStream::connect(("127.0.0.1", port))?)) {
            Ok(stream) => return stream,
            Err(error) => assert!(begin.elapsed() < SOON, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A proxy, and what is behind it.
struct Behind<'a> {
    name: &'static str,
    port: u16,
    server: &'a Pega,
}

impl Behind<'_> {
    /// Whether it takes the first request of these bytes, and the bodies of all requests
    /// that reach the server.
    fn makes_of(&self, lab: &Lab, bytes: &[u8]) -> (bool, Vec<String>) {
        arrive(self.server, || {
            let mut stream = connect(lab, self.port);
            let _ = stream.write_all(bytes);
            let mut answer = Vec::new();
            let mut part = [0; 4096];
            // The first answer may take its time. What follows is there by then, or comes at
            // once; but where it is known to end, its end is waited for.
            let ends = bytes.windows(CLOSE.len()).any(|window| window == CLOSE);
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            while let Ok(count @ 1..) = stream.read(&mut part) {
                answer.extend_from_slice(&part[..count]);
                if !ends {
                    stream.set_read_timeout(Some(QUIET)).unwrap();
                }
            }
            answer.starts_with(b"HTTP/1.1 200")
        })
    }
}

/// The last request on its connection has it.
const CLOSE: &[u8] = b"Connection: close";

/// What comes of an exchange, and the bodies of the requests that arrive by it.
fn arrive<T>(server: &Pega, exchange: impl FnOnce() -> T) -> (T, Vec<String>) {
    let before = server.received().len();
    let result = exchange();
    let arrived = server.received().split_off(before);
    let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
    (result, arrived.iter().map(|request| text(&request.body)).collect())
}

/// Requests that are framed in unusual ways, and in one way only: all take them.
fn sound() -> Vec<(String, String, bool)> {
    let post = format!("POST {PROXIED} HTTP/1.1\r\nHost: a\r\n");
    let close = "Connection: close\r\n";
    let chunked = format!("{post}{close}Transfer-Encoding: chunked\r\n");
    [
        ("a length", format!("{post}{close}Content-Length: 3\r\n\r\none")),
        (
            "two in a row",
            format!("{post}Content-Length: 3\r\n\r\none{post}{close}Content-Length: 3\r\n\r\ntwo"),
        ),
        (
            "chunks, and another one",
            format!(
                "{post}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n\
                 {post}{close}Content-Length: 3\r\n\r\ntwo"
            ),
        ),
        ("blanks around a length", format!("{post}{close}Content-Length:   3  \r\n\r\none")),
        ("names in capitals", format!("{post}{close}CONTENT-LENGTH: 3\r\n\r\none")),
        ("a coding in capitals", chunked.replace("chunked", "Chunked") + "\r\n1\r\nx\r\n0\r\n\r\n"),
        ("zeros before a chunk size", format!("{chunked}\r\n0003\r\none\r\n0\r\n\r\n")),
        ("a chunk size in capitals", format!("{chunked}\r\nA\r\n0123456789\r\n0\r\n\r\n")),
        ("an extension of a chunk", format!("{chunked}\r\n3;a=b\r\none\r\n0\r\n\r\n")),
        ("a field behind the chunks", format!("{chunked}\r\n3\r\none\r\n0\r\nX-A: a\r\n\r\n")),
        ("an empty body in chunks", format!("{chunked}\r\n0\r\n\r\n")),
        ("an empty line before it", format!("\r\n{post}{close}Content-Length: 3\r\n\r\none")),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes, true))
    .into()
}

#[test]
fn what_is_passed_on_is_what_nginx_and_haproxy_make_of_it() {
    let mut setting = Setting::new();
    let servers = [8091, 8092, 8093].map(|port| Pega::start(&setting.lab, port).unwrap());
    add_proxy(&mut setting.agent, &[servers[0].url()]);
    setting.agent.start().unwrap();
    let lab = &setting.lab;
    let _nginx = start(lab, "nginx", NGINX, &["-c"]);
    let _haproxy = start(lab, "haproxy", HAPROXY, &["-db", "-q", "-f"]);
    let others = [
        Behind { name: "nginx", port: 8191, server: &servers[1] },
        Behind { name: "haproxy", port: 8192, server: &servers[2] },
    ];
    let (mut accepted, mut compared, mut stricter) = (0, 0, Vec::new());
    let dubious = smuggled().into_iter().map(|(name, bytes, _)| (name, bytes, false));
    for (name, bytes, is_sound) in dubious.chain(sound()) {
        let bytes = Place::Proxied.of(&bytes);
        let (ended, ours) =
            arrive(&servers[0], || one(&setting, Below::Http1, bytes.as_bytes(), ENDED));
        let statuses = ended.statuses();
        let is_accepted = statuses.first() == Some(&200);
        let well = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(ours.len(), well, "{name}: an answer for each request: {ours:?}");
        assert!(is_sound || well <= 1, "{name}: more than one request: {ours:?}");
        accepted += usize::from(is_accepted);
        let mut is_alone = true;
        for other in &others {
            let (takes, theirs) = other.makes_of(lab, bytes.as_bytes());
            assert!(takes && is_accepted || !is_sound, "{name}, {}: it is sound", other.name);
            is_alone &= !takes;
            if is_accepted && takes {
                assert_eq!(ours, theirs, "{name}: {} makes something else of it", other.name);
                compared += 1;
            }
        }
        assert!(!is_accepted || !is_alone, "{name:?} is refused by both");
        if !is_accepted && !is_alone {
            stricter.push(name);
        }
    }
    println!("accepted {accepted}, compared {compared}; stricter than one of them: {stricter:?}");
    assert!(compared >= 2 * sound().len(), "{compared}");
}
