//! Checkout and uncommitted changes against real repositories, served by files, git's own daemon, HTTP and ssh.

mod diffs;
pub mod fixture;
mod mirrors;
pub mod served;
pub mod servers;
mod ssh;
pub mod sshd;

use std::time::Duration;

use trainyard::exec::git::{GitSettings, checkout};
use trainyard::exec::plan::Revision;

use self::fixture::{Dest, Origin, wanted};

#[tokio::test]
async fn a_commit_is_fetched_alone() {
    let origin = Origin::new();
    let first = origin.commit("train.py", "print(1)\n");
    let second = origin.commit("train.py", "print(2)\n");
    origin.commit("train.py", "print(3)\n");
    for (commit, text) in [(&second, "print(2)\n"), (&first, "print(1)\n")] {
        let dest = Dest::new();
        let checked = dest.checkout(&wanted(&origin.url(), commit)).await.unwrap();
        assert_eq!(&checked.commit, commit);
        assert_eq!(dest.read("train.py"), text);
        assert_eq!(dest.git(&["rev-parse", "HEAD"]), *commit);
        assert_eq!(
            dest.git(&["rev-list", "--count", "HEAD"]),
            "1",
            "no history was fetched"
        );
        assert_eq!(dest.git(&["status", "--porcelain"]), "");
    }
}

#[tokio::test]
async fn a_server_that_hands_out_no_single_commit_is_searched() {
    let origin = Origin::new();
    let first = origin.commit("train.py", "print(1)\n");
    origin.commit("train.py", "print(2)\n");
    origin.git(&["checkout", "--quiet", "-b", "side", &first]);
    let side = origin.commit("side.py", "print(3)\n");
    // Version 0 of the protocol knows advertised commits only.
    let old = Dest::with_git("exec git -c protocol.version=0 \"$@\"");
    for (commit, branch) in [
        (&first, Some("main")),
        (&first, None),
        (&side, Some("main")),
        (&side, Some("gone")),
    ] {
        let mut wanted = wanted(&origin.url(), commit);
        wanted.branch = branch.map(str::to_owned);
        assert_eq!(
            &old.checkout(&wanted).await.unwrap().commit,
            commit,
            "{branch:?}"
        );
    }
    let failure = old
        .checkout(&wanted(&origin.url(), &"1".repeat(40)))
        .await
        .unwrap_err();
    assert!(failure.sentence.contains("is not in"), "{failure}");
}

#[tokio::test]
async fn a_short_commit_is_found() {
    let origin = Origin::new();
    let first = origin.commit("train.py", "print(1)\n");
    origin.commit("train.py", "print(2)\n");
    let checked = Dest::new()
        .checkout(&wanted(&origin.url(), &first[..10]))
        .await
        .unwrap();
    assert_eq!(checked.commit, first);
}

#[tokio::test]
async fn tags_branches_and_the_default_branch_lead_to_their_commit() {
    let origin = Origin::new();
    let tagged = origin.commit("train.py", "print(1)\n");
    origin.git(&["tag", "--annotate", "--message", "x", "v1"]);
    let main = origin.commit("train.py", "print(2)\n");
    origin.git(&["checkout", "--quiet", "-b", "feature/a"]);
    let feature = origin.commit("train.py", "print(3)\n");
    for (revision, commit) in [
        (Revision::Tag("v1".into()), &tagged),
        (Revision::Branch("feature/a".into()), &feature),
        (Revision::Default, &main),
    ] {
        let mut wanted = wanted(&origin.url(), "");
        wanted.revision = revision.clone();
        assert_eq!(
            &Dest::new().checkout(&wanted).await.unwrap().commit,
            commit,
            "{revision:?}"
        );
    }
    for (revision, expected) in [
        (Revision::Tag("v2".into()), "there is no tag v2 in "),
        (
            Revision::Branch("gone".into()),
            "there is no branch gone in ",
        ),
    ] {
        let mut wanted = wanted(&origin.url(), "");
        wanted.revision = revision;
        let failure = Dest::new().checkout(&wanted).await.unwrap_err();
        assert!(failure.sentence.starts_with(expected), "{failure}");
    }
}

