//! Uncommitted changes, recorded as the SDK records them and laid over a checkout.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use trainyard::exec::diff;
use trainyard::exec::failure::Failure;

use super::fixture::{Dest, Origin, git, wanted};

/// The SDK's own command (clearml 2.1.12).
const RECORD: [&str; 4] = ["diff", "--submodule=diff", "--default-prefix", "HEAD"];

/// A repository with a file of each kind.
fn origin() -> (Origin, String) {
    let origin = Origin::new();
    origin.write("crlf.txt", "a\r\nb\r\nc\r\n");
    origin.write("old name.py", "def f():\n    return 1\n\n\nprint(f())\n");
    origin.write("gone.py", "print('gone')\n");
    origin.write("data.bin", [0_u8, 1, 2, 255]);
    origin.write("ä/größe.py", "x = 'ü'\n");
    origin.write("run.sh", "echo\n");
    let commit = origin.commit("train.py", "a\nb\nc\nd\ne\nf\ng\n");
    (origin, commit)
}

/// Records with git without its newer option where that is not known.
fn recorded(origin: &Origin, extra: &[&str]) -> String {
    let mut arguments: Vec<&str> = RECORD.to_vec();
    if !git(origin.path(), &["version"])
        .split(['.', ' '])
        .nth(3)
        .is_some_and(|minor| minor.parse::<u32>().is_ok_and(|minor| minor >= 41))
    {
        arguments.retain(|argument| *argument != "--default-prefix");
    }
    arguments.extend(extra);
    // Untrimmed: the last line counts.
    let output = std::process::Command::new("git")
        .args(arguments)
        .current_dir(origin.path())
        .output()
        .expect("git runs");
    String::from_utf8(output.stdout).expect("a diff is text")
}

async fn apply(diff: &str, dest: &Dest) -> Result<(), Failure> {
    diff::apply(diff, &dest.path(), Path::new("git"), &mut |_| {}).await
}

async fn checked_out(origin: &Origin, commit: &str) -> Dest {
    let dest = Dest::new();
    dest.checkout(&wanted(&origin.url(), commit))
        .await
        .expect("it is checked out");
    dest
}

