//! What people use instead: nftables, ipset with iptables, xdp-filter.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use exogate_tests::{
    lab::{EDGE_INTERFACE, Family, Lab},
    process::run_with_input,
};
use ipnet::IpNet;

use super::{contender::Contender, scope::Kind};
use crate::rig::{List, Order, Share, ipset_script, nft_table};

/// How long a program may take to read a list. nft takes a million prefixes in 20 to 60 s.
const PATIENCE: Duration = Duration::from_secs(150);
/// Addresses that xdp-filter's maps have room for.
const XDP_FILTER_ADDRESSES: usize = 10_000;

fn check(command: &mut Command, input: &str) -> Result<()> {
    let output = run_with_input(command, input, PATIENCE)?;
    ensure!(output.code == 0, "{command:?}: {} {}", output.code, output.stderr.trim());
    Ok(())
}

/// nftables with interval sets, at one of its hooks.
pub struct Nftables {
    name: &'static str,
    family: &'static str,
    hook: String,
    lab: Lab,
}

impl Nftables {
    /// At the earliest hook: the interface's ingress.
    pub fn ingress(lab: &Lab) -> Self {
        let hook = format!("ingress device {EDGE_INTERFACE} priority 0");
        Self { name: "nft netdev ingress", family: "netdev", hook, lab: lab.clone() }
    }

    /// At the earliest hook that all interfaces share.
    pub fn prerouting(lab: &Lab) -> Self {
        let hook = "prerouting priority raw".to_owned();
        Self { name: "nft inet prerouting", family: "inet", hook, lab: lab.clone() }
    }

    fn nft(&self, script: &str) -> Result<()> {
        check(self.lab.edge().command("nft").args(["-f", "-"]), script)
    }
}

impl Contender for Nftables {
    fn name(&self) -> &'static str {
        self.name
    }

    fn take(&mut self, list: &List) -> Result<()> {
        let table = format!("{} bench", self.family);
        let sets = nft_table(self.family, list.nets());
        self.nft(&format!("add table {table}\ndelete table {table}\n{sets}"))
    }

    fn begin(&mut self, family: Family) -> Result<()> {
        let (table, hook) = (self.family, &self.hook);
        // The rule of one family alone, so that packets pass no other on the way to it.
        let stranger = match family {
            Family::V4 => "ip saddr != @v4",
            Family::V6 => "ip6 saddr != @v6",
        };
        self.nft(&format!(
            "add chain {table} bench in {{ type filter hook {hook}; }}
             add rule {table} bench in udp dport 443 {stranger} drop\n"
        ))
    }

    fn end(&mut self) -> Result<()> {
        self.nft(&format!("delete chain {} bench in\n", self.family))
    }
}

/// ipset's hash:net, asked by iptables in the table raw.
pub struct Ipset {
    lab: Lab,
    programs: [&'static str; 2],
}

impl Ipset {
    /// In this lab.
    pub fn new(lab: &Lab) -> Self {
        Self { lab: lab.clone(), programs: iptables(lab) }
    }

    fn rule(&self, action: &str) -> Result<()> {
        for (iptables, set) in self.programs.into_iter().zip(["v4", "v6"]) {
            let mut command = self.lab.edge().command(iptables);
            command
                .args(["--wait", "--table", "raw", action, "PREROUTING"])
                .args(["--protocol", "udp", "--dport", "443"])
                .args(["--match", "set", "!", "--match-set", set, "src", "--jump", "DROP"]);
            check(&mut command, "")?;
        }
        Ok(())
    }
}

impl Contender for Ipset {
    fn name(&self) -> &'static str {
        "ipset in raw"
    }

    fn take(&mut self, list: &List) -> Result<()> {
        check(self.lab.edge().command("ipset").arg("destroy"), "")?;
        check(self.lab.edge().command("ipset").arg("restore"), &ipset_script(list.nets()))
    }

    fn begin(&mut self, _: Family) -> Result<()> {
        self.rule("--append")
    }

