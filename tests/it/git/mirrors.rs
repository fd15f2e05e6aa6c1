//! Repositories on the cache volume: what is there is not fetched again, and nothing of it is believed blindly.

use std::fs;
use std::path::{Path, PathBuf};

use trainyard::exec::git::tidy;
use trainyard::exec::plan::Revision;

use super::fixture::{Dest, Origin, git, wanted};
use super::served::{Private, TOKEN, contents};

/// A cache volume.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder is made"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("git")
    }

    /// A pod with this volume, whose calls of git are noted.
    fn pod(&self) -> Dest {
        let calls = self.0.path().join("calls");
        let mut dest = Dest::with_git(&format!(
            "echo \"$*\" >>{}; exec git \"$@\"",
            calls.display()
        ));
        fs::create_dir_all(self.path()).expect("a folder is made");
        dest.settings.mirrors = Some(self.path());
        dest
    }

    /// How often a server was asked for commits since the last question.
    fn fetches(&self) -> usize {
        let calls = self.0.path().join("calls");
        let text = fs::read_to_string(&calls).unwrap_or_default();
        let _ = fs::remove_file(calls);
        text.lines()
            .filter(|line| line.starts_with("fetch") && line.contains(" origin "))
            .count()
    }

    fn repositories(&self) -> Vec<PathBuf> {
        let mut found = below(&self.path(), &|path| path.join("git/HEAD").is_file());
        found.sort();
        found
    }

    fn packs(&self) -> Vec<PathBuf> {
        below(&self.path(), &|path| {
            path.extension()
                .is_some_and(|extension| extension == "pack")
        })
    }

    fn size(&self) -> u64 {
        let files = below(&self.path(), &|path| path.is_file());
        files
            .iter()
            .map(|file| file.metadata().expect("a file").len())
            .sum()
    }
}

fn below(folder: &Path, fits: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if fits(&path) {
            found.push(path.clone());
        }
        if path.is_dir() {
            found.extend(below(&path, fits));
        }
    }
    found
}

/// Text that no compression makes small.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 88_172_645_463_325_252;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

