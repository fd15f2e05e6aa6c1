//! Images that a scenario makes itself: Debian's buildah, from a folder with a Dockerfile to the cluster's registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::world::World;

/// With the storage in which the project's own image is made: what both are built on lies there already.
fn buildah() -> Command {
    let storage = std::env::var("TRAINYARD_E2E_BUILDAH").expect(
        "TRAINYARD_E2E_BUILDAH is not set: images need a storage; run scenarios by `cargo xtask test`",
    );
    let mut command = Command::new("buildah");
    command
        .args(["--root", &format!("{storage}/root")])
        .args(["--runroot", &format!("{storage}/run")])
        .args(["--storage-driver", "overlay"]);
    command
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .expect("buildah runs (apt-get install buildah)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Builds the folder and pushes what came of it to the repository `name`; its reference, which changes with what is in
/// it. `more` is for the build.
pub fn make(world: &World, name: &str, context: &Path, more: &[&str]) -> String {
    let registry = &world.place.registry;
    let tagged = format!("{registry}/{name}:{}", world.namespace);
    // The local cluster's registry is on this machine and has no certificate.
    let verify = format!("--tls-verify={}", !registry.starts_with("127.0.0.1:"));
    let mut build = buildah();
    build
        .args(["bud", "--quiet", "--isolation", "chroot", "--layers=false"])
        // Asked anew each time: the tag of the base stays when its content changes.
        .args(["--pull-always", &verify, "--tag", &tagged]);
    run(build.args(more).arg(context));
    let told = world.dir.path().join(format!("digest-of-{name}"));
    let mut push = buildah();
    push.args([
        "push",
        "--quiet",
        "--disable-compression",
        &verify,
        "--digestfile",
    ]);
    run(push.arg(&told).arg(&tagged));
    // It lives in the registry now; here it would only add up.
    let _ = buildah().args(["rmi", "--force", &tagged]).output();
    let digest = fs::read_to_string(&told).expect("buildah tells the digest");
    format!("{registry}/{name}@{}", digest.trim())
}
