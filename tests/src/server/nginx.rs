//! nginx, with TLS by the lab's authority.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Server;
use crate::{
    lab::{Lab, Namespace},
    tls::Validity,
};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    _server: Server,
    directory: PathBuf,
}

impl Nginx {
    /// Starts one on a host of the lab, at addresses that the host has, which are also in
    /// its certificate. `locations` are nginx's own words, one `location` block or more;
    /// relative paths in them are below [`Nginx::files`].
    ///
    /// # Errors
    ///
    /// If nginx is not installed, or refuses its configuration.
    pub fn start(
        lab: &Lab,
        host: &Namespace,
        addresses: &[SocketAddr],
        locations: &str,
    ) -> Result<Self> {
        let directory = Server::directory(lab, "nginx")?;
        fs::create_dir(directory.join("www"))?;
        let names: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (certificate, key) = lab.authority().issue_pem(&names, Validity::Now)?;
        fs::write(directory.join("certificate.pem"), certificate)?;
        fs::write(directory.join("key.pem"), key)?;
        let listen: String =
            addresses.iter().map(|address| format!("    listen {address} ssl;\n")).collect();
        let root = directory.display();
        let config = directory.join("nginx.conf");
        fs::write(
            &config,
            format!(
                "daemon off;
user root;
pid {root}/pid;
error_log {root}/output;
events {{}}
http {{
  log_format lab '$status $request_uri';
  access_log {root}/access lab;
  client_body_temp_path {root}/tmp;
  proxy_temp_path {root}/tmp;
  fastcgi_temp_path {root}/tmp;
  scgi_temp_path {root}/tmp;
  uwsgi_temp_path {root}/tmp;
  server {{
{listen}    ssl_certificate {root}/certificate.pem;
    ssl_certificate_key {root}/key.pem;
    root {root}/www;
    {locations}
  }}
}}
"
            ),
        )?;
        let config = config.to_str().context("a path that is not UTF-8")?;
        let root = directory.to_str().context("a path that is not UTF-8")?;
        let command = ["nginx", "-p", root, "-e", "output", "-c", config];
        let server = Server::start(lab, host, &directory, &command, addresses)?;
        Ok(Self { _server: server, directory })
    }

    /// The directory whose files it serves.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.directory.join("www")
    }

    /// Replaces a file that it serves, in one step.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn put(&self, name: &str, content: &str) -> Result<()> {
        let next = self.directory.join("next");
        fs::write(&next, content)?;
        let path = self.files().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(fs::rename(next, path)?)
    }

    /// The requests so far, as status and path with query.
    #[must_use]
    pub fn requests(&self) -> Vec<(u16, String)> {
        let log = fs::read_to_string(self.directory.join("access")).unwrap_or_default();
        let split = |line: &str| {
            let (status, path) = line.split_once(' ')?;
            Some((status.parse().ok()?, path.to_owned()))
        };
        log.lines().filter_map(split).collect()
    }
}
