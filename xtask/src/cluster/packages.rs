//! What the machine must offer: found by file, so that it does not matter how it was installed.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::external;
use crate::sh;

/// What proves that a package is there.
enum Proof {
    Program(&'static str),
    File(&'static str),
    /// Code that the first Python of the path runs without an error.
    Python(&'static str),
}

/// The name of a Debian package, and its proof.
type Package = (&'static str, Proof);

/// What the programs of the image are built with.
const PROGRAMS: &[Package] = &[
    ("gcc", Proof::Program("cc")),
    ("libc6-dev", Proof::File("/usr/include/stdlib.h")),
    ("python3", Proof::Program("python3")),
    ("python3-venv", Proof::Python("import ensurepip, venv")),
    ("python3-pip", Proof::Python("import pip")),
];

/// What is needed beside it, whatever the cluster is.
const PACKAGES: &[Package] = &[
    ("skopeo", Proof::Program("skopeo")),
    ("buildah", Proof::Program("buildah")),
    ("openssl", Proof::Program("openssl")),
    ("git", Proof::Program("git")),
    ("git-lfs", Proof::Program("git-lfs")),
];

/// What the images of tasks are made with.
const IMAGES: &[Package] = &[
    ("debootstrap", Proof::Program("debootstrap")),
    ("busybox-static", Proof::File("/bin/busybox")),
    ("musl-tools", Proof::Program("musl-gcc")),
];

/// What the local cluster is made of.
const CLUSTER: &[Package] = &[
    ("containerd", Proof::Program("containerd")),
    ("runc", Proof::Program("runc")),
    (
        "containernetworking-plugins",
        Proof::File("/usr/lib/cni/bridge"),
    ),
    ("nftables", Proof::Program("nft")),
    ("iproute2", Proof::Program("ip")),
    ("docker-registry", Proof::Program("docker-registry")),
    ("util-linux", Proof::Program("setsid")),
];

/// A browser for the server's page, and what drives it.
const BROWSER: &[Package] = &[
    ("chromium", Proof::Program("chromium")),
    ("chromium-driver", Proof::Program("chromedriver")),
];

/// What tests need on top: an ssh server with repositories and its client, a Prometheus for the alerts, and what a
/// client of 2020 is compiled with, since parts of it are published as source alone.
const TESTS: &[Package] = &[
    ("openssh-server", Proof::File("/usr/sbin/sshd")),
    ("openssh-client", Proof::Program("ssh-keygen")),
    ("prometheus", Proof::Program("promtool")),
    (
        "python3-dev",
        Proof::Python(
            "import os, sysconfig; os.stat(os.path.join(sysconfig.get_path('include'), 'Python.h'))",
        ),
    ),
];

/// Names of Debian packages that are missing on this machine.
fn missing(lists: &[&[Package]]) -> Vec<&'static str> {
    lists
        .iter()
        .copied()
        .flatten()
        .filter(|(_, proof)| !is_there(proof))
        .map(|(package, _)| *package)
        .collect()
}

fn is_there(proof: &Proof) -> bool {
    match proof {
        Proof::Python(code) => sh::succeeds(sh::command("python3").args(["-c", code])),
        Proof::Program(program) => sh::find(program).is_some(),
        Proof::File(path) => Path::new(path).exists(),
    }
}

/// Fails with the lines that install what the local cluster lacks.
pub fn check() -> Result<()> {
    let missing = missing(&[PROGRAMS, PACKAGES, IMAGES, CLUSTER]);
    both(none(&missing), go().map(drop))
}

/// Installs what is missing for work on the cluster of `kubeconfig`, or else on the local one.
pub fn install_missing(kubeconfig: Option<&Path>) -> Result<()> {
    install_with(kubeconfig, &[])
}

/// The same, with what tests need.
pub fn install_for_tests(kubeconfig: Option<&Path>) -> Result<()> {
    install_with(kubeconfig, &[BROWSER, TESTS])
}

/// The same, with what opens the server's page.
pub fn install_for_page(kubeconfig: Option<&Path>) -> Result<()> {
    install_with(kubeconfig, &[BROWSER])
}

/// What the programs of `dist/` need, for whom packs them by other means.
pub fn install_for_programs() -> Result<()> {
    install(&missing(&[PROGRAMS]))
}

fn install_with(kubeconfig: Option<&Path>, more: &[&[Package]]) -> Result<()> {
    let missing = |lists: &[&[Package]]| missing(&[lists, more].concat());
    if kubeconfig.is_none() {
        let missing = missing(&[PROGRAMS, PACKAGES, IMAGES, CLUSTER]);
        return both(install(&missing), go().map(drop));
    }
    if external::task_image().is_some() {
        return install(&missing(&[PROGRAMS, PACKAGES]));
    }
    if !is_root() {
        bail!(
            "the images of tasks are made by debootstrap, which needs root: run it with `sudo -E env PATH=$PATH`, \
             or set {} to an image with Python that the cluster can pull",
            external::TASK_IMAGE
        );
    }
    install(&missing(&[PROGRAMS, PACKAGES, IMAGES]))
}

/// What apt-get brings and what it does not are told at once.
fn both(packages: Result<()>, go: Result<()>) -> Result<()> {
    match (packages, go) {
        (Err(packages), Err(go)) => bail!("{packages:#}; {go:#}"),
        (packages, go) => packages.and(go),
    }
}

fn none(missing: &[&str]) -> Result<()> {
    if !missing.is_empty() {
        bail!(
            "missing on this machine: {0}; install with: apt-get install -y {0}",
            missing.join(" ")
        );
    }
    Ok(())
}

/// Quietly, and without what is merely recommended.
fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() || !is_root() {
        return none(missing);
    }
    let Some(apt) = sh::find("apt-get") else {
        bail!(
            "missing on this machine: {}; apt-get is not here: install them by hand",
            missing.join(" ")
        );
    };
    let install = |quiet: &str| {
        let mut command = sh::command(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive").args([
            "install",
            "-y",
            quiet,
            "--no-install-recommends",
        ]);
        command.args(missing);
        command
    };
    sh::timed(&format!("installing {}", missing.join(" ")), || {
        // The lists may be there and fresh enough: the first try does without an update.
        if sh::succeeds(&mut install("-qq")) {
            return Ok(());
        }
        sh::run(sh::command(&apt).args(["update", "-qq"]))?;
        sh::run(&mut install("-qq"))
    })
}

/// Go, also where its own installation instructions put it. From 1.21 on it fetches the version that a module names.
pub fn go() -> Result<PathBuf> {
    let usual = PathBuf::from("/usr/local/go/bin/go");
    let usual = usual.is_file().then_some(usual);
    let mut old = String::new();
    for go in sh::find("go").into_iter().chain(usual) {
        let version = sh::output(sh::command(&go).arg("version").current_dir("/"))?;
        if minor(&version).is_none_or(|minor| minor >= 21) {
            return Ok(go);
        }
        old = format!(" ({} is too old: {version})", go.display());
    }
    bail!(no_go(&old))
}

fn no_go(old: &str) -> String {
    format!(
        "Go 1.21 or newer is missing on this machine{old}; install with: \
         curl -fsSL https://go.dev/dl/go1.26.8.linux-amd64.tar.gz | tar -C /usr/local -xz"
    )
}

/// The 26 of `go version go1.26.8 linux/amd64`.
fn minor(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("go1.")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Fails unless run by root.
pub fn require_root(what: &str) -> Result<()> {
    if !is_root() {
        bail!(no_root(what));
    }
    Ok(())
}

fn no_root(what: &str) -> String {
    format!(
        "{what} needs root: run it with `sudo -E env PATH=$PATH`, or set KUBECONFIG to a cluster that is there"
    )
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_go_are_told_at_once() {
        let told = both(none(&["runc", "git"]), Err(anyhow::anyhow!("no Go"))).unwrap_err();
        assert_eq!(
            told.to_string(),
            "missing on this machine: runc git; install with: apt-get install -y runc git; no Go"
        );
        assert!(both(none(&[]), Ok(())).is_ok());
        assert!(both(none(&["runc"]), Ok(())).is_err());
    }

    #[test]
    fn what_is_missing_is_one_line_with_the_command_that_helps() {
        for (told, command) in [
            (
                no_go(" (/usr/bin/go is too old: go1.19)"),
                "curl -fsSL https://go.dev/dl/go",
            ),
            (no_root("the local cluster"), "sudo -E env PATH=$PATH"),
            (
                none(&["runc"]).unwrap_err().to_string(),
                "apt-get install -y runc",
            ),
        ] {
            assert!(told.contains(command), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }

    #[test]
    fn the_age_of_go_is_read() {
        assert_eq!(minor("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(minor("go version go1.19 linux/amd64"), Some(19));
        assert_eq!(minor("go version devel linux/amd64"), None);
    }
}
