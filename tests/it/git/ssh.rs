//! Private repositories over ssh: the real client, the real server, keys and hosts as a binding names them.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use trainyard::exec::git::Options;

use super::fixture::{Dest, HUNG, git, wanted};
use super::served::{Private, contents};
use super::sshd::{Keys, Sshd, USUAL};

/// With it the server speaks the version of git's protocol that hands out any commit, as the large ones do.
const NEW_PROTOCOL: &str = "AcceptEnv GIT_PROTOCOL";

/// A private repository with a submodule, and the server that gives it to who has the key.
struct Served {
    private: Private,
    sshd: Sshd,
    keys: Keys,
}

impl Served {
    fn new(configuration: &str) -> Self {
        let (sshd, keys) = (Sshd::start(configuration), Keys::new(&USUAL));
        sshd.let_in(&keys);
        Self {
            private: Private::bare(),
            sshd,
            keys,
        }
    }

    fn path(&self) -> PathBuf {
        self.private.path().join("train.git")
    }

    fn url(&self) -> String {
        self.sshd.url(&self.path())
    }

    /// A pod whose binding names the key and the host.
    fn pod(&self) -> Dest {
        pod_with(Some(&self.keys.private), Some(&self.sshd.known_as_it_is()))
    }

    /// Checks the commit out from this address, submodule and all.
    async fn bring(&self, pod: &Dest, url: &str) {
        let wanted = wanted(url, &self.private.commit);
        let checked = pod.checkout(&wanted).await.unwrap_or_else(|failure| {
            panic!("{failure}\n{}\nthe server:\n{}", pod.log(), self.sshd.log())
        });
        assert_eq!(checked.commit, self.private.commit);
        assert_eq!(
            (
                pod.read("train.py").as_str(),
                pod.read("lib/lib.py").as_str()
            ),
            ("print(1)\n", "A = 1\n")
        );
    }

    /// The sentence and its hint, after the same twice; nothing has come.
    async fn refuse(&self, pod: &Dest) -> (String, String) {
        let begun = Instant::now();
        let wanted = wanted(&self.url(), &self.private.commit);
        let first = pod.checkout(&wanted).await.unwrap_err();
        // What was learnt from the first try would open the door to the second.
        let second = pod.checkout(&wanted).await.unwrap_err();
        assert_eq!(first, second);
        assert!(begun.elapsed() < HUNG, "{first}");
        assert!(!pod.path().join("train.py").exists());
        assert!(!self.sshd.has_let_in(), "{}", self.sshd.log());
        (first.sentence, first.hint.unwrap_or_default())
    }
}

/// A pod whose binding names these.
fn pod_with(key: Option<&str>, known_hosts: Option<&str>) -> Dest {
    let mut pod = Dest::new();
    if let Some(key) = key {
        pod.give("ssh-privatekey", key);
    }
    if let Some(known_hosts) = known_hosts {
        let file = pod.path().with_file_name("known_hosts");
        fs::write(&file, known_hosts).expect("a file is written");
        pod.settings.known_hosts = Some(file);
    }
    pod
}

#[tokio::test]
async fn s3_a_key_and_known_hosts_open_a_private_repository_with_its_submodule() {
    let served = Served::new(NEW_PROTOCOL);
    let cache = tempfile::tempdir().unwrap();
    let secret = served.keys.private.lines().nth(1).unwrap();
    for mirrors in [None, Some(cache.path().to_owned())] {
        let mut pod = served.pod();
        pod.settings.mirrors = mirrors;
        served.bring(&pod, &served.url()).await;
        assert!(!pod.log().contains("cannot be used"), "{}", pod.log());
        assert!(!contents(&pod.path()).contains(secret) && !pod.log().contains(secret));
    }
    assert!(!contents(cache.path()).contains(secret));
}

