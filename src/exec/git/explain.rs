//! PURE: what git printed -> one sentence, and whether another try may help.

use crate::exec::failure::{Failure, masked, one_line};
use crate::exec::plan::{Checkout, Revision};

/// A call of git that failed.
#[derive(Debug)]
pub(super) struct Explained {
    pub failure: Failure,
    pub course: Course,
    /// The server or the network is to blame: no copy of ours can be.
    pub elsewhere: bool,
}

impl Explained {
    /// What the server has said for certain.
    pub(super) fn by_the_server(failure: Failure) -> Self {
        Self {
            failure,
            course: Course::GiveUp,
            elsewhere: true,
        }
    }

    /// What failed on this machine.
    pub(super) fn here(failure: Failure) -> Self {
        Self {
            failure,
            course: Course::GiveUp,
            elsewhere: false,
        }
    }
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// The network or the server failed: the same call may succeed.
    TryAgain,
    /// It may be found elsewhere in the same repository.
    SearchOn,
    /// Nothing else helps.
    GiveUp,
}

impl From<Explained> for Failure {
    fn from(explained: Explained) -> Self {
        explained.failure
    }
}

/// One cause: what git prints, and what it means. `{url}` stands for the repository.
struct Cause {
    prints: &'static [&'static str],
    course: Course,
    sentence: &'static str,
    hint: &'static str,
}

const KNOWN_HOSTS: &str =
    "put the host's key into what environment.git.knownHostsRef of the binding names";
const SECRET: &str =
    "check the Secret that environment.git.credentialsSecretRef of the binding names";
const NO_SECRET: &str = "name a Secret in environment.git.credentialsSecretRef of the binding";
const NETWORK: &str = "check the address, the cluster's DNS and its network policies";

/// First match wins: the server's own words stand before the words that git adds to any failure.
const CAUSES: [Cause; 10] = [
    Cause {
        prints: &["Host key verification failed"],
        course: Course::GiveUp,
        sentence: "the ssh host key of {url} is not known or has changed",
        hint: KNOWN_HOSTS,
    },
    Cause {
        prints: &["No user exists for uid"],
        course: Course::GiveUp,
        sentence: "ssh cannot run for {url}: the pod's user has no name in the image",
        hint: "run the pod as the image's own user, or use an https address",
    },
    Cause {
        prints: &[
            "SSL certificate problem",
            "server certificate verification failed",
            "certificate verify failed",
        ],
        course: Course::GiveUp,
        sentence: "the certificate of {url} is not trusted",
        hint: "add its CA to the image's certificates",
    },
    Cause {
        prints: &["transport '"],
        course: Course::GiveUp,
        sentence: "a submodule of {url} has a kind of address that is not allowed",
        hint: "use https or ssh in .gitmodules",
    },
    Cause {
        prints: &["No space left on device", "Disk quota exceeded"],
        course: Course::GiveUp,
        sentence: "no space is left to check out {url}",
        hint: "raise the size of the pod's volume",
    },
    Cause {
        prints: &[
            "Could not resolve host",
            "Name or service not known",
            "Temporary failure in name resolution",
        ],
        course: Course::TryAgain,
        sentence: "the host of {url} cannot be resolved",
        hint: NETWORK,
    },
    Cause {
        prints: &["Operation too slow"],
        course: Course::TryAgain,
        sentence: "the transfer from {url} stands still",
        hint: "try again later; ask the administrator of the git server and of the proxies on the way to it",
    },
    Cause {
        prints: &[
            "Failed to connect",
            "Couldn't connect",
            "Connection refused",
            " timed out",
            "Connection reset",
            "unable to connect",
            "No route to host",
            "Network is unreachable",
        ],
        course: Course::TryAgain,
        sentence: "the server of {url} cannot be reached",
        hint: NETWORK,
    },
    Cause {
        prints: &[
            "returned error: 5",
            "returned error: 429",
            "RPC failed",
            "early EOF",
            "Connection closed by",
        ],
        course: Course::TryAgain,
        sentence: "the server of {url} broke the transfer off",
        hint: "try again later; ask the administrator of the git server",
    },
    Cause {
        prints: &[
            "not found",
            "does not exist",
            "does not appear to be a git repository",
            "not a git repository",
        ],
        course: Course::GiveUp,
        sentence: "there is no repository at {url}, or it may not be read",
        hint: "check the address; a private repository needs credentials",
    },
];

