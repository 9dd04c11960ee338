//! What the package is made of: a bill of materials, and the licences of all of it.
//!
//! Both are read from cargo's own account of the dependencies: those that end up in the
//! agent on this platform, and those of the XDP program inside it. Crates that only build
//! or test are not shipped and not listed. The bill is CycloneDX in JSON, without time or
//! serial number, so that the same sources give the same bill. A crate that brings neither
//! the text of its licence nor an expression stops the packaging.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::command::{capture, cargo};

/// Names of files that hold the terms of a crate.
const LICENCE_FILES: [&str; 6] =
    ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// What the XDP program is compiled for.
const BPF: &str = "bpfel-unknown-none";

/// cargo's account of a workspace, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Clone, Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// All crates of the package, and which of them each stands on.
#[derive(Debug, Default)]
struct Components {
    packages: BTreeMap<String, Package>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

/// Writes `exogate.cdx.json` and `THIRD-PARTY-LICENSES` of a workspace to a directory.
pub(super) fn write(workspace: &Path, directory: &Path) -> Result<()> {
    let mut components = Components::default();
    for (platform, root) in [(host(), "exogate"), (BPF.to_owned(), "exogate-ebpf")] {
        let mut command = cargo();
        command.args(["metadata", "--format-version=1", "--locked", "--filter-platform"]);
        let printed = capture(command.arg(&platform).current_dir(workspace))?;
        let metadata = serde_json::from_str(&printed).context("what cargo metadata printed")?;
        components.add(&metadata, root)?;
    }
    let bill = serde_json::to_string_pretty(&components.bill()?)?;
    fs::write(directory.join("exogate.cdx.json"), bill + "\n")?;
    fs::write(directory.join("THIRD-PARTY-LICENSES"), components.licences()?)?;
    Ok(())
}

fn host() -> String {
    format!("{ARCH}-unknown-linux-gnu")
}

impl Components {
    /// Adds a crate and what it is linked with.
    fn add(&mut self, metadata: &Metadata, root: &str) -> Result<()> {
        let by_id: BTreeMap<_, _> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
        let nodes: BTreeMap<_, _> =
            metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let root = metadata.packages.iter().find(|package| package.name == root);
        let mut next = vec![root.context("the root is no part of the workspace")?.id.as_str()];
        let mut seen = BTreeSet::new();
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            let package = *by_id.get(id).with_context(|| format!("no package {id}"))?;
            self.packages.insert(package.purl(), package.clone());
            let edges = self.edges.entry(package.purl()).or_default();
            let node = nodes.get(id).with_context(|| format!("no node {id}"))?;
            for dependency in &node.deps {
                if dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()) {
                    let on = by_id.get(dependency.pkg.as_str()).context("an unknown crate")?;
                    edges.insert(on.purl());
                    next.push(&dependency.pkg);
                }
            }
        }
        Ok(())
    }

    /// The bill, in CycloneDX 1.5.
    fn bill(&self) -> Result<Value> {
        let own = self.packages.values().find(|package| package.name == "exogate");
        let own = own.context("no exogate")?;
        let components = self.packages.values().filter(|package| package.id != own.id);
        let components: Vec<_> = components.map(|package| package.component("library")).collect();
        let dependencies: Vec<_> =
            self.edges.iter().map(|(of, on)| json!({ "ref": of, "dependsOn": on })).collect();
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "component": own.component("application") },
            "components": components,
            "dependencies": dependencies,
        }))
    }

    /// The terms of all crates of others, each text once.
    fn licences(&self) -> Result<String> {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut list = String::new();
        for package in self.packages.values().filter(|package| package.source.is_some()) {
            let name = format!("{} {}", package.name, package.version);
            let found = package.texts()?;
            let expression = match (&package.license, found.is_empty()) {
                (Some(expression), _) => spdx(expression),
                (None, false) => "see below".to_owned(),
                (None, true) => bail!("{name} does not say what its licence is"),
            };
            list.push_str(&format!("{name}: {expression}\n"));
            for text in found {
                texts.entry(text).or_default().push(name.clone());
            }
        }
        let mut page = format!("exogate contains these crates.\n\n{list}");
        for (text, names) in texts {
            page.push_str(&format!("\n{}\n{}\n\n{text}\n", "-".repeat(80), names.join(", ")));
        }
        Ok(page)
    }
}

