//! Why a listener cannot be had.

use std::{io, path::PathBuf};

/// Why a listener does not listen, or shows no new certificates. `listener` is
/// its name as in metrics: its address, or `systemd:` and the name of its socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("listener {listener}: its address cannot be listened on: {source}; {}", hint(source))]
    Bind {
        /// The listener.
        listener: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket of systemd's is missing or of no use.
    #[error(
        "listener {listener}: {problem}; systemd_socket in its [[listener]] has to be the \
         FileDescriptorName= of a socket unit with ListenStream= and Service= of this service"
    )]
    Systemd {
        /// The listener.
        listener: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of a certificate, of its key or of authorities is of no use.
    #[error("listener {listener}: {file}: {problem}")]
    File {
        /// The listener.
        listener: String,
        /// The file.
        file: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The TLS library cannot work with all of it.
    #[error("listener {listener}: TLS cannot be set up: {source}")]
    Tls {
        /// The listener.
        listener: String,
        /// What the library said.
        source: rustls::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right that the service does not have: put \
             systemd_socket = \"https\" in the place of address, and run \
             `systemctl enable --now exogate.socket`"
        }
        _ => "see which program has it (ss -ltnp), or change address in its [[listener]]",
    }
}
