//! A kernel and what a memory disk needs beside it, as `cargo xtask setup` unpacked
//! them from Debian's packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

/// What a file system on a virtio disk needs, beside what they need themselves. Those
/// that a kernel has built in are not there.
const DISK: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
/// What a root file system that the host shares and a network card need.
const SYSTEM: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "virtio_net"];
/// What pairs of interfaces need, and tunnels.
const LINKS: [&str; 2] = ["veth", "wireguard"];

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    root: PathBuf,
}

impl Kernel {
    /// The kernel of a Debian package, such as `linux-image-amd64`.
    ///
    /// # Errors
    ///
    /// If it was not unpacked.
    pub fn of_package(package: &str) -> Result<Self> {
        let path_of = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let tools = path_of("EXOGATE_TOOLS").map(PathBuf::from).or_else(|| {
            let cache = path_of("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .filter(|cache| cache.is_absolute())
                .or_else(|| path_of("HOME").map(|home| Path::new(&home).join(".cache")))?;
            Some(cache.join("exogate").join("tools"))
        });
        let tools = tools.context("neither EXOGATE_TOOLS nor HOME is set")?;
        let root = tools.join(format!("guest-{package}"));
        if root.is_dir() {
            return Ok(Self { root });
        }
        Err(anyhow!("{} is not there; run `cargo xtask setup`, which unpacks it", root.display()))
    }

    /// The kernel's image.
    ///
    /// # Errors
    ///
    /// If the package had none.
    pub fn image(&self) -> Result<PathBuf> {
        self.first(&["boot", "usr/lib/modules"], &|name| name.starts_with("vmlinuz"))
            .with_context(|| format!("no kernel in {}", self.root.display()))
    }

    /// A static busybox.
    ///
    /// # Errors
    ///
    /// If the package had none.
    pub fn busybox(&self) -> Result<PathBuf> {
        self.first(&["bin", "usr/bin"], &|name| name == "busybox")
            .with_context(|| format!("no busybox in {}", self.root.display()))
    }

    /// The modules that a disk needs, in the order of loading.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn disk_modules(&self) -> Result<Vec<PathBuf>> {
        self.modules(&DISK)
    }

    /// The modules that pairs of interfaces and tunnels need, in the order of loading.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn link_modules(&self) -> Result<Vec<PathBuf>> {
        self.modules(&LINKS)
    }

    /// The modules that a shared root and a network card need, in the order of loading.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn system_modules(&self) -> Result<Vec<PathBuf>> {
        self.modules(&SYSTEM)
    }

    /// Whether this module was unpacked with it: of other systems' kernels, only what all
    /// guests need is kept.
    #[must_use]
    pub fn has(&self, module: &str) -> bool {
        self.first(&["lib/modules", "usr/lib/modules"], &|file| is_module(file, module)).is_some()
    }

    fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut modules = Vec::new();
        for name in names {
            self.need(name, &mut modules)?;
        }
        Ok(modules)
    }

    /// The first file with such a name in one of these places: newer packages put it
    /// under `usr` that older ones put beside that.
    fn first(&self, places: &[&str], is_it: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
        places.iter().find_map(|place| find(&self.root.join(place), is_it))
    }

    /// Adds a module, after those that it depends on.
    fn need(&self, name: &str, modules: &mut Vec<PathBuf>) -> Result<()> {
        let is_it = |file: &str| is_module(file, name);
        let Some(path) = self.first(&["lib/modules", "usr/lib/modules"], &is_it) else {
            return Ok(());
        };
        if modules.contains(&path) {
            return Ok(());
        }
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for fact in content.split(|byte| *byte == 0) {
            if let Some(names) = fact.strip_prefix(b"depends=") {
                for name in String::from_utf8_lossy(names).split(',').filter(|n| !n.is_empty()) {
                    self.need(&name.replace('-', "_"), modules)?;
                }
            }
        }
        modules.push(path);
        Ok(())
    }
}

/// Whether a file is this module's: its name has dashes where that of the module has
/// underscores.
fn is_module(file: &str, name: &str) -> bool {
    file.strip_suffix(".ko").is_some_and(|file| file.replace('-', "_") == name)
}

/// The first file with such a name, however deep.
fn find(directory: &Path, is_it: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory).ok()?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.iter().find_map(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => find(&path, is_it),
            Ok(kind) if kind.is_file() && is_it(&entry.file_name().to_string_lossy()) => Some(path),
            _ => None,
        }
    })
}