    fn end(&mut self) -> Result<()> {
        self.rule("--delete")
    }
}

/// The iptables that has the kernel's tables of its own, or where that does not work the one
/// that puts its rules into nftables.
fn iptables(lab: &Lab) -> [&'static str; 2] {
    let legacy = ["iptables-legacy", "ip6tables-legacy"];
    let works = |program: &&str| {
        let mut command = lab.edge().command(program);
        check(command.args(["--wait", "--table", "raw", "--list"]), "").is_ok()
    };
    if legacy.iter().all(works) { legacy } else { ["iptables", "ip6tables"] }
}

/// xdp-filter of xdp-tools. It knows no prefixes, so it gets one address of each.
pub struct XdpFilter {
    lab: Lab,
    addresses: Vec<IpNet>,
}

impl XdpFilter {
    /// In this lab.
    pub fn new(lab: &Lab) -> Self {
        Self { lab: lab.clone(), addresses: Vec::new() }
    }

    /// Runs lines of shell where the BPF file system is the lab's.
    fn shell(&self, lines: &str) -> Result<()> {
        let pins = self.lab.pin_directory();
        let sys = Path::new("/sys/fs/bpf");
        let mount = format!("mount --bind {} {}\n", pins.display(), sys.display());
        let mut command = self.lab.edge().command("unshare");
        let script = self.lab.directory().join("xdp-filter.sh");
        fs::write(&script, format!("set -e\n{mount}{lines}"))?;
        check(command.args(["--mount", "sh"]).arg(script), "")
    }
}

impl Contender for XdpFilter {
    fn name(&self) -> &'static str {
        "xdp-filter"
    }

    fn can(&self, kind: &Kind) -> bool {
        // Each address is put in by a process of its own.
        let quickly = kind.prefixes < 1_000 || kind.order == Order::Random;
        kind.prefixes <= XDP_FILTER_ADDRESSES && kind.share == Share::Dropped && quickly
    }

    fn take(&mut self, list: &List) -> Result<()> {
        self.addresses = list.nets().to_vec();
        Ok(())
    }

    fn begin(&mut self, _: Family) -> Result<()> {
        let mut lines = format!(
            "xdp-filter load --policy deny --features ipv4,ipv6 --mode native {EDGE_INTERFACE}\n"
        );
        for net in &self.addresses {
            lines.push_str(&format!("xdp-filter ip --mode src {}\n", net.network()));
        }
        self.shell(&lines)
    }

    fn end(&mut self) -> Result<()> {
        self.shell(&format!("xdp-filter unload {EDGE_INTERFACE}\n"))
    }
}

/// The versions of all of them, and what is uneven between them.
pub fn versions(lab: &Lab) -> Result<String> {
    let first = |command: &[&str]| -> Result<String> {
        let (program, arguments) = command.split_first().context("no command")?;
        let output = Command::new(program).args(arguments).output().context(program.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next().unwrap_or_default();
        Ok(line.split(',').next().unwrap_or_default().trim().to_owned())
    };
    let [iptables, _] = iptables(lab);
    let fallen_back = match iptables {
        "iptables" => {
            " iptables-legacy does not work here, so iptables puts its rule into nftables."
        }
        _ => "",
    };
    let commands = [&["nft", "--version"][..], &["ipset", "--version"], &[iptables, "--version"]];
    let mut texts: Vec<String> = commands.into_iter().map(first).collect::<Result<_>>()?;
    // xdp-filter does not tell its own.
    let package = first(&["dpkg-query", "--show", "--showformat=${Version}", "xdp-tools"]);
    texts.push(format!(
        "xdp-filter {}",
        package.unwrap_or_else(|_| "of unknown version".to_owned())
    ));
    Ok(format!(
        "{}.{fallen_back} xdp-filter asks no ports. nft has the rule of one family at a time, and \
         no counters; exogate, xdp-filter and iptables count. With all of them, what passes goes \
         through the table raw of iptables, which is empty but for ipset's turns.",
        texts.join("; ")
    ))
}
