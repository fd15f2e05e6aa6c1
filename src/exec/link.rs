//! Hands over to the program that fits the image's C library.
//!
//! The container's command is the static program, which runs in every image but cannot load the NVML library. Where
//! the image has glibc's loader, its place is taken by the one that is linked against an old glibc.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::settings::{LINK, Settings};

#[cfg(target_arch = "aarch64")]
const LOADER: &str = "/lib/ld-linux-aarch64.so.1";
#[cfg(not(target_arch = "aarch64"))]
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Becomes the other program if there is one that starts here; otherwise returns and this one goes on.
pub fn hand_over(settings: &Settings) {
    let other = settings.layout.bin().join("trainyard-glibc");
    if settings.link.is_some() || !Path::new(LOADER).exists() || !other.is_file() {
        return;
    }
    // A loader alone proves little: its library may be older than ours, or another one in its clothes.
    let starts = Command::new(&other)
        .arg("--version")
        .env(LINK, "probe")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if starts {
        let error = Command::new(&other)
            .args(["--in-pod", "task"])
            .env(LINK, "glibc")
            .exec();
        tracing::warn!(%error, "could not hand over to the program for glibc");
    }
}
