//! What a request asks for, read once.

use std::net::Ipv6Addr;

use hyper::{
    header::HOST,
    http::{request::Parts, uri::PathAndQuery},
};

use super::{path::normalise, query};

/// Longest path with query.
const LONGEST: usize = 8 << 10;

/// What a request asks for: host, path and query in the only form in which the
/// relay knows them.
///
/// It holds secrets: paths that nobody can guess, and parameters. Logs get
/// [`Target::redacted`], or better the name of the route.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    path_and_query: PathAndQuery,
}

/// Why a target is refused. The answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadTarget {
    /// `*`, or a host and port for CONNECT.
    #[error("the target is not a path")]
    Form,
    /// It is longer than any that a sender has a reason for.
    #[error("the target is longer than {LONGEST} bytes")]
    TooLong,
    /// There is none.
    #[error("the request names no host")]
    NoHost,
    /// Several `Host` fields, or one that contradicts the target.
    #[error("the request names several hosts")]
    SeveralHosts,
    /// It is neither a name nor an address, or it comes with a user.
    #[error("the host is not a host name")]
    Host,
    /// A `%` without two hexadecimal digits.
    #[error("the path has an incomplete escape")]
    Escape,
    /// An escaped slash, backslash, semicolon or percent sign.
    #[error("the path has an escaped separator")]
    Encoded,
    /// A backslash.
    #[error("the path has a backslash")]
    Backslash,
    /// `.` or `..`, escaped or not.
    #[error("the path has a dot segment")]
    DotSegment,
    /// Two slashes in a row.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A semicolon.
    #[error("the path has a parameter")]
    PathParameter,
    /// A control character or one beyond ASCII, escaped or not.
    #[error("the path has a character that is not printable ASCII")]
    Byte,
    /// A control character, escaped or not, or a character beyond ASCII.
    #[error("the query has a character that is not printable ASCII")]
    Query,
}

impl BadTarget {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::TooLong => "too_long",
            Self::NoHost => "no_host",
            Self::SeveralHosts => "several_hosts",
            Self::Host => "host",
            Self::Escape => "escape",
            Self::Encoded => "encoded",
            Self::Backslash => "backslash",
            Self::DotSegment => "dot_segment",
            Self::EmptySegment => "empty_segment",
            Self::PathParameter => "path_parameter",
            Self::Byte => "byte",
            Self::Query => "query",
        }
    }
}

impl Target {
    /// Reads host, path and query of a request.
    ///
    /// # Errors
    ///
    /// [`BadTarget`].
    pub fn parse(head: &Parts) -> Result<Self, BadTarget> {
        let target = head.uri.path_and_query().ok_or(BadTarget::Form)?;
        if target.as_str().len() > LONGEST {
            return Err(BadTarget::TooLong);
        }
        let path = normalise(target.path())?;
        let query = target.query();
        query.map_or(Ok(()), query::check)?;
        let host = host(head)?;
        // A clone of what hyper read costs nothing. Its query may follow an empty
        // path, which only looks like "/".
        let path_and_query = if *path == *target.path() && target.as_str().starts_with('/') {
            target.clone()
        } else {
            let text = match query {
                Some(query) => format!("{path}?{query}"),
                None => path.into_owned(),
            };
            PathAndQuery::try_from(text).map_err(|_| BadTarget::Byte)?
        };
        Ok(Self { host, path_and_query })
    }

    /// The host, in lower case, without port and final dot.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// The query, as it came.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.path_and_query.query()
    }

    /// Path and query.
    #[must_use]
    pub const fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }

    /// Host, path and the names of the parameters, for logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        let mut text = [&self.host, self.path()].concat();
        let names = self.query().into_iter().flat_map(|query| query.split('&'));
        for (separator, parameter) in ['?'].into_iter().chain(std::iter::repeat('&')).zip(names) {
            text.push(separator);
            match parameter.split_once('=') {
                Some((name, _)) => text.extend([name, "=..."]),
                // It may be a value as well.
                None => text.push_str("..."),
            }
        }
        text
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// The one host that a request is for.
fn host(head: &Parts) -> Result<String, BadTarget> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = match fields.next() {
        Some(field) => {
            let text = field.to_str().map_err(|_| BadTarget::Host)?;
            Some(plain_host(text)?)
        }
        None => None,
    };
    if fields.next().is_some() {
        return Err(BadTarget::SeveralHosts);
    }
    let authority = head.uri.authority().map(|authority| plain_host(authority.as_str()));
    match (authority.transpose()?, field) {
        (Some(authority), Some(field)) if authority != field => Err(BadTarget::SeveralHosts),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(BadTarget::NoHost),
    }
}

/// A host without its port, in the form in which hosts are compared.
fn plain_host(text: &str) -> Result<String, BadTarget> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(BadTarget::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| BadTarget::Host)?;
            (format!("[{address}]"), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at_checked(end).ok_or(BadTarget::Host)?;
            let name = name.strip_suffix('.').unwrap_or(name);
            let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_fine) {
                return Err(BadTarget::Host);
            }
            (name.to_ascii_lowercase(), port)
        }
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    if is_port { Ok(host) } else { Err(BadTarget::Host) }
}
