use super::*;
use crate::source::{
    Definition,
    microsoft365::{HostPattern, Selection},
};

const EXAMPLE: &str = include_str!("../../../deploy/exogate.example.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("exogate.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn no_file_watches_port_443_for_exchange_and_graph() {
    let config = Config::default();
    assert_eq!(parse("").unwrap(), config);
    assert_eq!(config.mode, Mode::Monitor);
    let names: Vec<_> = config.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["exchange-online", "graph-notifications"]);
    let guard = Guard {
        ports: vec![443],
        protocols: vec![Protocol::Tcp, Protocol::Udp],
        sources: vec![0, 1],
    };
    assert_eq!(config.guards, [guard]);
    assert_eq!(config.guards[0].mask(), 0b11);
    assert_eq!(config.instances(), [Instance::Worldwide]);
}

#[test]
fn the_example_file_shows_the_defaults() {
    assert_eq!(parse(EXAMPLE).unwrap(), Config::default());
}

#[test]
fn every_configuration_in_the_readme_is_taken_as_it_stands() {
    const README: &str = include_str!("../../../README.md");
    let blocks: Vec<_> = README
        .split("```toml\n")
        .skip(1)
        .map(|text| text.split_once("```").expect("a block ends").0)
        .collect();
    assert!(blocks.len() >= 5, "{blocks:?}");
    let mut kinds = Vec::new();
    for block in blocks {
        let config = parse(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
        kinds.extend(config.relay.routes.iter().map(|route| route.kind.name()));
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["ews", "graph", "proxy"], "the relay and the proxy are among them");
}

#[test]
fn the_example_file_shows_every_option() {
    // Commented options are those without a default.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '#']) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = parse(&uncommented).unwrap();
    assert!(all.feed.ca_file.is_some() && all.feed.proxy.is_some());
    assert!(all.gate.destinations.is_some());

    let sections = [
        "",
        "[gate]",
        "[[guard]]",
        "[source.x]",
        "[feed]",
        "[[listener]]",
        "[route.x]",
        "[passthrough.x]",
        "[upstream.x]",
        "[spool]",
        "[spool.jetstream]",
        "[relay]",
        "[admin]",
        "[log]",
    ];
    for section in sections {
        let error = parse(&format!("{section}\nno_such_key = 1")).unwrap_err();
        let names: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(!names.is_empty(), "{error}");
        for name in names {
            let shown = uncommented.lines().any(|line| {
                let line = line.trim_start_matches('#');
                line.starts_with(&format!("{name} = "))
                    || line.starts_with(&format!("[{name}"))
                    || line.contains(&format!(".{name}]"))
                    || line.starts_with(&format!("[[{name}"))
            });
            assert!(shown, "the example lacks {section} {name}");
        }
    }
}

#[test]
fn sources_are_declared_or_ready_made() {
    let config = parse(
        r#"
        [[guard]]
        port = 443
        sources = ["exchange-online-strict", "graph-notifications", "pega-cloud"]

        [[guard]]
        ports = [8443, 8444]
        protocols = ["tcp"]
        sources = ["pega-cloud", "teams"]

        [source.graph-notifications]
        kind = "graph-notifications"
        instance = "china"

        [source.pega-cloud]
        kind = "static"
        prefixes = ["198.51.100.0/24", "2001:db8::7", "10.1.0.0/16"]

        [source.teams]
        kind = "microsoft365"
        url_hosts = ["*.teams.microsoft.com"]
        set_ids = [12]

        [source.unused]
        kind = "exchange-online"
        "#,
    )
    .unwrap();
    let names: Vec<_> = config.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["exchange-online-strict", "graph-notifications", "pega-cloud", "teams"]);
    assert_eq!(config.sources[1].definition, Definition::Graph { instance: Instance::China });
    let selection = Selection {
        service_areas: vec![],
        tcp_port: Some(443),
        url_hosts: vec![HostPattern::exact("*.teams.microsoft.com")],
        set_ids: vec![12],
    };
    let teams = Definition::Microsoft365 { instance: Instance::Worldwide, selection };
    assert_eq!(config.sources[3].definition, teams);
    assert_eq!(config.guards[1].mask(), 0b1100);
    assert_eq!(config.instances(), [Instance::Worldwide, Instance::China]);
}