#[tokio::test]
async fn a_missing_commit_is_one_clear_sentence() {
    let origin = Origin::new();
    origin.commit("train.py", "print(1)\n");
    let missing = "0123456789abcdef0123456789abcdef01234567";
    let failure = Dest::new()
        .checkout(&wanted(&origin.url(), missing))
        .await
        .unwrap_err();
    assert_eq!(
        failure.sentence,
        format!("commit {missing} is not in {}", origin.url())
    );
    assert!(
        failure.to_string().contains("hint: push the commit"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_named() {
    let gone = "file:///nonexistent/repository.git";
    let failure = Dest::new()
        .checkout(&wanted(gone, &"1".repeat(40)))
        .await
        .unwrap_err();
    assert!(
        failure
            .sentence
            .starts_with("there is no repository at file:///nonexistent"),
        "{failure}"
    );
}

#[tokio::test]
async fn submodules_come_along_and_a_missing_one_is_an_error() {
    let library = Origin::new();
    library.commit("lib.py", "A = 1\n");
    let nested = library.git(&["rev-parse", "HEAD"]);
    library.commit("lib.py", "A = 2\n");
    let origin = Origin::new();
    origin.commit("train.py", "import lib\n");
    origin.add_submodule(&library, "lib");
    origin.git_in("lib", &["checkout", "--quiet", &nested]);
    let commit = origin.commit("x", "");
    let dest = Dest::new();
    dest.checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    assert_eq!(dest.read("lib/lib.py"), "A = 1\n");

    origin.git(&[
        "config",
        "--file",
        ".gitmodules",
        "submodule.lib.url",
        "file:///nonexistent/lib.git",
    ]);
    let broken = origin.commit("y", "");
    let failure = Dest::new()
        .checkout(&wanted(&origin.url(), &broken))
        .await
        .unwrap_err();
    assert!(
        failure.sentence.starts_with("a submodule of file://"),
        "{failure}"
    );
}

#[tokio::test]
async fn files_of_git_lfs_are_fetched_or_told_to_be_pointers() {
    let origin = Origin::new();
    origin.write(
        ".gitattributes",
        "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    );
    let commit = origin.commit("data.bin", "version https://git-lfs.github.com/spec/v1\n");
    let without = Dest::with_git("[ \"$1\" = lfs ] && exit 1; exec git \"$@\"");
    without
        .checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    assert!(
        without.log().contains("they stay pointers"),
        "{}",
        without.log()
    );
    let with = Dest::with_git(
        "[ \"$1 $2\" = 'lfs pull' ] && echo pulled; [ \"$1\" = lfs ] && exit; exec git \"$@\"",
    );
    with.checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    assert!(with.log().contains("pulled"), "{}", with.log());
}

#[tokio::test]
async fn what_was_there_before_is_replaced() {
    let origin = Origin::new();
    let commit = origin.commit("train.py", "print(1)\n");
    let dest = Dest::new();
    dest.checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    std::fs::write(dest.path().join("left.py"), "").unwrap();
    dest.checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    assert!(!dest.path().join("left.py").exists());
}

#[tokio::test]
async fn code_is_readable_and_writable_for_every_user() {
    use std::os::unix::fs::PermissionsExt;
    let origin = Origin::new();
    let commit = origin.commit("sub/train.py", "print(1)\n");
    let dest = Dest::with_git("umask 0; exec git \"$@\"");
    dest.checkout(&wanted(&origin.url(), &commit))
        .await
        .unwrap();
    let mode = |name: &str| {
        std::fs::metadata(dest.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (
            mode("sub"),
            mode("sub/train.py"),
            mode(".git"),
            mode(".git/index")
        ),
        (0o777, 0o666, 0o777, 0o666)
    );
}

#[tokio::test]
async fn a_git_that_is_not_there_is_named() {
    let settings = GitSettings {
        git: "/nonexistent/git".into(),
        limit: Duration::from_secs(5),
        ..GitSettings::default()
    };
    let dest = Dest::new();
    let failure = checkout(
        &wanted("file:///x", "1234"),
        &dest.path(),
        &settings,
        &mut |_| {},
    )
    .await
    .unwrap_err();
    assert!(
        failure
            .sentence
            .contains("/nonexistent/git is not installed"),
        "{failure}"
    );
}
