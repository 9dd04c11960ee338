//! Programs of the distribution that tests call, and the packages that hold them.
//!
//! Only root can install packages. Without root they are named and the work goes on: the
//! tests that need one fail and say so.

use crate::command::{find_program, run_download};
use anyhow::Result;
use std::{fs, os::unix::fs::MetadataExt, process::Command};

/// A program that must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// What is looked for in `PATH`.
    pub(crate) name: &'static str,
    /// Debian's package that holds it.
    pub(crate) package: &'static str,
    /// What it is needed for.
    pub(crate) why: &'static str,
}

/// Everything that a build or a test calls and Rust's tools do not bring.
pub(crate) const PROGRAMS: &[Program] = &[
    Program { name: "cc", package: "gcc", why: "links host programs and builds C libraries" },
    Program { name: "c++", package: "g++", why: "builds libFuzzer" },
    Program { name: "ip", package: "iproute2", why: "makes the lab's namespaces and links" },
    Program {
        name: "ipset",
        package: "ipset",
        why: "takes exported lists, and is measured beside",
    },
    Program {
        name: "nats-server",
        package: "nats-server",
        why: "is the cluster that a shared spool is tested on",
    },
    Program {
        name: "nft",
        package: "nftables",
        why: "takes exported lists, and is measured beside",
    },
    Program { name: "nginx", package: "nginx-light", why: "serves lists over HTTPS in the lab" },
    Program {
        name: "nsenter",
        package: "util-linux",
        why: "runs programs in the lab without hiding bpffs, as `ip netns exec` does",
    },
    Program { name: "strace", package: "strace", why: "kills the agent right before a step" },
    Program { name: "unbound", package: "unbound", why: "answers for DNS names in the lab" },
    Program {
        name: "prlimit",
        package: "util-linux",
        why: "takes file descriptors from a running agent",
    },
    Program { name: "python3", package: "python3", why: "runs independent clients and servers" },
];

/// The proxies that the relay is measured beside. Only that needs them, and installing
/// them starts a service where systemd runs.
pub(crate) const PROXIES: &[Program] = &[
    Program { name: "haproxy", package: "haproxy", why: "is measured beside the relay" },
    Program { name: "nginx", package: "nginx", why: "is measured beside the relay" },
];

/// Those of the programs that are not there.
pub(crate) fn missing(programs: &'static [Program]) -> Vec<&'static Program> {
    programs.iter().filter(|program| find_program(program.name).is_none()).collect()
}

/// The command that installs them.
pub(crate) fn install_line(missing: &[&Program]) -> String {
    format!("apt-get install --no-install-recommends {}", packages_of(missing).join(" "))
}

/// Installs what is missing as root; otherwise names it.
pub(crate) fn ensure(programs: &'static [Program]) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    for program in &missing {
        eprintln!("missing: {} ({}), which {}", program.name, program.package, program.why);
    }
    if !is_root() || find_program("apt-get").is_none() {
        eprintln!("as root, run\n  {}", install_line(&missing));
        return Ok(());
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
        command
    };
    run_download(apt().arg("update"))?;
    run_download(
        apt().args(["install", "--yes", "--no-install-recommends"]).args(packages_of(&missing)),
    )
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

fn packages_of(missing: &[&Program]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once() {
        let a = Program { name: "ip", package: "iproute2", why: "" };
        let b = Program { name: "tc", package: "iproute2", why: "" };
        assert_eq!(install_line(&[&a, &b]), "apt-get install --no-install-recommends iproute2");
    }
}
