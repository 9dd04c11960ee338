//! Framing, held against nginx and haproxy: what both refuse is not passed on, and what
//! is passed on is one request.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Child,
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::relay::GRAPH,
    lab::Lab,
    pega::Pega,
    raw::{Below, exchanges},
};

use super::{
    SOON, Setting,
    hostile::{ENDED, PROXIED},
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
    server pega 127.0.0.1:8092
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

/// Whether a proxy takes the first request of these bytes.
fn takes(lab: &Lab, port: u16, bytes: &[u8]) -> bool {
    let mut stream = connect(lab, port);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 200"
}

#[test]
fn what_nginx_and_haproxy_refuse_is_not_passed_on() {
    let mut setting = Setting::new();
    let servers = [8091, 8092].map(|port| Pega::start(&setting.lab, port).unwrap());
    add_proxy(&mut setting.agent, &[servers[0].url()]);
    setting.agent.start().unwrap();
    let _nginx = start(&setting.lab, "nginx", NGINX, &["-c"]);
    let _haproxy = start(&setting.lab, "haproxy", HAPROXY, &["-db", "-q", "-f"]);
    let corpus: Vec<_> = smuggled()
        .into_iter()
        .map(|(name, bytes, _)| (name, bytes.replace(GRAPH, PROXIED)))
        .collect();
    let all: Vec<_> = corpus.iter().map(|(_, bytes)| vec![bytes.as_bytes()]).collect();
    let ended = exchanges(&setting.lab, Below::Http1, &all, Duration::ZERO, ENDED).unwrap();
    let mut accepted = 0;
    let mut stricter = Vec::new();
    for ((name, bytes), ended) in corpus.iter().zip(ended) {
        let ours = ended.statuses() == [200];
        let [nginx, haproxy] = [8191, 8192].map(|port| takes(&setting.lab, port, bytes.as_bytes()));
        assert!(!ours || nginx || haproxy, "{name:?} is refused by both");
        if !ours && (nginx || haproxy) {
            stricter.push(name);
        }
        accepted += usize::from(ours);
    }
    println!("accepted {accepted} of {}; stricter than one of them: {stricter:?}", corpus.len());
    assert_eq!(servers[0].received().len(), accepted);
    // They do take what is sound, or the comparison is worth nothing.
    let sound = format!("POST {PROXIED} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert!([8191, 8192].into_iter().all(|port| takes(&setting.lab, port, sound.as_bytes())));
}
