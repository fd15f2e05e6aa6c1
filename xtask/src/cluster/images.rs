//! Images that exist before anything of ours is built: the pods' first process and the Python image, which is
//! the image of tasks and the base of the project's own.
//!
//! ```text
//! debootstrap / cc ──▶ folder ──▶ OCI layout in the cache ──▶ registry ──▶ containerd
//!      once per machine                                  once per state folder
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::layout::{self, State};
use super::node;
use super::oci::{self, Settings};
use crate::{dirs, http, sh};

/// A Debian of exactly this name, whatever the host's: its Python decides which wheels fit.
const SUITE: &str = "bookworm";
/// What tasks and our own image find in it.
const PACKAGES: &str = "python3,git,git-lfs,openssh-client,ca-certificates";
/// The static program of Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";
/// The loader of Debian's musl.
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";
/// What a Debian has that is not asked for Python and git.
const REMOVED: &[&str] = &[
    "usr/bin/python3",
    "usr/bin/python3.11",
    "usr/lib/python3",
    "usr/lib/python3.11",
    "usr/bin/git",
    "usr/lib/git-core",
];
/// Folders that no pod reads, emptied so that the image unpacks faster.
const USELESS: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
];

/// An image that this crate makes itself; all carry the tag `1`, so that nodes do not pull them again and again.
pub struct Image {
    name: &'static str,
    /// Its OCI layout; the folder's name changes with what decides the content.
    layout: PathBuf,
    make_root: fn(&Path) -> Result<()>,
    settings: Settings<'static>,
}

impl Image {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Changes with what is in it.
    pub fn content(&self) -> String {
        self.layout
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// `REGISTRY/NAME:1`
    pub fn reference(&self) -> String {
        format!("{}/{}:1", layout::registry(), self.name)
    }
}

/// All of them.
pub fn all() -> Result<Vec<Image>> {
    let source =
        fs::read_to_string(pause_source()).context("could not read the source of pause")?;
    let store = dirs::cache()?.join("images");
    let at = |name: &str, key: String| store.join(format!("{name}-{key}"));
    Ok(vec![
        Image {
            name: "pause",
            layout: at("pause", sh::short_hash([source])),
            make_root: pause_root,
            settings: Settings {
                entrypoint: &["/pause"],
                command: &[],
            },
        },
        Image {
            name: "python",
            layout: at(
                "python",
                sh::short_hash([SUITE, PACKAGES, &USELESS.join(",")]),
            ),
            make_root: python_root,
            settings: Settings {
                entrypoint: &[],
                command: &["python3"],
            },
        },
        Image {
            name: "bare",
            layout: at("bare", sh::file_hash(Path::new(BUSYBOX))?[..16].to_owned()),
            make_root: bare_root,
            settings: Settings {
                entrypoint: &[],
                command: &["/bin/sh"],
            },
        },
        Image {
            name: "debian",
            layout: at(
                "debian",
                sh::short_hash([SUITE, PACKAGES, &USELESS.join(","), &REMOVED.join(",")]),
            ),
            make_root: debian_root,
            settings: Settings {
                entrypoint: &[],
                command: &["/bin/bash"],
            },
        },
        Image {
            name: "distroless",
            layout: at(
                "distroless",
                sh::short_hash([SUITE, PACKAGES, &USELESS.join(","), "1"]),
            ),
            make_root: distroless_root,
            settings: Settings {
                entrypoint: &["/usr/bin/python3"],
                command: &[],
            },
        },
        Image {
            name: "musl",
            layout: at(
                "musl",
                sh::short_hash([fs::read(musl_source())?, fs::read(MUSL)?]),
            ),
            make_root: musl_root,
            settings: Settings {
                entrypoint: &[],
                command: &["/bin/sh"],
            },
        },
    ])
}

/// Makes the layouts that are not in the cache.
pub fn ensure(images: &[Image]) -> Result<()> {
    for image in images.iter().filter(|image| !image.layout.is_dir()) {
        sh::timed(
            &format!("cluster: making image {} once", image.name),
            || make(image),
        )?;
    }
    Ok(())
}

fn make(image: &Image) -> Result<()> {
    let building = image
        .layout
        .with_extension(format!("building-{}", std::process::id()));
    sh::remove(&building)?;
    let (root, layout) = (building.join("root"), building.join("layout"));
    sh::make_dir(&root)?;
    (image.make_root)(&root)?;
    oci::write(&layout, &root, "1", &image.settings)?;
    if !image.layout.is_dir() {
        fs::rename(&layout, &image.layout)
            .with_context(|| format!("could not create {}", image.layout.display()))?;
    }
    sh::remove(&building)
}

fn pause_source() -> PathBuf {
    dirs::repository().join("tests/cluster/pause/pause.c")
}

fn pause_root(root: &Path) -> Result<()> {
    sh::run(
        sh::command("cc")
            .args(["-Os", "-static", "-s", "-o"])
            .arg(root.join("pause"))
            .arg(pause_source()),
    )
}

fn python_root(root: &Path) -> Result<()> {
    let mut debootstrap = sh::command("debootstrap");
    debootstrap.args([
        "--variant=minbase",
        "--arch=amd64",
        &format!("--include={PACKAGES}"),
        SUITE,
    ]);
    sh::run(debootstrap.arg(root).arg(mirror()?))?;
    for folder in USELESS {
        sh::remove(root.join(folder))?;
        sh::make_dir(root.join(folder))?;
    }
    // Half of the packages' time goes here later: nothing in a pod compiles what Debian ships.
    sh::remove(root.join("dev"))?;
    sh::make_dir(root.join("dev"))
}

/// Nothing but one static program under a few names: no glibc, no Python, no package manager.
fn bare_root(root: &Path) -> Result<()> {
    let bin = root.join("bin");
    sh::make_dir(&bin)?;
    sh::make_dir(root.join("tmp"))?;
    sh::run(sh::command("cp").arg(BUSYBOX).arg(bin.join("busybox")))?;
    for name in ["sh", "ls", "cat", "echo", "sleep", "true"] {
        std::os::unix::fs::symlink("busybox", bin.join(name))?;
    }
    Ok(())
}

/// A Debian as it comes: shell and tools, but neither Python nor git.
fn debian_root(root: &Path) -> Result<()> {
    unpack_python(root)?;
    for path in REMOVED {
        sh::remove(root.join(path))?;
    }
    Ok(())
}

/// Python and the libraries that it needs; no shell, no tools, no package manager.
fn distroless_root(root: &Path) -> Result<()> {
    unpack_python(root)?;
    for folder in ["usr/bin", "usr/sbin"] {
        let folder = root.join(folder);
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("could not read {}", folder.display()))?;
        for program in entries {
            let program = program?;
            if !program.file_name().to_string_lossy().starts_with("python3") {
                sh::remove(program.path())?;
            }
        }
    }
    for folder in [
        "usr/lib/git-core",
        "usr/lib/apt",
        "var/lib/dpkg",
        "var/lib/apt",
    ] {
        sh::remove(root.join(folder))?;
    }
    Ok(())
}