impl Package {
    /// Its package URL, by which others know it.
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn component(&self, kind: &str) -> Value {
        let expression = self.license.as_deref().map(spdx);
        json!({
            "type": kind,
            "bom-ref": self.purl(),
            "name": self.name,
            "version": self.version,
            "purl": self.purl(),
            "licenses": expression.map(|expression| json!({ "expression": expression }))
                .into_iter().collect::<Vec<_>>(),
        })
    }

    /// The texts of its terms.
    fn texts(&self) -> Result<BTreeSet<String>> {
        let directory = self.manifest_path.parent().context("a manifest without a directory")?;
        let mut texts = BTreeSet::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
            if path.is_file() && LICENCE_FILES.iter().any(|start| name.starts_with(start)) {
                let text = fs::read(&path).with_context(|| path.display().to_string())?;
                let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
                texts.insert(text.trim().to_owned());
            }
        }
        Ok(texts)
    }
}

/// Old manifests have a slash where an expression has a word.
fn spdx(expression: &str) -> String {
    expression.replace(" / ", "/").replace('/', " OR ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(directory: &Path) -> Metadata {
        let package = |name: &str, license: Value, source: Value| {
            json!({ "id": name, "name": name, "version": "1.0.0", "license": license,
                    "source": source, "manifest_path": directory.join(name).join("Cargo.toml") })
        };
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let all = json!({
            "packages": [
                package("exogate", json!("MIT"), Value::Null),
                package("linked", json!("MIT/Apache-2.0"), json!("registry")),
                package("deep", json!("ISC"), json!("registry")),
                package("builds", json!("MIT"), json!("registry")),
            ],
            "resolve": { "nodes": [
                { "id": "exogate", "deps": [dep("linked", Value::Null), dep("builds", json!("build"))] },
                { "id": "linked", "deps": [dep("deep", Value::Null)] },
                { "id": "deep", "deps": [] },
                { "id": "builds", "deps": [] },
            ] },
        });
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn what_is_linked_is_listed_and_what_builds_is_not() {
        let mut components = Components::default();
        components.add(&metadata(Path::new("/nowhere")), "exogate").unwrap();
        let bill = components.bill().unwrap();
        assert_eq!(bill["metadata"]["component"]["purl"], "pkg:cargo/exogate@1.0.0");
        let names: Vec<_> =
            bill["components"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["deep", "linked"]);
        assert_eq!(bill["components"][1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["dependencies"][1]["dependsOn"][0], "pkg:cargo/linked@1.0.0");
    }

    #[test]
    fn every_licence_is_there_once_with_those_that_have_it() {
        let directory = std::env::temp_dir().join(format!("components-{}", std::process::id()));
        for name in ["linked", "deep"] {
            fs::create_dir_all(directory.join(name)).unwrap();
            fs::write(directory.join(name).join("LICENSE-MIT"), "the same terms\n").unwrap();
        }
        let mut components = Components::default();
        components.add(&metadata(&directory), "exogate").unwrap();
        let page = components.licences();
        fs::remove_dir_all(&directory).unwrap();
        let page = page.unwrap();
        assert!(page.contains("deep 1.0.0: ISC\nlinked 1.0.0: MIT OR Apache-2.0\n"), "{page}");
        assert_eq!(page.matches("the same terms").count(), 1, "{page}");
        assert!(page.contains("deep 1.0.0, linked 1.0.0"), "{page}");
    }
}
