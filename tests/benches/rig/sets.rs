//! A list as its peers read it: text of ipset and of nft, with a set for each family.

use ipnet::IpNet;

/// What `ipset restore` reads. The sets' tables are as large as they will have to be: from
/// their default of 1,024 they would grow step by step, and stay fuller.
pub fn ipset_script(nets: &[IpNet]) -> String {
    let mut script = String::new();
    for (name, family, v4) in [("v4", "inet", true), ("v6", "inet6", false)] {
        let nets = texts(nets, v4);
        let size = nets.len().next_power_of_two().max(64);
        script.push_str(&format!(
            "create {name} hash:net family {family} hashsize {size} maxelem {size}\n"
        ));
        for net in nets {
            script.push_str(&format!("add {name} {net}\n"));
        }
    }
    script
}

/// A table of nft, which holds the sets and nothing else.
pub fn nft_table(family: &str, nets: &[IpNet]) -> String {
    let mut script = format!("table {family} bench {{\n");
    for (name, kind, v4) in [("v4", "ipv4_addr", true), ("v6", "ipv6_addr", false)] {
        script.push_str(&format!("set {name} {{ type {kind}; flags interval; auto-merge;"));
        let elements = texts(nets, v4).join(",\n");
        if !elements.is_empty() {
            script.push_str(&format!(" elements = {{ {elements} }}"));
        }
        script.push_str(" }\n");
    }
    script.push_str("}\n");
    script
}

fn texts(nets: &[IpNet], v4: bool) -> Vec<String> {
    nets.iter().filter(|net| net.addr().is_ipv4() == v4).map(ToString::to_string).collect()
}
