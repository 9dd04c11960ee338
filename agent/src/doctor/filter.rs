//! The filter: BPF file system, pins, interfaces and what runs on them.

use exogate_ebpf::abi::ABI_VERSION;

use super::Finding;
use crate::{
    admin::api::Status,
    config::Config,
    gate::{
        self, Attach, Interface, Mode,
        interface::{self, Listed, find},
        survey::{self, Pinned},
    },
};

/// The BPF file system, and what is pinned on it.
pub(super) fn pins(config: &Config) -> (Option<Vec<Pinned>>, Vec<Finding>) {
    let directory = &config.gate.pin_directory;
    let shown = directory.display();
    let mut findings = vec![match survey::is_on_bpf_file_system(directory) {
        Ok(true) => Finding::ok("bpffs", format!("{shown} is on a BPF file system")),
        Ok(false) => Finding::failure(
            "bpffs",
            format!("{shown} is not on a BPF file system, so no filter could outlive the agent"),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
        Err(error) => Finding::failure("bpffs", error.to_string(), "run this command as root"),
    }];
    let pinned = match survey::pinned(directory) {
        Ok(pinned) => pinned,
        Err(error) => {
            let next = "run this command as root";
            findings.push(Finding::warning("pins", error.to_string(), next));
            return (None, findings);
        }
    };
    let others: Vec<_> = pinned
        .iter()
        .flat_map(|pinned| {
            let others = pinned.generations.iter().filter(|one| one.abi != Some(ABI_VERSION));
            others.map(|one| format!("if{}/{}", pinned.index, one.name))
        })
        .collect();
    findings.push(match (pinned.len(), others.as_slice()) {
        (0, _) => Finding::ok("pins", format!("nothing is pinned below {shown}")),
        (_, []) => {
            let count = pinned.len();
            Finding::ok("pins", format!("{count} interfaces below {shown}, ABI {ABI_VERSION}"))
        }
        (_, others) => Finding::warning(
            "pins",
            format!("{} are not of ABI {ABI_VERSION}, which this program has", others.join(", ")),
            "systemctl restart exogate: the next start replaces them in one step",
        ),
    });
    (Some(pinned), findings)
}

/// Every interface that the configuration or the agent names, with its number.
pub(super) async fn interfaces(
    config: &Config,
    status: Option<&Status>,
    pinned: Option<&[Pinned]>,
) -> Vec<(Option<u32>, Finding)> {
    let present = interface::list().await.unwrap_or_default();
    let mut names = Vec::new();
    for pattern in &config.interfaces {
        let meant = |one: &&Listed| pattern.means(&one.name, one.supported && !one.loopback);
        let before = names.len();
        names.extend(present.iter().filter(meant).map(|one| one.name.clone()));
        // One that nothing fits is looked for, and not found, by its own name.
        if names.len() == before {
            names.push(pattern.to_string());
        }
    }
    let running = status.iter().flat_map(|status| &status.interfaces);
    names.extend(running.map(|interface| interface.name.clone()));
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        let finding = match config.relay.is_on() {
            true => Finding::warning(
                "interface",
                "no interface is named, so only the relay checks who speaks to it",
                "name one in the configuration: interfaces = [\"eth0\"]; `ip link` lists them",
            ),
            false => Finding::failure(
                "interface",
                "no interface is named, so nothing is filtered",
                "name one in the configuration: interfaces = [\"eth0\"]; `ip link` lists them",
            ),
        };
        return vec![(None, finding)];
    }
    let mut findings = Vec::new();
    for name in names {
        let (index, finding) = match find(&name).await {
            Ok(interface) => {
                let finding = judge(config, status, pinned, &interface);
                (Some(interface.index), finding)
            }
            Err(error @ gate::Error::UnknownInterface { .. }) => (
                None,
                Finding::warning(
                    "interface",
                    format!("{error}; it is filtered as soon as there is"),
                    "correct the name in the configuration, or wait for the interface",
                ),
            ),
            Err(error) => {
                let next = "choose another interface in the configuration";
                (None, Finding::failure("interface", error.to_string(), next))
            }
        };
        findings.push((index, finding.about(name)));
    }
    findings
}

fn judge(
    config: &Config,
    status: Option<&Status>,
    pinned: Option<&[Pinned]>,
    interface: &Interface,
) -> Finding {
    let driver = survey::driver(&interface.name).unwrap_or_else(|_| "unknown".to_owned());
    let down = if interface.up { "" } else { ", the interface is down" };
    let about = format!("driver {driver}, MTU {}{down}", interface.mtu);
    let ours = status
        .into_iter()
        .flat_map(|status| &status.interfaces)
        .filter(|one| one.index == interface.index)
        .filter_map(|one| one.program)
        .chain(
            pinned
                .into_iter()
                .flatten()
                .filter(|one| one.index == interface.index)
                .filter_map(|one| one.link),
        );
    let ours: Vec<u32> = ours.collect();
    match interface.xdp {
        Some(xdp) if !ours.contains(&xdp.program) => {
            let name = survey::program_name(xdp.program)
                .map_or(String::new(), |name| format!(" ({name})"));
            let (message, next) = match pinned {
                Some(_) => (
                    format!("{about}; XDP program {}{name} is not exogate's", xdp.program),
                    format!(
                        "find out whose it is, then ip link set dev {} xdp off; or choose another \
                         interface",
                        interface.name
                    ),
                ),
                None => (
                    format!("{about}; XDP program {}{name} may be anybody's", xdp.program),
                    "run this command as root, to see whose it is".to_owned(),
                ),
            };
            match pinned {
                Some(_) => Finding::failure("interface", message, next),
                None => Finding::warning("interface", message, next),
            }
        }
        Some(xdp) if xdp.mode == Mode::Generic && config.gate.attach != Attach::Generic => {
            Finding::warning(
                "interface",
                format!("{about}; filtered in generic mode, which is later and slower"),
                "use a NIC or driver with native XDP, or a smaller MTU, and detach: the filter in \
                 force keeps its mode; set gate.attach = \"generic\" if this is meant",
            )
        }
        Some(xdp) => Finding::ok("interface", format!("{about}; filtered in {} mode", xdp.mode)),
        None if !ours.is_empty() => Finding::failure(
            "interface",
            format!("{about}; the filter was removed by somebody else"),
            "systemctl restart exogate puts it back",
        ),
        None if status.is_some() => Finding::failure(
            "interface",
            format!("{about}; the agent runs, and does not filter here"),
            "systemctl restart exogate, and read its log",
        ),
        None => Finding::warning(
            "interface",
            format!("{about}; not filtered, so the mode of its XDP is not known yet"),
            "systemctl start exogate",
        ),
    }
}
