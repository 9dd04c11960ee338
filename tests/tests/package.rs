//! What is in the packages: the same in both, with documents that are whole. Needs the
//! packages of `cargo xtask package --development`, and the shells that completions are for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use exogate_tests::{
    machine::{package, rpm_package},
    process::check,
};
use tempfile::TempDir;

/// Where documents lie, as in the sources.
const DOCUMENTS: &str = "usr/share/doc/exogate";
/// Commands for those who make packages.
const HIDDEN: &str = "documents";

/// The files of the Debian package.
struct Unpacked(TempDir);

impl Unpacked {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut unpack = Command::new("dpkg-deb");
        check(unpack.arg("--extract").arg(package().unwrap()).arg(directory.path()), "").unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// All files below a directory, as paths from there.
    fn files(&self, below: &str) -> BTreeSet<String> {
        let mut find = Command::new("find");
        find.arg(self.path(below)).args(["-type", "f", "-printf", "%P\\n"]);
        check(&mut find, "").unwrap().lines().map(str::to_owned).collect()
    }

    /// What `exogate COMMAND --help` lists, and what is below that: `feed`, `feed refresh`.
    fn commands(&self, command: &str) -> Vec<String> {
        let mut help = Command::new(self.path("usr/bin/exogate"));
        let help = check(help.args(command.split_whitespace()).arg("--help"), "").unwrap();
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed = listed.take_while(|line| !line.is_empty());
        // What is indented more goes on with a description.
        let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next());
        names
            .filter(|name| *name != "help")
            .map(|name| format!("{command} {name}").trim().to_owned())
            .flat_map(|name| [vec![name.clone()], self.commands(&name)].concat())
            .collect()
    }

    /// The commands that a shell offers after `exogate `.
    fn offered(&self, shell: &mut Command, completions: &str) -> BTreeSet<String> {
        let said = check(shell.arg(self.path(completions)), "").unwrap();
        let first = |line: &str| line.split(['\t', ':']).next().unwrap_or_default().to_owned();
        said.lines().map(first).filter(|word| !word.starts_with('-')).collect()
    }
}

#[test]
fn both_packages_have_the_same_files() {
    let deb = Unpacked::new().files("");
    // What Debian alone asks for.
    let deb: BTreeSet<_> = deb
        .iter()
        .map(|path| path.strip_suffix(".gz").unwrap_or(path).to_owned())
        .filter(|path| *path != format!("{DOCUMENTS}/copyright"))
        .collect();
    let mut list = Command::new("rpm");
    list.args(["--query", "--list", "--nosignature", "--package"]).arg(rpm_package().unwrap());
    let rpm = check(&mut list, "").unwrap();
    // The places that the other distributions have for the same.
    let rpm: BTreeSet<_> = rpm
        .lines()
        .map(|path| path.trim_start_matches('/'))
        .map(|path| path.replace("zsh/site-functions", "zsh/vendor-completions"))
        .map(|path| path.replace("usr/share/licenses/exogate", DOCUMENTS))
        .collect();
    assert!(deb.len() > 50, "{deb:?}");
    assert_eq!(deb.difference(&rpm).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the rpm");
    assert_eq!(rpm.difference(&deb).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the deb");
}

#[test]
fn every_link_of_the_documents_leads_to_a_file_of_the_package() {
    let unpacked = Unpacked::new();
    let documents = unpacked.files(DOCUMENTS);
    let pages: Vec<_> = documents.iter().filter(|name| name.ends_with(".md")).collect();
    assert!(pages.len() > 5, "{pages:?}");
    for page in pages {
        let text = unpacked.read(&format!("{DOCUMENTS}/{page}"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.contains("://") || target.is_empty() {
                continue;
            }
            let from = Path::new(DOCUMENTS).join(page);
            let path = unpacked.path(from.parent().unwrap().join(target).to_str().unwrap());
            assert!(path.exists(), "{page}: {link}");
        }
    }
    // And what the first page names without a link.
    let readme = unpacked.read(&format!("{DOCUMENTS}/README.md"));
    for named in readme.split('`').filter(|word| word.starts_with("deploy/")) {
        assert!(unpacked.path(&format!("{DOCUMENTS}/{named}")).exists(), "{named}");
    }
}

#[test]
fn the_package_says_what_it_is_made_of() {
    let unpacked = Unpacked::new();
    let read = |name: &str| unpacked.read(&format!("{DOCUMENTS}/{name}"));
    let bill: serde_json::Value = serde_json::from_str(&read("exogate.cdx.json")).unwrap();
    assert_eq!(bill.get("bomFormat").unwrap(), "CycloneDX");
    let components = bill.get("components").unwrap().as_array().unwrap();
    let has = |name: &str| components.iter().any(|one| one.get("name").unwrap() == name);
    assert!(has("aya") && has("rustls") && has("aya-ebpf"));
    assert!(!has("proptest") && !has("xtask"), "what only tests is not shipped");
    assert!(read("THIRD-PARTY-LICENSES").contains("Permission is hereby granted"));
}

#[test]
fn every_command_that_is_shown_has_a_manual_page_that_groff_takes() {
    let unpacked = Unpacked::new();
    let commands = unpacked.commands("");
    assert!(commands.iter().any(|name| name == "feed refresh"), "{commands:?}");
    let mut expected: BTreeSet<_> =
        commands.iter().map(|name| format!("exogate-{}.1.gz", name.replace(' ', "-"))).collect();
    expected.insert("exogate.1.gz".to_owned());
    assert_eq!(unpacked.files("usr/share/man/man1"), expected);
    for page in expected {
        let mut show = Command::new("sh");
        show.args([
            "-c",
            "gzip --decompress --stdout \"$1\" | groff -man -Tutf8 -P-cbu -ww 2>&1 >\"$2\"",
        ]);
        let shown = unpacked.path("shown");
        show.arg("sh").arg(unpacked.path("usr/share/man/man1").join(&page)).arg(&shown);
        assert_eq!(check(&mut show, "").unwrap(), "", "{page}");
        assert!(fs::read_to_string(shown).unwrap().contains("SYNOPSIS"), "{page}");
    }
}

#[test]
fn each_shell_completes_the_commands_that_are_shown() {
    let unpacked = Unpacked::new();
    let is_first = |name: &String| !name.contains(' ');
    let mut expected: BTreeSet<_> = unpacked.commands("").into_iter().filter(is_first).collect();
    expected.insert("help".to_owned());
    assert!(!expected.contains(HIDDEN));

    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-eu", "-c"]);
    bash.arg(
        "source \"$1\"; COMP_WORDS=(exogate ''); COMP_CWORD=1
         _exogate exogate '' exogate; printf '%s\\n' \"${COMPREPLY[@]}\"",
    );
    bash.arg("bash");
    let completions = "usr/share/bash-completion/completions/exogate";
    assert_eq!(unpacked.offered(&mut bash, completions), expected, "bash");

    let mut fish = Command::new("fish");
    fish.args(["--no-config", "--command", "source $argv[1]; complete --do-complete 'exogate '"]);
    let completions = "usr/share/fish/vendor_completions.d/exogate.fish";
    assert_eq!(unpacked.offered(&mut fish, completions), expected, "fish");

    // Outside of its line editor it has no place to complete at, so it lists what it would.
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-e", "-c"]);
    zsh.arg(
        "compdef() { }; _describe() { print -l -- ${(@P)4} }
         source \"$1\"; _exogate_commands",
    );
    zsh.arg("zsh");
    let completions = "usr/share/zsh/vendor-completions/_exogate";
    assert_eq!(unpacked.offered(&mut zsh, completions), expected, "zsh");
}