#[tokio::test]
async fn s3_a_key_of_each_kind_opens_the_door() {
    let served = Served::new(NEW_PROTOCOL);
    let kinds: [&[&str]; 5] = [
        &["-t", "ecdsa"],
        &["-t", "ecdsa", "-m", "PEM"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        &["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
    ];
    for kind in kinds {
        let keys = Keys::new(kind);
        served.sshd.let_in(&keys);
        let known_hosts = served.sshd.known_as_it_is();
        // Without its last end of line, as a Secret easily has it.
        let pod = pod_with(Some(keys.private.trim()), Some(&known_hosts));
        served.bring(&pod, &served.url()).await;
    }
}

#[tokio::test]
async fn s3_https_and_short_addresses_reach_the_ssh_server() {
    let served = Served::new(NEW_PROTOCOL);
    let (user, port, path) = (&served.sshd.user, served.sshd.port, served.path());
    let mut pod = served.pod();
    pod.settings.options = Options {
        force_ssh: true,
        ssh_user: user.clone(),
        ssh_port: Some(port),
        ..Options::default()
    };
    let https = format!("https://127.0.0.1{}", path.display());
    served.bring(&pod, &https).await;

    // A short address has no place for a port.
    let mut pod = served.pod();
    let tools = pod.path().with_file_name("tools");
    fs::create_dir(&tools).unwrap();
    pod.program("tools/ssh", &format!("exec /usr/bin/ssh -p {port} \"$@\""));
    pod.settings.git = pod.program(
        "git",
        &format!("PATH={}:$PATH exec git \"$@\"", tools.display()),
    );
    let short = format!("{user}@127.0.0.1:{}", path.display());
    served.bring(&pod, &short).await;
}

#[tokio::test]
async fn s3_an_unknown_or_changed_host_key_is_refused_in_one_sentence_and_not_learnt() {
    let served = Served::new(NEW_PROTOCOL);
    let other = Keys::new(&USUAL);
    let expected = format!(
        "the ssh host key of {} is not known or has changed",
        served.url()
    );
    for known_hosts in [
        format!("git.example {}", other.public),
        served.sshd.known_as(&other),
    ] {
        let pod = pod_with(Some(&served.keys.private), Some(&known_hosts));
        let (sentence, hint) = served.refuse(&pod).await;
        assert_eq!(sentence, expected);
        assert!(hint.contains("environment.git.knownHostsRef"), "{hint}");
        let file = pod.settings.known_hosts.as_ref().unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), known_hosts);
    }
}

#[tokio::test]
async fn s3_without_known_hosts_no_host_is_trusted() {
    let served = Served::new(NEW_PROTOCOL);
    let pod = pod_with(Some(&served.keys.private), None);
    let (sentence, hint) = served.refuse(&pod).await;
    assert!(
        sentence.ends_with("is not known or has changed"),
        "{sentence}"
    );
    assert!(hint.contains("environment.git.knownHostsRef"), "{hint}");
}

#[tokio::test]
async fn s3_a_wrong_and_a_missing_ssh_key_are_told_apart() {
    let other = Keys::new(&USUAL).private;
    let no_key = "-----BEGIN OPENSSH PRIVATE KEY-----\nYWJj\n-----END OPENSSH PRIVATE KEY-----\n";
    for (key, expected, advice) in [
        (
            Some(other.as_str()),
            "refused the ssh key",
            "check the Secret",
        ),
        (Some(no_key), "refused the ssh key", "check the Secret"),
        (
            None,
            "wants an ssh key and none is given",
            "name a Secret in",
        ),
    ] {
        // Each has a server of its own: newer ones turn away who has often been refused.
        let served = Served::new(NEW_PROTOCOL);
        let pod = pod_with(key, Some(&served.sshd.known_as_it_is()));
        let (sentence, hint) = served.refuse(&pod).await;
        assert_eq!(
            sentence,
            format!("the server of {} {expected}", served.url())
        );
        assert!(hint.starts_with(advice), "{hint}");
    }
}

#[tokio::test]
async fn s3_a_missing_commit_over_ssh_is_the_same_sentence() {
    let missing = "1".repeat(40);
    // A server of the old protocol hands out heads alone: what else there is has to be searched.
    for (configuration, is_searched) in [(NEW_PROTOCOL, false), ("", true)] {
        let served = Served::new(configuration);
        let pod = served.pod();
        let failure = pod
            .checkout(&wanted(&served.url(), &missing))
            .await
            .unwrap_err();
        assert_eq!(
            failure.sentence,
            format!("commit {missing} is not in {}", served.url())
        );

        let parent = format!("{}^", served.private.commit);
        let parent = git(&served.path(), &["rev-parse", &parent]);
        let pod = served.pod();
        pod.checkout(&wanted(&served.url(), &parent)).await.unwrap();
        assert_eq!(pod.git(&["rev-parse", "HEAD"]), parent);
        let searched = pod.log().contains("fetching its branches");
        assert_eq!(searched, is_searched, "{}", pod.log());
    }
}

#[tokio::test]
async fn s3_a_repository_that_is_not_there_over_ssh_is_named() {
    let served = Served::new(NEW_PROTOCOL);
    let url = served.sshd.url(&served.private.path().join("gone.git"));
    let pod = served.pod();
    let failure = pod
        .checkout(&wanted(&url, &served.private.commit))
        .await
        .unwrap_err();
    assert_eq!(
        failure.sentence,
        format!("there is no repository at {url}, or it may not be read")
    );
    assert!(served.sshd.has_let_in(), "{}", served.sshd.log());
}