/// Words by which a server refuses access.
const REFUSALS: [&str; 7] = [
    "could not read Username",
    "could not read Password",
    "Authentication failed",
    "returned error: 401",
    "returned error: 403",
    "Access denied",
    "terminal prompts disabled",
];
/// The same by ssh.
const KEY_REFUSALS: [&str; 5] = [
    "Permission denied (",
    "Too many authentication failures",
    "Load key ",
    "invalid format",
    "error in libcrypto",
];

/// What git adds when another program reaches the server for it; the cause stands before.
const ADDED: &str = "fatal: Could not read from remote repository";

/// The sentence for a commit that is not there.
pub(super) fn missing_commit(commit: &str, url: &str) -> Failure {
    Failure::new(format!("commit {commit} is not in {url}"))
        .hint("push the commit, then enqueue the task again")
}

/// Explains what git wrote when it failed on `wanted`; `given` says whether it had credentials.
pub(super) fn explain(output: &str, wanted: &Checkout, given: bool) -> Explained {
    let url = &wanted.url;
    let has = |texts: &[&str]| texts.iter().any(|text| output.contains(text));
    let give_up = Explained::by_the_server;
    if let Revision::Commit(commit) = &wanted.revision
        && has(&["not our ref"])
    {
        return give_up(missing_commit(commit, url));
    }
    if has(&["couldn't find remote ref"]) {
        return Explained {
            failure: missing_name(wanted),
            course: Course::SearchOn,
            elsewhere: true,
        };
    }
    if has(&KEY_REFUSALS) {
        let what = if given {
            "refused the ssh key"
        } else {
            "wants an ssh key and none is given"
        };
        let hint = if given { SECRET } else { NO_SECRET };
        return give_up(Failure::new(format!("the server of {url} {what}")).hint(hint));
    }
    if has(&REFUSALS) {
        let what = if given {
            "refused the credentials"
        } else {
            "wants credentials"
        };
        let rest = if given { "" } else { " and none are given" };
        let hint = if given { SECRET } else { NO_SECRET };
        return give_up(Failure::new(format!("the server of {url} {what}{rest}")).hint(hint));
    }
    match CAUSES.iter().find(|cause| has(cause.prints)) {
        Some(Cause {
            sentence,
            hint,
            course,
            ..
        }) => Explained {
            failure: Failure::new(sentence.replace("{url}", url)).hint(*hint),
            course: *course,
            elsewhere: *course == Course::TryAgain || *hint == KNOWN_HOSTS,
        },
        None => Explained {
            failure: Failure::new(format!("git could not read {url}: {}", last_words(output))),
            course: Course::SearchOn,
            elsewhere: has(&[ADDED]),
        },
    }
}

fn missing_name(wanted: &Checkout) -> Failure {
    let what = match &wanted.revision {
        Revision::Tag(tag) => format!("tag {tag}"),
        Revision::Branch(branch) => format!("branch {branch}"),
        Revision::Any(name) => format!("branch or tag {name}"),
        Revision::Commit(_) | Revision::Default => "such branch".to_owned(),
    };
    Failure::new(format!("there is no {what} in {}", wanted.url))
        .hint("push it, or name another one in the task")
}

