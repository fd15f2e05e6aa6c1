//! An image of one layer as a folder that skopeo reads (OCI image layout), written without a container engine.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::sh;

/// What the image runs and with which environment.
pub struct Settings<'a> {
    pub entrypoint: &'a [&'a str],
    pub command: &'a [&'a str],
}

/// Makes the layout in `layout` from the files below `root`; its one image carries `tag`.
pub fn write(layout: &Path, root: &Path, tag: &str, settings: &Settings) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    sh::make_dir(&blobs)?;
    let layer = layout.join("layer.tar");
    let mut tar = sh::command("tar");
    tar.args(["--numeric-owner", "--sort=name", "--one-file-system", "-C"])
        .arg(root)
        .arg("-cf")
        .arg(&layer)
        .arg(".");
    sh::run(&mut tar)?;
    let layer_digest = sh::file_hash(&layer)?;
    let layer_size = fs::metadata(&layer)?.len();
    fs::rename(&layer, blobs.join(&layer_digest)).context("could not store the layer")?;

    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": settings.entrypoint,
            "Cmd": settings.command,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    });
    let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [{
            // Uncompressed: it never leaves this machine, and packing costs more than it saves here.
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer_digest}"),
            "size": layer_size,
        }],
    });
    let mut manifest = blob(
        &blobs,
        "application/vnd.oci.image.manifest.v1+json",
        &manifest,
    )?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    sh::write(
        layout.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
    )?;
    sh::write(
        layout.join("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )
}

/// The one layer of a layout that [`write`] has made: its largest blob.
pub fn layer(layout: &Path) -> Result<std::path::PathBuf> {
    let blobs = layout.join("blobs/sha256");
    let mut found = Vec::new();
    let entries =
        fs::read_dir(&blobs).with_context(|| format!("could not read {}", blobs.display()))?;
    for blob in entries {
        let blob = blob?;
        found.push((blob.metadata()?.len(), blob.path()));
    }
    let largest = found.into_iter().max().context("the image has no layer")?;
    Ok(largest.1)
}

/// Stores a document under its digest and returns its descriptor.
fn blob(blobs: &Path, media_type: &str, document: &Value) -> Result<Value> {
    let text = document.to_string();
    let temporary = blobs.join("document");
    sh::write(&temporary, &text)?;
    let digest = sh::file_hash(&temporary)?;
    fs::rename(&temporary, blobs.join(&digest))
        .context("could not store a document of the image")?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": text.len()}))
}