#[tokio::test]
async fn the_second_task_of_a_repository_fetches_only_what_is_new() {
    let origin = Origin::new();
    origin.write("large.bin", noise(2 << 20));
    let first = origin.commit("train.py", "print(1)\n");
    let volume = Volume::new();
    let pod = volume.pod();
    pod.checkout(&wanted(&origin.url(), &first)).await.unwrap();
    assert_eq!(volume.fetches(), 1);
    let before = volume.size();

    let second = origin.commit("train.py", "print(2)\n");
    let pod = volume.pod();
    let checked = pod.checkout(&wanted(&origin.url(), &second)).await.unwrap();
    assert_eq!(checked.commit, second);
    assert_eq!(pod.read("train.py"), "print(2)\n");
    assert_eq!(
        fs::read(pod.path().join("large.bin")).unwrap(),
        noise(2 << 20)
    );
    assert_eq!(pod.git(&["status", "--porcelain"]), "");
    assert_eq!(pod.git(&["config", "remote.origin.url"]), origin.url());
    assert!(
        volume.size() - before < 64 << 10,
        "{} bytes more",
        volume.size() - before
    );
    assert_eq!(volume.fetches(), 1);

    // What is there needs no server at all.
    let url = origin.url();
    drop(origin);
    let pod = volume.pod();
    pod.checkout(&wanted(&url, &first)).await.unwrap();
    assert_eq!(pod.read("train.py"), "print(1)\n");
    assert_eq!(volume.fetches(), 0);
    assert!(
        pod.log().contains("the commit is in the cache"),
        "{}",
        pod.log()
    );
    // The checkout stands for itself: the volume is not there where the task runs.
    drop(volume);
    assert_eq!(pod.git(&["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(pod.git(&["fsck", "--full"]), "");
}

#[tokio::test]
async fn heads_of_branches_and_tags_are_asked_of_the_server_each_time() {
    let origin = Origin::new();
    let tagged = origin.commit("train.py", "print(1)\n");
    origin.git(&["tag", "--annotate", "--message", "x", "v1"]);
    let volume = Volume::new();
    for text in ["print(2)\n", "print(3)\n"] {
        let head = origin.commit("train.py", text);
        for (revision, commit) in [
            (Revision::Branch("main".into()), &head),
            (Revision::Default, &head),
            (Revision::Tag("v1".into()), &tagged),
        ] {
            let mut wanted = wanted(&origin.url(), "");
            wanted.revision = revision.clone();
            let pod = volume.pod();
            let checked = pod.checkout(&wanted).await.unwrap();
            assert_eq!(&checked.commit, commit, "{revision:?}");
            if let Revision::Tag(tag) = revision {
                assert_eq!(
                    pod.git(&["cat-file", "-t", &format!("refs/tags/{tag}")]),
                    "tag"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_short_commit_and_one_of_an_old_server_are_found_behind_what_is_there() {
    let origin = Origin::new();
    let first = origin.commit("train.py", "print(1)\n");
    let second = origin.commit("train.py", "print(2)\n");
    let third = origin.commit("train.py", "print(3)\n");
    let volume = Volume::new();
    // The newest is there without the history before it.
    for commit in [&third, &first[..10].to_owned(), &second[..12].to_owned()] {
        let mut wanted = wanted(&origin.url(), commit);
        wanted.branch = Some("main".into());
        let checked = volume.pod().checkout(&wanted).await.unwrap();
        assert!(checked.commit.starts_with(commit.as_str()));
    }
    let missing = "1".repeat(40);
    let failure = volume
        .pod()
        .checkout(&wanted(&origin.url(), &missing))
        .await
        .unwrap_err();
    assert_eq!(
        failure.sentence,
        format!("commit {missing} is not in {}", origin.url())
    );
}

#[tokio::test]
async fn s42_a_damaged_copy_is_found_and_made_anew() {
    let origin = Origin::new();
    origin.write("large.bin", noise(200_000));
    let commit = origin.commit("train.py", "print(1)\n");
    let volume = Volume::new();
    let bring = async || {
        let pod = volume.pod();
        let checked = pod.checkout(&wanted(&origin.url(), &commit)).await.unwrap();
        assert_eq!(checked.commit, commit);
        assert_eq!(
            fs::read(pod.path().join("large.bin")).unwrap(),
            noise(200_000)
        );
        pod.log()
    };
    assert!(!bring().await.contains("damaged"));
    let changed: fn(&mut Vec<u8>) = |bytes| bytes[100_000] ^= 0xff;
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(1000);
    for damage in [changed, cut] {
        for pack in volume.packs() {
            let mut bytes = fs::read(&pack).unwrap();
            damage(&mut bytes);
            fs::remove_file(&pack).unwrap();
            fs::write(&pack, bytes).unwrap();
        }
        let log = bring().await;
        assert!(log.contains("is damaged"), "{log}");
        assert!(log.contains("fetched anew"), "{log}");
        assert!(!bring().await.contains("damaged"), "it is whole again");
    }
    for repository in volume.repositories() {
        fs::write(repository.join("git/HEAD"), "x").unwrap();
    }
    assert!(bring().await.contains("is damaged"));
    for repository in volume.repositories() {
        fs::remove_dir_all(repository.join("git/refs")).unwrap();
        let _ = fs::remove_file(repository.join("git/packed-refs"));
    }
    bring().await;
}

#[tokio::test]
async fn other_credentials_get_nothing_out_of_the_cache_and_no_token_lies_in_it() {
    let (private, server) = Private::new().await;
    let url = format!("{}/train.git", server.url);
    let volume = Volume::new();
    let checkout = async |token: &str| {
        let mut pod = volume.pod();
        if !token.is_empty() {
            pod.give("token", token);
        }
        let result = pod.checkout(&wanted(&url, &private.commit)).await;
        assert!(!pod.log().contains(TOKEN));
        result.map(|_| pod.read("lib/lib.py"))
    };
    assert_eq!(checkout(TOKEN).await.unwrap(), "A = 1\n");
    assert_eq!(checkout(TOKEN).await.unwrap(), "A = 1\n");
    for wrong in ["", "wrong-canary"] {
        let failure = checkout(wrong).await.unwrap_err();
        assert!(failure.sentence.contains("credentials"), "{failure}");
    }
    assert!(!contents(&volume.path()).contains(TOKEN));
    assert!(!contents(&volume.path()).contains("wrong-canary"));
}

#[tokio::test]
async fn tasks_that_start_at_once_fetch_once() {
    let origin = Origin::new();
    let commit = origin.commit("train.py", "print(1)\n");
    let volume = Volume::new();
    let pods = [volume.pod(), volume.pod(), volume.pod()];
    let wanted = wanted(&origin.url(), &commit);
    let (a, b, c) = tokio::join!(
        pods[0].checkout(&wanted),
        pods[1].checkout(&wanted),
        pods[2].checkout(&wanted)
    );
    for result in [a, b, c] {
        assert_eq!(result.unwrap().commit, commit);
    }
    assert_eq!(volume.fetches(), 1);
}

#[tokio::test]
async fn submodules_come_out_of_the_cache_too() {
    let (private, server) = Private::new().await;
    let url = format!("{}/train.git", server.url);
    let volume = Volume::new();
    let mut pod = volume.pod();
    pod.give("token", TOKEN);
    pod.checkout(&wanted(&url, &private.commit)).await.unwrap();
    assert_eq!(volume.repositories().len(), 2);
    // The server is gone: repository and submodule are here.
    drop(server);
    let mut pod = volume.pod();
    pod.give("token", TOKEN);
    pod.checkout(&wanted(&url, &private.commit)).await.unwrap();
    assert_eq!(pod.read("lib/lib.py"), "A = 1\n");
    let lib = pod.path().join("lib");
    assert!(git(&lib, &["config", "remote.origin.url"]).starts_with("http://"));
    assert_eq!(git(&lib, &["status", "--porcelain"]), "");
    drop(volume);
    assert_eq!(git(&lib, &["fsck", "--full"]), "");
}

#[tokio::test]
async fn a_submodule_whose_name_ends_in_path_comes_along() {
    let library = Origin::new();
    library.commit("lib.py", "A = 1\n");
    let origin = Origin::new();
    origin.commit("train.py", "print(1)\n");
    origin.add_submodule(&library, "data.path");
    let commit = origin.commit("x", "");
    let volume = Volume::new();
    let pod = volume.pod();
    pod.checkout(&wanted(&origin.url(), &commit)).await.unwrap();
    assert_eq!(pod.read("data.path/lib.py"), "A = 1\n");
    assert_eq!(volume.repositories().len(), 2);
}

#[tokio::test]
async fn a_submodule_with_a_path_of_this_machine_is_refused_with_a_cache_too() {
    let (private, server) = Private::new().await;
    let bare = private.path().join("lib.git");
    let commit = private.other(&format!("file://{}", bare.display()));
    let volume = Volume::new();
    let mut pod = volume.pod();
    pod.give("token", TOKEN);
    let failure = pod
        .checkout(&wanted(&format!("{}/other.git", server.url), &commit))
        .await
        .unwrap_err();
    assert!(
        failure
            .sentence
            .contains("a kind of address that is not allowed"),
        "{failure}"
    );
}

#[tokio::test]
async fn files_of_git_lfs_are_kept() {
    let origin = Origin::new();
    origin.git(&["lfs", "install", "--local"]);
    origin.git(&["lfs", "track", "*.bin"]);
    origin.write("weights.bin", noise(100_000));
    let commit = origin.commit("train.py", "print(1)\n");
    let bare = tempfile::tempdir().unwrap();
    git(bare.path(), &["init", "--quiet", "--bare", "all.git"]);
    let url = format!("file://{}/all.git", bare.path().display());
    origin.git(&["remote", "add", "origin", &url]);
    origin.git(&["push", "--quiet", "origin", "main"]);
    let volume = Volume::new();
    for turn in 0..2 {
        let pod = volume.pod();
        pod.checkout(&wanted(&url, &commit)).await.unwrap();
        assert_eq!(
            fs::read(pod.path().join("weights.bin")).unwrap(),
            noise(100_000),
            "turn {turn}: {}",
            pod.log()
        );
        // From now on nothing but the cache has them.
        let _ = fs::remove_dir_all(bare.path().join("all.git/lfs"));
    }
}

#[tokio::test]
async fn s42_repositories_stay_within_their_part_of_the_cache() {
    let volume = Volume::new();
    let mut origins = Vec::new();
    for _ in 0..3 {
        let origin = Origin::new();
        origin.write("large.bin", noise(400_000));
        let commit = origin.commit("train.py", "print(1)\n");
        let pod = volume.pod();
        pod.checkout(&wanted(&origin.url(), &commit)).await.unwrap();
        origins.push((origin, commit));
        // A clock that ticks slower than this would make the order chance.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(volume.repositories().len(), 3);
    let mut settings = volume.pod().settings;
    let size = tidy(&settings, &mut |_| {});
    assert!(size > 1_200_000, "{size}");
    // Four times what two of them take.
    settings.mirror_limit = Some(4 * 1_000_000);
    let mut said = String::new();
    let size = tidy(&settings, &mut |line| said.push_str(line));
    assert!(size < 1_000_000, "{size}");
    assert!(
        said.contains("1 repositories that were used longest ago"),
        "{said}"
    );
    assert_eq!(volume.repositories().len(), 2);
    let _ = volume.fetches();
    let (newest, commit) = &origins[2];
    volume
        .pod()
        .checkout(&wanted(&newest.url(), commit))
        .await
        .unwrap();
    assert_eq!(volume.fetches(), 0, "the newest is still there");
    let (oldest, commit) = &origins[0];
    volume
        .pod()
        .checkout(&wanted(&oldest.url(), commit))
        .await
        .unwrap();
    assert_eq!(volume.fetches(), 1, "the oldest is not");
}

#[tokio::test]
async fn a_cache_that_cannot_be_used_costs_time_and_no_task() {
    let origin = Origin::new();
    let commit = origin.commit("train.py", "print(1)\n");
    let volume = Volume::new();
    fs::write(volume.path(), "a file").unwrap();
    let mut dest = Dest::new();
    dest.settings.mirrors = Some(volume.path());
    dest.checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    assert!(dest.log().contains("cannot be written"), "{}", dest.log());
    // What is in the place of a repository is no repository.
    let volume = Volume::new();
    volume
        .pod()
        .checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    for repository in volume.repositories() {
        fs::remove_dir_all(repository.join("git")).unwrap();
        fs::write(repository.join("git"), "a file").unwrap();
    }
    let pod = volume.pod();
    pod.checkout(&wanted(&origin.url(), &commit)).await.unwrap();
    assert!(pod.log().contains("for this task alone"), "{}", pod.log());
}
