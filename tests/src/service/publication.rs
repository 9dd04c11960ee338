//! What the service publishes: a version, and the endpoint sets that belong to it.

use std::{fs, str::FromStr};

use anyhow::{Context, Result, anyhow};
use hyper::body::Bytes;
use serde_json::Value;

use super::captures;

/// A cloud that has endpoint sets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instance {
    /// Everybody else.
    Worldwide,
    /// Operated by 21Vianet.
    China,
    /// US Department of Defense.
    UsGovDod,
    /// US government, GCC High.
    UsGovGccHigh,
}

impl Instance {
    /// All of them, in the order of the service's own list.
    pub const ALL: [Self; 4] = [Self::Worldwide, Self::UsGovDod, Self::UsGovGccHigh, Self::China];

    /// Its name, as the service spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worldwide => "Worldwide",
            Self::China => "China",
            Self::UsGovDod => "USGovDoD",
            Self::UsGovGccHigh => "USGovGCCHigh",
        }
    }
}

impl FromStr for Instance {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|instance| instance.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| anyhow!("there is no instance {name}"))
    }
}

/// One version of an instance.
#[derive(Clone, Debug)]
pub struct Publication {
    instance: Instance,
    version: String,
    sets: Bytes,
}

impl Publication {
    /// A version with any body at all.
    #[must_use]
    pub fn new(instance: Instance, version: &str, sets: impl Into<Bytes>) -> Self {
        Self { instance, version: version.to_owned(), sets: sets.into() }
    }

    /// A version whose sets are a file of [`captures`], byte for byte.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn capture(instance: Instance, version: &str, file: &str) -> Result<Self> {
        let path = captures().join(file);
        let sets = fs::read(&path).with_context(|| format!("no capture {}", path.display()))?;
        Ok(Self::new(instance, version, sets))
    }

    /// A version of the worldwide instance that was published from 2018 to 2020,
    /// under its true number.
    ///
    /// # Errors
    ///
    /// If it was not captured.
    pub fn worldwide(version: &str) -> Result<Self> {
        let file = format!("history/worldwide-{version}.json");
        Self::capture(Instance::Worldwide, version, &file)
    }

    /// The latest capture of an instance. Its version is known for some; for others
    /// it is made up from the date, because no answer carries it.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn latest(instance: Instance) -> Result<Self> {
        let (version, file) = match instance {
            Instance::Worldwide => ("2026052900", "worldwide/worldwide-captured-2026-05-29.json"),
            Instance::China => ("2020070800", "history/china-2020070800.json"),
            Instance::UsGovDod => ("2020072800", "history/usgovdod-2020072800.json"),
            Instance::UsGovGccHigh => ("2020072800", "history/usgovgcchigh-2020072800.json"),
        };
        Self::capture(instance, version, file)
    }

    /// The same version and sets, with the sets changed by `edit`.
    ///
    /// # Errors
    ///
    /// If the sets are not a JSON array.
    pub fn edited(&self, version: &str, edit: impl FnOnce(&mut Vec<Value>)) -> Result<Self> {
        let mut sets: Vec<Value> = serde_json::from_slice(&self.sets)?;
        edit(&mut sets);
        Ok(Self::new(self.instance, version, serde_json::to_vec_pretty(&sets)?))
    }

    /// The instance that it belongs to.
    #[must_use]
    pub const fn instance(&self) -> Instance {
        self.instance
    }

    /// Its number: year, month, day, and a counter.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The sets, as they are sent.
    #[must_use]
    pub fn sets(&self) -> &Bytes {
        &self.sets
    }
}
