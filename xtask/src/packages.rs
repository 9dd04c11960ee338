//! Programs of the distribution that tests call, and the packages that hold them.
//!
//! Only root can install packages. Without root they are named and the work goes on: the
//! tests that need one fail and say so.

use crate::command::{find_program, run_download};
use anyhow::{Result, bail};
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

/// What a build and the demonstration call, and Rust's tools do not bring.
pub(crate) const PROGRAMS: &[Program] = &[
    Program { name: "cc", package: "gcc", why: "links host programs and builds C libraries" },
    Program { name: "ip", package: "iproute2", why: "makes the lab's namespaces and links" },
    Program {
        name: "nsenter",
        package: "util-linux",
        why: "runs programs in the lab without hiding bpffs, as `ip netns exec` does",
    },
];

/// What tests and benchmarks call besides.
pub(crate) const TEST_PROGRAMS: &[Program] = &[
    Program { name: "c++", package: "g++", why: "builds libFuzzer" },
    Program { name: "curl", package: "curl", why: "is a client that knows NTLM" },
    Program { name: "ethtool", package: "ethtool", why: "readies interfaces for benchmarks" },
    Program { name: "fish", package: "fish", why: "reads the completions that are for it" },
    Program { name: "groff", package: "groff-base", why: "reads the manual pages" },
    Program {
        name: "haproxy",
        package: "haproxy",
        why: "agrees on framing, and is measured beside the relay",
    },
    Program {
        name: "chromium-headless-shell",
        package: "chromium-headless-shell",
        why: "reads the status page",
    },
    Program {
        name: "ipset",
        package: "ipset",
        why: "takes exported lists, and is measured beside",
    },
    Program { name: "iptables", package: "iptables", why: "is measured beside, with ipset" },
    Program { name: "mkfs.ext4", package: "e2fsprogs", why: "makes the disk of a guest" },
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
    Program {
        name: "nginx",
        package: "nginx-light",
        why: "serves lists in the lab, agrees on framing, and is measured beside the relay",
    },
    Program { name: "objcopy", package: "binutils", why: "makes a guest's program small" },
    Program {
        name: "prlimit",
        package: "util-linux",
        why: "takes file descriptors from a running agent",
    },
    Program { name: "prometheus", package: "prometheus", why: "scrapes the agent" },
    Program { name: "promtool", package: "prometheus", why: "reads the rules and the dashboard" },
    Program { name: "python3", package: "python3", why: "runs independent clients and servers" },
    Program {
        name: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "is the machine whose power is cut",
    },
    Program {
        name: "systemd-nspawn",
        package: "systemd-container",
        why: "boots the machine that the package is installed on",
    },
    Program { name: "rpm", package: "rpm", why: "installs the package for others than Debian" },
    Program {
        name: "strace",
        package: "strace",
        why: "ends the agent before a step, fails a disk",
    },
    Program { name: "testssl", package: "testssl.sh", why: "looks for faults in the relay's TLS" },
    Program { name: "unbound", package: "unbound", why: "answers for DNS names in the lab" },
    Program { name: "xz", package: "xz-utils", why: "unpacks modules of guests' kernels" },
    Program { name: "unshare", package: "util-linux", why: "gives the spool a disk that is full" },
    Program { name: "xdp-filter", package: "xdp-tools", why: "is measured beside" },
    Program { name: "zsh", package: "zsh", why: "reads the completions that are for it" },
];

/// Those programs that are not there.
pub(crate) fn missing(programs: &[Program]) -> Vec<&Program> {
    programs.iter().filter(|program| find_program(program.name).is_none()).collect()
}

/// The command that installs them.
pub(crate) fn install_line(missing: &[&Program]) -> String {
    format!("apt-get install --no-install-recommends {}", packages_of(missing).join(" "))
}

/// Installs a package that has no program to look for.
pub(crate) fn install(package: &str) -> Result<()> {
    if !is_root() || find_program("apt-get").is_none() {
        bail!("as root, run\n  apt-get install --no-install-recommends {package}");
    }
    apt_install(&[package])
}

/// Installs what is missing as root; otherwise names it.
pub(crate) fn ensure(programs: &[Program]) -> Result<()> {
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
    apt_install(&packages_of(&missing))
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
        command
    };
    run_download(apt().arg("update"))?;
    run_download(apt().args(["install", "--yes", "--no-install-recommends"]).args(packages))
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
