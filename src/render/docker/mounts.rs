//! `--volume`, `--mount` and `--tmpfs`: folders of the node, claims, and memory.

use serde_json::{Value, json};

use super::names::is_dns_name;
use super::{Reader, Refusal, as_quantity, bytes};
use crate::render::check::OWN_PATHS;
use crate::render::fields::{items, text};
use crate::render::wishes::{Extra, Wishes};

/// `source:target[:options]`: a folder of the node, or a claim by its name; `target` alone is an empty folder.
pub(super) fn volume(value: &str, reader: &Reader<'_>, wishes: &mut Wishes) -> Result<(), Refusal> {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (json!({ "emptyDir": {} }), *target, ""),
        [source, target] => (from(source)?, *target, ""),
        [source, target, options] => (from(source)?, *target, *options),
        _ => return Err("its value is not of the form source:target:options".into()),
    };
    let read_only = options.split(',').any(|option| option == "ro");
    add(source, target, read_only, reader, wishes)
}

/// `type=bind|volume|tmpfs,source=...,target=...,readonly`.
pub(super) fn mount(value: &str, reader: &Reader<'_>, wishes: &mut Wishes) -> Result<(), Refusal> {
    let (mut kind, mut source, mut target, mut size, mut read_only) =
        ("volume", None, None, None, false);
    for part in value.split(',') {
        match part.split_once('=').unwrap_or((part, "")) {
            ("type", word) => kind = word,
            ("source" | "src", word) => source = Some(word),
            ("target" | "destination" | "dst", word) => target = Some(word),
            ("readonly" | "ro", word) => read_only = !["false", "0"].contains(&word),
            ("tmpfs-size", word) => size = Some(word),
            _ => return Err("one of its parts has no counterpart in a pod".into()),
        }
    }
    let target = target.ok_or("it has no target")?;
    let source = match (kind, source) {
        ("bind", Some(path)) if path.starts_with('/') => from(path)?,
        ("volume", Some(name)) if !name.starts_with('/') => from(name)?,
        ("volume", None) => json!({ "emptyDir": {} }),
        ("tmpfs", None) => memory(size)?,
        _ => return Err("its type and source do not fit together".into()),
    };
    add(source, target, read_only, reader, wishes)
}

/// `target[:size=64m,...]`.
pub(super) fn tmpfs(value: &str, reader: &Reader<'_>, wishes: &mut Wishes) -> Result<(), Refusal> {
    let (target, options) = value.split_once(':').unwrap_or((value, ""));
    let size = options
        .split(',')
        .find_map(|option| option.strip_prefix("size="));
    add(memory(size)?, target, false, reader, wishes)
}

fn memory(size: Option<&str>) -> Result<Value, Refusal> {
    let mut source = json!({ "emptyDir": { "medium": "Memory" } });
    if let Some(size) = size {
        let size = bytes(size).ok_or("its size is no size such as 8g")?;
        source["emptyDir"]["sizeLimit"] = json!(as_quantity(size));
    }
    Ok(source)
}

fn from(source: &str) -> Result<Value, Refusal> {
    if source.starts_with('/') {
        if source.split('/').any(|part| part == "..") {
            return Err("its source leads out of a folder".into());
        }
        return Ok(json!({ "hostPath": { "path": source } }));
    }
    if is_dns_name(source) {
        Ok(json!({ "persistentVolumeClaim": { "claimName": source } }))
    } else {
        Err("its source is neither an absolute path nor the name of a claim".into())
    }
}

fn add(
    source: Value,
    target: &str,
    read_only: bool,
    reader: &Reader<'_>,
    wishes: &mut Wishes,
) -> Result<(), Refusal> {
    // `//data` and `/./data` are `/data` to who mounts it: so it is compared, and so it is written.
    let parts = target.split('/');
    let parts: Vec<&str> = parts.filter(|part| !["", "."].contains(part)).collect();
    if !target.starts_with('/') || parts.is_empty() || parts.contains(&"..") {
        return Err("its target is no absolute path of a folder".into());
    }
    let path = format!("/{}", parts.join("/"));
    if path.contains(':') {
        return Err("its target has a colon".into());
    }
    let under = |own: &&str| path == *own || path.starts_with(&format!("{own}/"));
    if OWN_PATHS.iter().any(under) {
        return Err("its target is the executor's own".into());
    }
    let taken = items(reader.container, &["volumeMounts"])
        .iter()
        .filter_map(|mount| text(mount, &["mountPath"]))
        .chain(wishes.volumes.iter().map(|extra| extra.path.as_str()))
        .any(|other| other.trim_end_matches('/') == path);
    if taken {
        return Err("something is mounted at its target already".into());
    }
    wishes.volumes.push(Extra {
        source,
        path,
        read_only,
    });
    Ok(())
}