/// The last error line, else the last line; of what was said before git added that it could not read.
fn last_words(output: &str) -> String {
    let told = output
        .split(ADDED)
        .next()
        .filter(|told| !told.trim().is_empty())
        .unwrap_or(output);
    let last = |fits: &dyn Fn(&str) -> bool| told.lines().rev().find(|line| fits(line.trim()));
    let line = last(&|line| line.starts_with("fatal:"))
        .or_else(|| last(&|line| line.starts_with("error:")))
        .or_else(|| last(&|line| !line.is_empty()));
    masked(&one_line(line.unwrap_or("no reason given")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(revision: Revision) -> Checkout {
        Checkout {
            url: "https://git.example/a".into(),
            revision,
            branch: None,
            credentials: None,
        }
    }

    #[test]
    fn each_cause_has_its_sentence() {
        let url = "https://git.example/a";
        for (output, given, expected) in [
            (
                "fatal: remote error: upload-pack: not our ref abc",
                true,
                format!("commit abc is not in {url}"),
            ),
            (
                "fatal: couldn't find remote ref refs/heads/x",
                true,
                format!("there is no such branch in {url}"),
            ),
            (
                "fatal: could not read Username for 'x': terminal prompts disabled",
                false,
                format!("the server of {url} wants credentials and none are given"),
            ),
            (
                "remote: not found\nfatal: Authentication failed for 'x'",
                true,
                format!("the server of {url} refused the credentials"),
            ),
            (
                "Host key verification failed.\nfatal: Could not read from remote repository.",
                true,
                format!("the ssh host key of {url} is not known or has changed"),
            ),
            (
                "git@git.example: Permission denied (publickey).",
                true,
                format!("the server of {url} refused the ssh key"),
            ),
            (
                "fatal: repository 'https://git.example/a/' not found",
                true,
                format!("there is no repository at {url}, or it may not be read"),
            ),
            (
                "fatal: unable to access 'x': Could not resolve host: git.example",
                true,
                format!("the host of {url} cannot be resolved"),
            ),
            (
                "error: RPC failed; curl 28 Operation too slow. Less than 1000 bytes/sec transferred the last 30 seconds\n\
                 fatal: early EOF",
                true,
                format!("the transfer from {url} stands still"),
            ),
            (
                "fatal: strange",
                true,
                format!("git could not read {url}: fatal: strange"),
            ),
        ] {
            let explained = explain(output, &wanted(Revision::Commit("abc".into())), given);
            assert_eq!(explained.failure.sentence, expected, "{output}");
        }
    }

    /// In its words and with its ends of lines, before what git adds.
    #[test]
    fn what_openssh_says_is_understood() {
        let url = "https://git.example/a";
        let host_key = format!("the ssh host key of {url} is not known or has changed");
        let refused = format!("the server of {url} refused the ssh key");
        let broken = format!("the server of {url} broke the transfer off");
        let unreachable = format!("the server of {url} cannot be reached");
        for (said, expected) in [
            (
                "No ED25519 host key is known for [h]:2222 and you have requested strict checking.\r\n\
                 Host key verification failed.",
                &host_key,
            ),
            (
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n\
                 Host key for h has changed and you have requested strict checking.\r\n\
                 Host key verification failed.",
                &host_key,
            ),
            ("git@h: Permission denied (publickey).", &refused),
            (
                "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\r\n\
                 Disconnected from 10.0.0.1 port 22",
                &refused,
            ),
            (
                "kex_exchange_identification: Connection closed by remote host\r\n\
                 Connection closed by 10.0.0.1 port 22",
                &broken,
            ),
            ("Connection to 10.0.0.1 port 22 timed out", &unreachable),
            (
                "ssh: connect to host h port 22: Network is unreachable",
                &unreachable,
            ),
            (
                "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. Their offer: ssh-dss",
                &format!(
                    "git could not read {url}: Unable to negotiate with 10.0.0.1 port 22: no matching host key type \
                     found. Their offer: ssh-dss"
                ),
            ),
        ] {
            let output = format!(
                "{said}\r\n{ADDED}.\n\nPlease make sure you have the correct access rights\n\
                 and the repository exists.\n"
            );
            let explained = explain(&output, &wanted(Revision::Default), true);
            assert_eq!(&explained.failure.sentence, expected, "{output}");
            assert!(explained.elsewhere, "no copy of ours is to blame: {output}");
        }
    }

    #[test]
    fn only_the_network_is_tried_again() {
        let course = |output| explain(output, &wanted(Revision::Default), true).course;
        let unreachable = "fatal: unable to access 'x': Failed to connect to h port 443";
        assert_eq!(course(unreachable), Course::TryAgain);
        assert_eq!(course("error: RPC failed; HTTP 502"), Course::TryAgain);
        assert_eq!(
            course("fatal: Authentication failed for 'x'"),
            Course::GiveUp
        );
    }

    #[test]
    fn a_refused_single_commit_lets_the_search_go_on() {
        let wanted = wanted(Revision::Commit("abc".into()));
        let refused = "fatal: Server does not allow request for unadvertised object abc";
        assert_eq!(explain(refused, &wanted, true).course, Course::SearchOn);
        let missing = "fatal: remote error: upload-pack: not our ref abc";
        assert_eq!(explain(missing, &wanted, true).course, Course::GiveUp);
    }
}
