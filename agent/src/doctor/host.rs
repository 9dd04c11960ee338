//! The host: its kernel, what this process may do, forwarding.

use std::{fs, path::Path};

use super::Finding;
use crate::{
    admin::api::Status,
    config::{Config, Mode},
    daemon::is_forwarding,
    gate::survey,
};

/// Major and minor number of a kernel release, `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn kernel() -> Vec<Finding> {
    let release = survey::kernel();
    let mut findings = vec![judge(&release)];
    findings.push(match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Finding::ok("btf", "the kernel describes its types (BTF)"),
        false => Finding::ok("btf", "the kernel has no BTF; exogate needs none"),
    });
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    findings.push(match jit.trim() {
        "0" => Finding::warning(
            "jit",
            "BPF programs are interpreted, which makes every packet slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        _ => Finding::ok("jit", "BPF programs are compiled"),
    });
    findings
}

/// What a kernel can do for the gate.
fn judge(release: &str) -> Finding {
    let Some(version) = version(release) else {
        return Finding::warning(
            "kernel",
            format!("the kernel's release {release:?} says no version"),
            "make sure that it is Linux 5.10 or later",
        );
    };
    let limits = [
        ((5, 11), "counts maps as locked memory, so the limit of it must be raised"),
        ((5, 18), "takes no jumbo frames in native mode"),
        ((5, 19), "leaves CAP_BPF with the agent"),
    ];
    let limits: Vec<_> =
        limits.into_iter().filter(|(from, _)| version < *from).map(|(_, limit)| limit).collect();
    match limits.as_slice() {
        _ if version < (5, 10) => Finding::failure(
            "kernel",
            format!("Linux {release} is too old for the XDP program"),
            "install Linux 5.10 or later",
        ),
        [] => Finding::ok("kernel", format!("Linux {release}")),
        limits => Finding::warning(
            "kernel",
            format!("Linux {release} {}", limits.join(", and ")),
            "install Linux 5.19 or later, if that matters here",
        ),
    }
}

pub(super) fn capabilities(status: Option<&Status>) -> Finding {
    match (survey::may_attach(), status) {
        (true, _) => Finding::ok(
            "capabilities",
            "this user has CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, which attaching needs",
        ),
        (false, Some(status)) if !status.interfaces.is_empty() => Finding::ok(
            "capabilities",
            "the agent has attached the filter; this user could not, and sees less here",
        ),
        (false, _) => Finding::failure(
            "capabilities",
            "this user lacks CAP_BPF, CAP_NET_ADMIN or CAP_PERFMON, which attaching needs",
            "run this command as root; the packaged unit gives them to the agent",
        ),
    }
}

pub(super) fn forwarding(config: &Config) -> Finding {
    const NEXT: &str = "set gate.destinations: \"local\" guards this host's own addresses alone";
    let open = config.gate.destinations.is_none();
    match (is_forwarding(), config.mode) {
        (false, _) => Finding::ok("forwarding", "IP forwarding is off"),
        (true, Mode::Enforce) if open => Finding::failure(
            "forwarding",
            "IP forwarding is on, so transit traffic is dropped too; the agent starts only where its \
             filter does so already",
            NEXT,
        ),
        (true, Mode::Monitor) if open => Finding::warning(
            "forwarding",
            "IP forwarding is on, so enforcing would drop transit traffic too",
            NEXT,
        ),
        (true, _) => {
            Finding::ok("forwarding", "IP forwarding is on, and gate.destinations says what for")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn an_old_kernel_is_a_warning_and_a_too_old_one_a_failure() {
        for (release, level) in [
            ("4.19.0", Level::Failure),
            ("5.9.16-amd64", Level::Failure),
            ("5.10.0-28-amd64", Level::Warning),
            ("5.18.1", Level::Warning),
            ("5.19.0", Level::Ok),
            ("6.1.0-18-amd64", Level::Ok),
            ("unknown", Level::Warning),
        ] {
            let finding = judge(release);
            assert_eq!(finding.level, level, "{release}: {}", finding.message);
            assert_eq!(finding.next_step.is_none(), level == Level::Ok);
        }
    }
}
