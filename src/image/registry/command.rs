//! What an image runs by itself: ENTRYPOINT and CMD, from the configuration that its manifest names.

use serde_json::Value;

use super::platform::{Platform, elsewhere, of_index};
use super::{Fault, Finding, Registry, with_each_key};
use crate::image::keyring::Key;
use crate::image::{Keyring, Reference};

/// The longest command in bytes: it is handed on as one variable.
const LONGEST: usize = 32 << 10;

/// ENTRYPOINT and CMD of an image; both may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
}

impl Registry {
    /// What the image runs by itself on one of `platforms` (`None`: not known, any will do).
    pub async fn command(
        &self,
        image: &Reference,
        keys: &Keyring,
        platforms: Option<&[Platform]>,
    ) -> Finding<Command> {
        with_each_key(image, keys, |key| self.command_with(image, key, platforms)).await
    }

    async fn command_with(
        &self,
        image: &Reference,
        key: Option<&Key>,
        platforms: Option<&[Platform]>,
    ) -> Result<Command, Fault> {
        let base = self.base(image);
        let mut session = self.session(image, key);
        let mut manifest = session
            .json(&format!("{base}/manifests/{}", image.manifest()))
            .await?;
        if manifest["manifests"].is_array() {
            let digest = of_platform(image, &manifest, platforms)?;
            manifest = session.json(&format!("{base}/manifests/{digest}")).await?;
        }
        let Some(config) = manifest["config"]["digest"].as_str() else {
            let why = "the image's manifest names no configuration";
            return Err(Fault::Unknown(why.to_owned()));
        };
        Command::of(&session.json(&format!("{base}/blobs/{config}")).await?)
    }
}

/// Digest of the first manifest of an index that is for one of `platforms`.
fn of_platform(
    image: &Reference,
    index: &Value,
    platforms: Option<&[Platform]>,
) -> Result<String, Fault> {
    let offered = of_index(index);
    let mut manifests = index["manifests"].as_array().into_iter().flatten();
    let chosen = manifests.find(|manifest| match Platform::of(&manifest["platform"]) {
        Some(found) => platforms.is_none_or(|nodes| nodes.contains(&found)),
        // Only where none says what it is for.
        None => offered.is_empty(),
    });
    let digest = chosen.and_then(|manifest| manifest["digest"].as_str());
    match (digest, platforms) {
        (Some(digest), _) => Ok(digest.to_owned()),
        (None, Some(nodes)) if chosen.is_none() => Err(elsewhere(image, &offered, nodes)),
        (None, _) => Err(Fault::Unknown(
            "the image's index names no manifest".to_owned(),
        )),
    }
}

impl Command {
    /// As the configuration of an image has it.
    fn of(document: &Value) -> Result<Self, Fault> {
        let of = |name: &str| {
            words(&document["config"][name]).ok_or_else(|| {
                Fault::Unknown(format!(
                    "{name} in the image's configuration is no list of texts"
                ))
            })
        };
        let command = Self {
            entrypoint: of("Entrypoint")?,
            cmd: of("Cmd")?,
        };
        let all = command.entrypoint.iter().chain(&command.cmd);
        if all.map(String::len).sum::<usize>() > LONGEST {
            return Err(Fault::Unknown(format!(
                "the image's ENTRYPOINT and CMD are longer than {LONGEST} bytes"
            )));
        }
        Ok(command)
    }
}

/// The words of a list; none where nothing is given.
fn words(list: &Value) -> Option<Vec<String>> {
    match list {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items
            .iter()
            .map(|item| Some(item.as_str()?.to_owned()))
            .collect(),
        _ => None,
    }
}
