//! Where environments and cache lie: on disks of their own, and on one that is full.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::fixture::{Image, wheel};

/// A file system of its own in memory, unmounted when this goes.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Path, megabytes: usize) -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "only root can mount the small disk that this test fills: run it as root"
        );
        fs::create_dir_all(place).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755")])
            .arg("trainyard-test")
            .arg(place);
        let mounted = mount.output().expect("mount runs");
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(mounted.status.success(), "{said}");
        Self(place.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Locks on it may still be held.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Environments in the cache, whole or half.
fn environments(cache: &Path) -> Vec<PathBuf> {
    let ours = cache.join(nix::unistd::geteuid().to_string()).join("env");
    let entries = fs::read_dir(ours).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_dir()).collect()
}

#[tokio::test]
async fn s42_environment_and_cache_may_lie_on_different_file_systems() {
    let mut image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|error| {
        panic!("/dev/shm is this test's other file system and cannot be written to: {error}")
    });
    let device = |path: &Path| path.metadata().unwrap().dev();
    assert_ne!(
        device(elsewhere.path()),
        device(&image.index()),
        "this test needs two file systems, and /dev/shm is that of {}: set TMPDIR to a folder of another one",
        image.index().display()
    );
    image.settings.own = elsewhere.path().join("own");

    // What is shared lies beside the cache; the task's own layer over it is on the other disk.
    let first = image.make(json!("alpha")).await.unwrap();
    assert_eq!(first.run("import alpha; print(alpha.V)"), "1.0");
    let (shared, layer) = (
        first.python.shared.clone().unwrap(),
        first.python.environment.clone().unwrap(),
    );
    assert!(shared.starts_with(image.cache()) && layer.starts_with(elsewhere.path()));
    assert!(!first.log.contains("another file system"), "{}", first.log);
    let again = image.make(json!("alpha")).await.unwrap();
    assert!(again.python.reused && again.python.shared.as_ref() == Some(&shared));

    // One that the task alone may use is made on the other disk, where nothing can be linked to.
    let file = first.run("import alpha; print(alpha.__file__)");
    fs::write(&file, "").unwrap();
    let own = image.make(json!("alpha")).await.unwrap();
    assert!(
        own.log
            .contains("the environment lies on another file system than the cache"),
        "{}",
        own.log
    );
    assert!(!own.log.contains("Failed to hardlink"), "{}", own.log);
    let place = own.run("import alpha; print(alpha.V, alpha.__file__)");
    let expected = format!("1.0 {}", elsewhere.path().display());
    assert!(place.starts_with(&expected), "{place}: {}", own.log);
    drop((first, again));
}

#[tokio::test]
async fn s42_a_cache_whose_disk_is_full_costs_time_and_no_task() {
    let image = Image::new();
    image.large_wheel("alpha", 8 << 20);
    wheel(&image.index(), "beta", "1.0", &[]);
    let _disk = Disk::mount(&image.cache(), 4);
    let made = image.make(json!("alpha")).await.unwrap();
    assert_eq!(made.run("import alpha; print(alpha.V)"), "1.0");
    assert!(
        made.log
            .contains("the cache is still full: the environment is made for this task alone"),
        "{}",
        made.log
    );
    let own = made.python.environment.clone().unwrap();
    assert!(own.starts_with(&image.settings.own), "{}", own.display());
    let left = environments(&image.cache());
    assert!(left.is_empty(), "half an environment is left: {left:?}");
    // The cache serves whatever has room in it.
    let small = image.make(json!("beta")).await.unwrap();
    let shared = small.python.shared.clone().unwrap();
    assert!(shared.starts_with(image.cache()), "{}", small.log);
    assert_eq!(small.run("import beta; print(beta.V)"), "1.0");
}

#[tokio::test]
async fn s42_a_disk_that_is_full_is_told_in_one_sentence() {
    let mut image = Image::new();
    image.large_wheel("alpha", 8 << 20);
    let place = image.cache();
    let _disk = Disk::mount(&place, 4);
    image.settings.cache = place.join("cache");
    image.settings.own = place.join("own");
    let failure = image.make(json!("alpha")).await.unwrap_err();
    assert_eq!(
        failure.sentence,
        "no space is left for the Python environment"
    );
    assert_eq!(failure.to_string().lines().count(), 1);
    let left = environments(&image.settings.cache);
    assert!(left.is_empty(), "half an environment is left: {left:?}");
    assert!(!image.settings.own.join("environment").exists());
}