#[test]
fn a_mistake_is_named_with_its_line_and_what_is_allowed() {
    for (text, line, part) in [
        ("mode = \"block\"", 1, "`monitor` or `enforce`"),
        ("\nmodus = \"monitor\"", 2, "unknown field `modus`"),
        ("interfaces = [\"eth0\", \"a/b\"]", 1, "\"a/b\" is not the name of an interface"),
        ("interfaces = [\"eth0\", \"eth0\"]", 1, "named twice"),
        ("state_directory = \"state\"", 1, "absolute"),
        ("[gate]\n\ncapacity = 5000000", 3, "1 to 4000000"),
        ("[gate]\ndestinations = \"some\"", 2, "\"any\", \"local\" or a list"),
        ("[gate]\ndestinations = [\"198.51.100.7/24\"]", 2, "did you mean 198.51.100.0/24?"),
        ("[[guard]]\nport = 0\nsources = [\"exchange-online\"]", 2, "1 to 65535"),
        ("[[guard]]\nport = 443\nsources = [\"exchange\"]", 3, "there are exchange-online,"),
        ("[[guard]]\nsources = [\"exchange-online\"]", 1, "needs a port"),
        ("[[guard]]\nport = 443\nports = [443]\nsources = [\"exchange-online\"]", 1, "twice"),
        ("[source.Pega]\nkind = \"static\"\nprefixes = [\"10.0.0.0/8\"]", 1, "lower-case"),
        ("[source.pega]\nkind = \"static\"\nprefixes = [\"10.0.0.1/8\"]", 3, "10.0.0.0/8"),
        ("[source.pega]\nkind = \"static\"", 1, "needs prefixes"),
        ("[source.x]\nkind = \"microsoft365\"\nset_ids = [1]", 1, "service_areas or url_hosts"),
        ("[source.x]\nkind = \"exchange-online\"\ninstance = \"Germany\"", 3, "Worldwide, USGov"),
        ("[source.x]\nkind = \"exchange-online\"\nset_ids = [1]", 1, "of kind \"microsoft365\""),
        ("[feed]\ninterval = \"30m\"", 2, "at least 1h"),
        ("[feed]\ninterval = 3600", 2, "expected a string"),
        ("[feed]\nbase_url = \"http://endpoints.office.com\"", 2, "must be https://"),
        ("[feed]\nproxy = \"proxy:3128\"", 2, "a proxy is http://"),
        ("[feed]\ntimeout = \"0s\"", 2, "1s to 5m"),
        ("[feed]\nremoval_grace = \"31d\"", 2, "0s to 30d"),
        ("[admin]\nlisten = \"9469\"", 2, "socket address"),
        ("[log]\nlevel = \"loud\"", 2, "`error`"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(&format!("exogate.toml:{line}: ")), "{text}\n{error}");
        assert!(error.contains(part), "{text}\n{error}");
    }
}

#[test]
fn another_service_may_be_polled_more_often() {
    let config =
        parse("[feed]\nbase_url = \"https://127.0.0.1:8443/\"\ninterval = \"1s\"").unwrap();
    assert_eq!(config.feed.base_url, "https://127.0.0.1:8443");
    assert!(parse("[feed]\nbase_url = \"https://127.0.0.1\"\ninterval = \"0s\"").is_err());
}

#[test]
fn the_password_of_a_proxy_is_not_shown() {
    let config = parse("[feed]\nproxy = \"http://user:secret@proxy.example:3128\"").unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("http://proxy.example:3128") && !shown.contains("secret"), "{shown}");
}

#[test]
fn more_sources_than_bits_are_refused() {
    let mut text = "[[guard]]\nport = 443\nsources = [".to_owned();
    for n in 0..=MAX_CONFIGURED_SOURCES {
        text += &format!("\"s{n}\", ");
    }
    text += "]\n";
    for n in 0..=MAX_CONFIGURED_SOURCES {
        text += &format!("[source.s{n}]\nkind = \"static\"\nprefixes = [\"10.0.0.0/8\"]\n");
    }
    assert!(parse(&text).unwrap_err().contains("more than 29 sources"));
}
