//! What the machine must offer: found by file, so that it does not matter how it was installed.

use std::path::Path;

use anyhow::{Result, bail};

use crate::sh;

/// What proves that a package is there.
enum Proof {
    Program(&'static str),
    File(&'static str),
}

/// Debian packages that cluster and image need, and what each of them is for.
const PACKAGES: &[(&str, Proof)] = &[
    ("containerd", Proof::Program("containerd")),
    ("runc", Proof::Program("runc")),
    (
        "containernetworking-plugins",
        Proof::File("/usr/lib/cni/bridge"),
    ),
    ("nftables", Proof::Program("nft")),
    ("iproute2", Proof::Program("ip")),
    ("docker-registry", Proof::Program("docker-registry")),
    ("skopeo", Proof::Program("skopeo")),
    ("buildah", Proof::Program("buildah")),
    ("debootstrap", Proof::Program("debootstrap")),
    ("busybox-static", Proof::File("/bin/busybox")),
    ("openssl", Proof::Program("openssl")),
    ("gcc", Proof::Program("cc")),
    ("musl-tools", Proof::Program("musl-gcc")),
    ("libc6-dev", Proof::File("/usr/include/stdlib.h")),
    ("git", Proof::Program("git")),
    ("git-lfs", Proof::Program("git-lfs")),
    ("python3", Proof::Program("python3")),
    ("python3-venv", Proof::Program("/usr/bin/python3")),
    ("util-linux", Proof::Program("setsid")),
];

/// What the tests of the server's page need on top: a browser, and what drives it.
const BROWSER: &[(&str, Proof)] = &[
    ("chromium", Proof::Program("chromium")),
    ("chromium-driver", Proof::Program("chromedriver")),
];

/// Names of Debian packages that are missing on this machine.
fn missing(packages: &[(&'static str, Proof)]) -> Vec<&'static str> {
    packages
        .iter()
        .filter(|(package, proof)| !is_there(package, proof))
        .map(|(package, _)| *package)
        .collect()
}

fn is_there(package: &str, proof: &Proof) -> bool {
    match proof {
        // Debian splits what `python3 -m venv` needs into a package of its own.
        _ if package == "python3-venv" => {
            sh::succeeds(sh::command("python3").args(["-c", "import ensurepip, venv"]))
        }
        Proof::Program(program) => sh::find(program).is_some(),
        Proof::File(path) => Path::new(path).exists(),
    }
}

/// Fails with the one line that installs what is missing.
pub fn check() -> Result<()> {
    let missing = missing(PACKAGES);
    if !missing.is_empty() {
        bail!(
            "missing on this machine: {0}; install with: apt-get install -y {0}",
            missing.join(" ")
        );
    }
    go()?;
    Ok(())
}

/// Installs what is missing, quietly and without what is merely recommended.
pub fn install_missing() -> Result<()> {
    install(&missing(PACKAGES))
}

/// The same, with the browser.
pub fn install_for_tests() -> Result<()> {
    install(&[missing(PACKAGES), missing(BROWSER)].concat())
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    require_root("installing packages")?;
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

/// Go, also where its own installation instructions put it.
pub fn go() -> Result<std::path::PathBuf> {
    let usual = Path::new("/usr/local/go/bin/go");
    match sh::find("go") {
        Some(go) => Ok(go),
        None if usual.is_file() => Ok(usual.to_owned()),
        None => bail!(
            "Go 1.26 or newer is missing on this machine; install with: \
             curl -fsSL https://go.dev/dl/go1.26.8.linux-amd64.tar.gz | tar -C /usr/local -xz"
        ),
    }
}

/// Fails unless run by root.
pub fn require_root(what: &str) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "{what} needs root: run it with `sudo -E env PATH=$PATH`, or set KUBECONFIG to a cluster that is there"
        );
    }
    Ok(())
}
