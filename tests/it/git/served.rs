//! Repositories behind a network: git's daemon, HTTP with and without a password, ssh.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use trainyard::exec::plan::Credentials;

use super::fixture::{Dest, HUNG, Origin, git, wanted};
use super::servers::{Daemon, Server, free_port};

pub const TOKEN: &str = "canary-5f2b-token";

/// Notes whether a secret is seen in the command line of any process that begins while it lives.
pub struct ProcessList {
    seen: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ProcessList {
    pub fn watch(secret: &'static str) -> Self {
        let (seen, stop) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let flags = (seen.clone(), stop.clone());
        let mut before = processes();
        let thread = std::thread::spawn(move || {
            while !flags.1.load(Ordering::Relaxed) {
                let now = processes();
                // The id of one that has ended may come again.
                before.retain(|id| now.contains(id));
                for id in now.difference(&before) {
                    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
                    if String::from_utf8_lossy(&line).contains(secret) {
                        flags.0.store(true, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    pub fn saw_it(mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("a thread")
            .join()
            .expect("it ends");
        self.seen.load(Ordering::Relaxed)
    }
}

fn processes() -> HashSet<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is read").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// All that is below a folder, as one text.
pub fn contents(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &contents(&path);
        } else {
            text += &String::from_utf8_lossy(&fs::read(path).unwrap_or_default());
        }
    }
    text
}

/// A private repository with a submodule on the same server, both bare below one folder.
pub struct Private {
    folder: tempfile::TempDir,
    pub commit: String,
}

impl Private {
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub async fn new() -> (Self, Server) {
        let private = Self::bare();
        let server = Server::start(private.path(), Some(TOKEN)).await;
        (private, server)
    }

    /// The repositories alone.
    pub fn bare() -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        let library = Origin::new();
        library.commit("lib.py", "A = 1\n");
        let origin = Origin::new();
        origin.commit("train.py", "print(1)\n");
        origin.add_submodule(&library, "lib");
        origin.git(&[
            "config",
            "--file",
            ".gitmodules",
            "submodule.lib.url",
            "../lib.git",
        ]);
        let commit = origin.commit("x", "");
        for (from, name) in [(&library, "lib.git"), (&origin, "train.git")] {
            git(
                folder.path(),
                &["clone", "--quiet", "--bare", &from.url(), name],
            );
        }
        Self { folder, commit }
    }

    /// A third one, `other.git`: the same with its submodule at this address. Gives its commit.
    pub fn other(&self, submodule: &str) -> String {
        let origin = Origin::new();
        origin.git(&[
            "pull",
            "--quiet",
            &format!("file://{}/train.git", self.path().display()),
        ]);
        origin.git(&[
            "config",
            "--file",
            ".gitmodules",
            "submodule.lib.url",
            submodule,
        ]);
        let commit = origin.commit("y", "");
        git(
            self.path(),
            &["clone", "--quiet", "--bare", &origin.url(), "other.git"],
        );
        commit
    }
}

#[tokio::test]
async fn a_token_opens_a_private_repository_and_shows_nowhere() {
    let (private, server) = Private::new().await;
    let mut dest = Dest::new();
    dest.give("token", &format!("{TOKEN}\n"));
    let list = ProcessList::watch(TOKEN);
    let checked = dest
        .checkout(&wanted(
            &format!("{}/train.git", server.url),
            &private.commit,
        ))
        .await;
    assert!(!list.saw_it(), "the token stood in a command line");
    assert_eq!(checked.unwrap().commit, private.commit);
    assert_eq!(
        (
            dest.read("train.py").as_str(),
            dest.read("lib/lib.py").as_str()
        ),
        ("print(1)\n", "A = 1\n")
    );
    assert!(
        !contents(&dest.path()).contains(TOKEN),
        "the token is in the checkout"
    );
    assert!(!dest.log().contains(TOKEN));
}

#[tokio::test]
async fn a_user_and_a_password_open_a_private_repository_and_show_nowhere() {
    let private = Private::bare();
    let server = Server::start_for(private.path(), "deploy", TOKEN).await;
    let wanted = wanted(&format!("{}/train.git", server.url), &private.commit);
    let mut dest = Dest::new();
    dest.give("username", "deploy\n");
    dest.give("password", &format!("{TOKEN}\n"));
    let list = ProcessList::watch(TOKEN);
    let checked = dest.checkout(&wanted).await;
    assert!(!list.saw_it(), "the password stood in a command line");
    assert_eq!(checked.unwrap().commit, private.commit);
    assert_eq!(dest.read("lib/lib.py"), "A = 1\n");
    assert!(!contents(&dest.path()).contains(TOKEN) && !dest.log().contains(TOKEN));
    // The password of another user opens nothing.
    let mut dest = Dest::new();
    dest.give("token", TOKEN);
    let failure = dest.checkout(&wanted).await.unwrap_err();
    assert!(
        failure.sentence.ends_with("refused the credentials"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_token_in_the_recorded_address_is_used_and_shows_nowhere() {
    let (private, server) = Private::new().await;
    let dest = Dest::new();
    let mut wanted = wanted(&format!("{}/train.git", server.url), &private.commit);
    wanted.credentials = Some(Credentials {
        username: SecretString::from("git"),
        password: SecretString::from(TOKEN),
    });
    dest.checkout(&wanted).await.unwrap();
    assert!(!contents(&dest.path()).contains(TOKEN) && !dest.log().contains(TOKEN));
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_told_apart() {
    let (private, server) = Private::new().await;
    let wanted = wanted(&format!("{}/train.git", server.url), &private.commit);
    let begun = Instant::now();
    let failure = Dest::new().checkout(&wanted).await.unwrap_err();
    assert!(
        failure
            .sentence
            .ends_with("/train.git wants credentials and none are given"),
        "{failure}"
    );
    let mut dest = Dest::new();
    dest.give("username", "git");
    dest.give("password", "wrong-canary");
    let failure = dest.checkout(&wanted).await.unwrap_err();
    assert!(
        failure
            .sentence
            .ends_with("/train.git refused the credentials"),
        "{failure}"
    );
    assert!(!failure.to_string().contains("wrong-canary") && !dest.log().contains("wrong-canary"));
    assert!(begun.elapsed() < HUNG);
}

#[tokio::test]
async fn a_submodule_elsewhere_does_not_get_the_token() {
    let (private, server) = Private::new().await;
    // The same server under another name stands for a stranger's.
    let stranger = server.url.replace("127.0.0.1", "localhost");
    let commit = private.other(&format!("{stranger}/lib.git"));
    let mut dest = Dest::new();
    dest.give("token", TOKEN);
    let failure = dest
        .checkout(&wanted(&format!("{}/other.git", server.url), &commit))
        .await
        .unwrap_err();
    assert!(failure.sentence.starts_with("a submodule of "), "{failure}");
}

#[tokio::test]
async fn a_missing_commit_over_http_is_the_same_sentence() {
    let (_private, server) = Private::new().await;
    let url = format!("{}/train.git", server.url);
    let missing = "1".repeat(40);
    let mut dest = Dest::new();
    dest.give("token", TOKEN);
    let failure = dest.checkout(&wanted(&url, &missing)).await.unwrap_err();
    assert_eq!(
        failure.sentence,
        format!("commit {missing} is not in {url}")
    );
}

#[tokio::test]
async fn an_unreachable_server_is_told_after_some_tries() {
    let port = free_port("127.0.0.1");
    let url = format!("http://127.0.0.1:{port}/a.git");
    let dest = Dest::new();
    let begun = Instant::now();
    let failure = dest
        .checkout(&wanted(&url, &"1".repeat(40)))
        .await
        .unwrap_err();
    assert_eq!(
        failure.sentence,
        format!("the server of {url} cannot be reached")
    );
    assert!(
        dest.log().contains("trying again (2 of 3)"),
        "{}",
        dest.log()
    );
    assert!(begun.elapsed() < HUNG);
}

#[tokio::test]
async fn gits_own_daemon_serves_a_commit() {
    let origin = Origin::new();
    let commit = origin.commit("train.py", "print(1)\n");
    let daemon = Daemon::start(origin.path().parent().unwrap());
    let name = origin.path().file_name().unwrap().to_str().unwrap();
    let url = format!("{}/{name}/.git", daemon.url);
    let dest = Dest::new();
    assert_eq!(
        dest.checkout(&wanted(&url, &commit)).await.unwrap().commit,
        commit
    );
    let failure = dest
        .checkout(&wanted(&url, &"1".repeat(40)))
        .await
        .unwrap_err();
    assert!(failure.sentence.starts_with("commit 1111"), "{failure}");
}

#[tokio::test]
async fn ssh_gets_the_key_and_the_known_hosts_and_asks_nothing() {
    let origin = Origin::new();
    let commit = origin.commit("train.py", "print(1)\n");
    let mut dest = Dest::new();
    let dir = dest.path().parent().unwrap().to_owned();
    // A program in the place of ssh: it looks at what it is given, then does what the far side would do.
    let tools = dir.join("tools");
    fs::create_dir(&tools).unwrap();
    dest.program(
        "tools/ssh",
        &format!(
            "echo \"$*\" >>{0}/ssh-arguments\nkey=$(echo \"$*\" | sed 's/.*-i \\([^ ]*\\).*/\\1/')\n\
             stat -L -c %a \"$key\" >{0}/ssh-key-mode\ncp \"$key\" {0}/ssh-key\n\
             for last; do :; done\nexec sh -c \"git -c safe.directory='*' ${{last#git-}}\"",
            dir.display()
        ),
    );
    dest.settings.git = dest.program(
        "git",
        &format!("PATH={}:$PATH exec git \"$@\"", tools.display()),
    );
    dest.give(
        "ssh-privatekey",
        "-----BEGIN KEY-----\nabc\n-----END KEY-----",
    );
    let known_hosts = dir.join("known_hosts");
    fs::write(&known_hosts, "git.example ssh-ed25519 AAAA\n").unwrap();
    dest.settings.known_hosts = Some(known_hosts.clone());
    let url = format!("git@git.example:{}", origin.path().display());
    assert_eq!(
        dest.checkout(&wanted(&url, &commit)).await.unwrap().commit,
        commit
    );
    let arguments = fs::read_to_string(dir.join("ssh-arguments")).unwrap();
    for expected in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        known_hosts.to_str().unwrap(),
    ] {
        assert!(arguments.contains(expected), "{arguments}");
    }
    assert_eq!(
        fs::read_to_string(dir.join("ssh-key")).unwrap(),
        "-----BEGIN KEY-----\nabc\n-----END KEY-----\n"
    );
    assert_eq!(
        fs::read_to_string(dir.join("ssh-key-mode")).unwrap().trim(),
        "600"
    );
}

#[tokio::test]
async fn a_password_turns_an_ssh_address_into_https() {
    // Nothing listens there: the address that git fails on is what counts.
    let mut dest = Dest::new();
    dest.give("token", TOKEN);
    let failure = dest
        .checkout(&wanted("git@localhost:a/b.git", &"1".repeat(40)))
        .await
        .unwrap_err();
    assert!(failure.sentence.contains("cannot be reached"), "{failure}");
    assert!(
        dest.log().contains("https://localhost/a/b.git"),
        "{}",
        dest.log()
    );
}