/// The files of the Python image, which is made before those that are less than it.
fn unpack_python(root: &Path) -> Result<()> {
    let images = all()?;
    let python = images
        .iter()
        .find(|image| image.name == "python")
        .context("there is no Python image")?;
    sh::run(
        sh::command("tar")
            .args(["--numeric-owner", "-xf"])
            .arg(oci::layer(&python.layout)?)
            .arg("-C")
            .arg(root),
    )
}

fn musl_source() -> PathBuf {
    dirs::repository().join("tests/cluster/musl/musl.c")
}

/// musl's loader, which is its library too, a program that needs it, and a shell that needs nothing.
fn musl_root(root: &Path) -> Result<()> {
    bare_root(root)?;
    let lib = root.join("lib");
    sh::make_dir(&lib)?;
    sh::run(
        sh::command("cp")
            .arg("--dereference")
            .arg(MUSL)
            .arg(lib.join("ld-musl-x86_64.so.1")),
    )?;
    sh::run(
        sh::command("musl-gcc")
            .args(["-Os", "-s", "-o"])
            .arg(root.join("bin/musl"))
            .arg(musl_source()),
    )
}

/// The Debian mirror of the host's own apt settings.
fn mirror() -> Result<String> {
    let format = "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)|$(RELEASE)";
    let targets = sh::output(sh::command("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let mirror = targets.lines().find_map(|line| {
        let mut fields = line.split('|');
        let (origin, component, uri, release) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        // Updates and security have names like bookworm-updates; their mirrors need not have the suite itself.
        (origin == "Debian" && component == "main" && !release.contains('-'))
            .then(|| uri.to_owned())
    });
    match mirror {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "apt knows no Debian mirror to make the Python image from; make it known with: apt-get update"
        ),
    }
}

/// Pushes what the registry does not have yet.
pub fn push(state: &State, images: &[Image]) -> Result<()> {
    for image in images {
        // The tag alone does not say which content it points to.
        let pushed = state
            .path("registry")
            .join(format!("{}.pushed", image.name));
        let wanted = image.layout.display().to_string();
        let manifest = format!("/v2/{}/manifests/1", image.name);
        let is_there = http::exists(layout::local(layout::REGISTRY_PORT), &manifest);
        if is_there && fs::read_to_string(&pushed).is_ok_and(|text| text == wanted) {
            continue;
        }
        copy(image, &image.reference(), false)?;
        sh::write(&pushed, wanted)?;
    }
    Ok(())
}

/// Pushes to somebody else's registry; layers that it has are not sent again.
pub fn publish(images: &[Image], registry: &str) -> Result<()> {
    for image in images {
        let reference = format!("{registry}/{}:1", image.name);
        sh::timed(&format!("cluster: pushing {reference}"), || {
            copy(image, &reference, true)
        })?;
    }
    Ok(())
}

fn copy(image: &Image, reference: &str, verify_tls: bool) -> Result<()> {
    let mut copy = sh::command("skopeo");
    copy.args([
        "copy",
        "--quiet",
        "--preserve-digests",
        &format!("--dest-tls-verify={verify_tls}"),
    ]);
    copy.arg(format!("oci:{}:1", image.layout.display()))
        .arg(format!("docker://{reference}"));
    sh::run(&mut copy)
}

/// Pulls an image into containerd ahead of its first pod; one that is there costs one question to the registry.
pub fn pull(state: &State, reference: &str) -> Result<()> {
    sh::run(node::ctr(state).args(["images", "pull", "--plain-http", reference]))
}