#[tokio::test]
async fn every_kind_of_change_arrives() {
    let (origin, commit) = origin();
    origin.write("train.py", "a\nB\nc\nd\ne\nf\nno newline at the end");
    origin.write("crlf.txt", "a\r\nX\r\nc\r\n");
    origin.write("ä/größe.py", "x = 'ß → 長'\n");
    origin.write("new file.py", "print('new')\n");
    origin.write("sub/empty.py", "");
    fs::remove_file(origin.path().join("gone.py")).unwrap();
    origin.git(&["mv", "old name.py", "new name.py"]);
    fs::set_permissions(
        origin.path().join("run.sh"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    origin.git(&["add", "--all"]);
    let diff = recorded(&origin, &[]);

    let dest = checked_out(&origin, &commit).await;
    apply(&diff, &dest).await.unwrap();
    assert_eq!(
        dest.read("train.py"),
        "a\nB\nc\nd\ne\nf\nno newline at the end"
    );
    assert_eq!(dest.read("crlf.txt"), "a\r\nX\r\nc\r\n");
    assert_eq!(dest.read("ä/größe.py"), "x = 'ß → 長'\n");
    assert_eq!(dest.read("new file.py"), "print('new')\n");
    assert_eq!(dest.read("sub/empty.py"), "");
    assert_eq!(
        dest.read("new name.py"),
        "def f():\n    return 1\n\n\nprint(f())\n"
    );
    assert!(!dest.path().join("gone.py").exists() && !dest.path().join("old name.py").exists());
    let mode = fs::metadata(dest.path().join("run.sh"))
        .unwrap()
        .permissions()
        .mode();
    assert_ne!(mode & 0o100, 0);
}

#[tokio::test]
async fn a_file_that_was_only_announced_to_git_arrives() {
    let (origin, commit) = origin();
    origin.write("announced.py", "print('announced')\n");
    origin.git(&["add", "--intent-to-add", "announced.py"]);
    let dest = checked_out(&origin, &commit).await;
    apply(&recorded(&origin, &[]), &dest).await.unwrap();
    assert_eq!(dest.read("announced.py"), "print('announced')\n");
}

#[tokio::test]
async fn a_lost_last_newline_does_no_harm() {
    let (origin, commit) = origin();
    origin.write("train.py", "a\nb\nc\nd\ne\nf\nG\n");
    let dest = checked_out(&origin, &commit).await;
    apply(recorded(&origin, &[]).trim_end(), &dest)
        .await
        .unwrap();
    assert_eq!(dest.read("train.py"), "a\nb\nc\nd\ne\nf\nG\n");
}

#[tokio::test]
async fn binary_changes_arrive_if_recorded_and_are_named_if_not() {
    let (origin, commit) = origin();
    origin.write("data.bin", [9_u8, 0, 255, 7]);
    let dest = checked_out(&origin, &commit).await;
    apply(&recorded(&origin, &["--binary"]), &dest)
        .await
        .unwrap();
    assert_eq!(
        fs::read(dest.path().join("data.bin")).unwrap(),
        [9, 0, 255, 7]
    );

    let dest = checked_out(&origin, &commit).await;
    let failure = apply(&recorded(&origin, &[]), &dest).await.unwrap_err();
    assert!(
        failure
            .sentence
            .contains("the binary file data.bin was changed"),
        "{failure}"
    );
}

#[tokio::test]
async fn changes_inside_a_submodule_arrive() {
    let library = Origin::new();
    library.commit("lib.py", "A = 1\n");
    let origin = Origin::new();
    origin.commit("train.py", "import lib\n");
    origin.add_submodule(&library, "lib");
    let commit = origin.commit("x", "");
    origin.write("lib/lib.py", "A = 2\n");
    origin.write("train.py", "import lib.lib\n");
    let diff = recorded(&origin, &[]);
    assert!(
        diff.contains("Submodule lib contains modified content"),
        "{diff}"
    );
    let dest = checked_out(&origin, &commit).await;
    apply(&diff, &dest).await.unwrap();
    assert_eq!(
        (
            dest.read("lib/lib.py").as_str(),
            dest.read("train.py").as_str()
        ),
        ("A = 2\n", "import lib.lib\n")
    );
}

#[tokio::test]
async fn a_diff_that_does_not_apply_names_the_file_and_changes_nothing() {
    let (origin, commit) = origin();
    origin.write("crlf.txt", "a\r\nX\r\nc\r\n");
    origin.write("train.py", "a\nb\nC\nd\ne\nf\ng\n");
    let diff = recorded(&origin, &[]);
    let dest = checked_out(&origin, &commit).await;
    fs::write(dest.path().join("train.py"), "something else\n").unwrap();
    let failure = apply(&diff, &dest).await.unwrap_err();
    assert!(
        failure
            .sentence
            .contains("do not apply: train.py differs at line "),
        "{failure}"
    );
    assert_eq!(
        dest.read("crlf.txt"),
        "a\r\nb\r\nc\r\n",
        "all of it or nothing"
    );

    fs::remove_file(dest.path().join("train.py")).unwrap();
    let failure = apply(&diff, &dest).await.unwrap_err();
    assert!(
        failure.sentence.contains("train.py is not in the commit"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_diff_does_not_write_outside_the_checkout() {
    let (origin, commit) = origin();
    let dest = checked_out(&origin, &commit).await;
    let outside = dest.path().parent().unwrap().join("evil.py");
    let diff = "diff --git a/../evil.py b/../evil.py\nnew file mode 100644\n--- /dev/null\n+++ b/../evil.py\n@@ -0,0 +1 @@\n+x\n";
    assert!(apply(diff, &dest).await.is_err());
    assert!(!outside.exists());
}
