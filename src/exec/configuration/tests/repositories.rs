//! What of the configuration comes to git.

use secrecy::ExposeSecret;

use super::super::git::{Options, Scheme};
use super::*;

/// Whether what came of a text is as expected.
type Holds = fn(&Options) -> bool;

fn options(text: &str) -> Options {
    super::super::git(&configured(text, &[]))
}

/// User, password and host of each login.
fn logins(options: &Options) -> Vec<(&str, &str, Option<&str>)> {
    let logins = options.logins.iter().map(|login| {
        let secrets = (
            login.username.expose_secret(),
            login.password.expose_secret(),
        );
        (secrets.0, secrets.1, login.host.as_deref())
    });
    logins.collect()
}

#[test]
fn each_key_of_git_reaches_its_option() {
    let cases: [(&str, Holds); 19] = [
        ("", |options| options.logins.is_empty()),
        ("", |options| options.scheme == Scheme::Asked),
        ("", |options| {
            !options.force_ssh && options.ssh_user == "git" && options.ssh_port.is_none()
        }),
        ("", |options| {
            options.translate_ssh.as_deref() == Some("https")
        }),
        ("", |options| options.fetch_args.is_empty() && options.cache),
        ("git_use_ms_entra_token: true", |options| {
            options.scheme == Scheme::Bearer
        }),
        ("git_use_azure_pat: true", |options| {
            options.scheme == Scheme::Azure
        }),
        (
            "git_use_azure_pat: true, git_use_ms_entra_token: true",
            |options| options.scheme == Scheme::Bearer,
        ),
        ("force_git_ssh_protocol: true", |options| options.force_ssh),
        ("force_git_ssh_user: me", |options| options.ssh_user == "me"),
        ("force_git_ssh_port: 2222", |options| {
            options.ssh_port == Some(2222)
        }),
        ("force_git_ssh_port: \"2222\"", |options| {
            options.ssh_port == Some(2222)
        }),
        ("translate_ssh: false", |options| {
            options.translate_ssh.is_none()
        }),
        ("translate_ssl_replacement_scheme: http", |options| {
            options.translate_ssh.as_deref() == Some("http")
        }),
        (
            "translate_ssh: false, translate_ssl_replacement_scheme: http",
            |options| options.translate_ssh.is_none(),
        ),
        ("vcs_cache.enabled: false", |options| !options.cache),
        ("git_fetch_args: [\"--no-auto-gc\"]", |options| {
            options.fetch_args == ["--no-auto-gc"]
        }),
        // As every generated file has it.
        (
            "git_fetch_args: [\"--all\", \"--tags\", \"--recurse-submodules\"]",
            |options| options.fetch_args.is_empty(),
        ),
        (
            "git_fetch_args: [\"--all\", \"--tags\", \"--jobs\", \"4\", \"--depth=1\", \"main\", \"--filter=tree:0\"]",
            |options| options.fetch_args == ["--tags", "--jobs", "4", "--filter=tree:0"],
        ),
    ];
    for (text, holds) in cases {
        let found = options(&format!("agent {{ {text} }}"));
        assert!(holds(&found), "{text}: {found:?}");
    }
}

#[test]
fn who_logs_in_where_is_read_in_its_order() {
    let extra = "git.extra_credentials: [{user: a, pass: b, host: one.example}, {user: c, pass: d}, {user: e}]";
    let prefixed =
        "git.extra_credentials: [{user: a, pass: b, host: \"https://one.example/team/\"}]";
    for (text, expected) in [
        ("git_user: u, git_pass: p", vec![("u", "p", None)]),
        // Servers that look at the token alone.
        ("git_pass: p", vec![("git", "p", None)]),
        ("git_user: u", vec![]),
        (
            "git_user: u, git_pass: p, git_host: git.example",
            vec![("u", "p", Some("git.example"))],
        ),
        (
            extra,
            vec![("a", "b", Some("one.example")), ("c", "d", None)],
        ),
        (prefixed, vec![("a", "b", Some("one.example"))]),
    ] {
        let text = format!("agent {{ {text} }}");
        assert_eq!(logins(&options(&text)), expected, "{text}");
    }
    let text = format!("agent {{ git_user: u, git_pass: p, {extra} }}");
    assert_eq!(
        logins(&options(&text))[0],
        ("u", "p", None),
        "before the others"
    );
    let text = format!("agent {{ git_host_match_prefix: true, {prefixed} }}");
    let expected = [("a", "b", Some("https://one.example/team"))];
    assert_eq!(logins(&options(&text)), expected);
}

#[test]
fn a_host_that_cannot_be_read_opens_no_other() {
    // Else a task that names a repository of its own would be sent the password.
    let text = "agent { git_user: u, git_pass: canary, git_host: [git.example] }";
    assert!(options(text).logins.is_empty());
    let expected =
        "agent.git_pass has no effect: agent.git_host (/clearml.conf, line 1) is not a text";
    assert_eq!(of_git::set_aside(&configured(text, &[])), [expected]);
    for host in ["[git.example]", "{name: git.example}", "5"] {
        let text = format!("agent.git.extra_credentials: [{{user: u, pass: p, host: {host}}}]");
        assert!(options(&text).logins.is_empty(), "{host}");
    }
    for host in ["null", "\"\""] {
        let text = format!("agent.git.extra_credentials: [{{user: u, pass: p, host: {host}}}]");
        assert_eq!(logins(&options(&text)), [("u", "p", None)], "{host}");
    }
}

#[test]
fn variables_log_in_too() {
    let set = [
        ("CLEARML_AGENT_GIT_USER", "u"),
        ("TRAINS_AGENT_GIT_PASS", "p"),
        ("CLEARML_AGENT_GIT_HOST", "git.example"),
        ("CLEARML_AGENT_GIT_USE_AZURE_PAT", "1"),
    ];
    let found = super::super::git(&configured("agent.git_pass: other", &set));
    assert_eq!(logins(&found), [("u", "p", Some("git.example"))]);
    assert_eq!(found.scheme, Scheme::Azure);
}

#[test]
fn what_of_the_fetching_has_no_effect_is_told() {
    let told = |text: &str| of_git::set_aside(&configured(text, &[]));
    let expected = "--all --depth=1 of agent.git_fetch_args (/clearml.conf, line 1) has no effect: \
                    the wanted commit alone is fetched";
    let text = "agent.git_fetch_args: [\"--all\", \"--no-auto-gc\", \"--depth=1\"]";
    assert_eq!(told(text), [expected]);
    let text = "agent.git_fetch_args: [\"https://u:canary@git.example/x\"]";
    assert!(told(text)[0].starts_with("https://***@git.example/x of "));
    for text in [
        "",
        "agent.git_fetch_args: [\"--no-auto-gc\"]",
        "agent.git_fetch_args: [\"--all\", \"--tags\", \"--recurse-submodules\"]",
    ] {
        assert_eq!(told(text), [""; 0], "{text}");
    }
}

#[test]
fn a_port_that_is_no_number_is_told() {
    let told = |port: &str| {
        let text = format!("agent.force_git_ssh_port: {port}");
        of_git::set_aside(&configured(&text, &[]))
    };
    for (port, shown) in [
        ("ssh", "\"ssh\""),
        ("70000", "70000"),
        ("true", "true"),
        ("[2222]", "[2222]"),
    ] {
        let expected = format!(
            "agent.force_git_ssh_port (/clearml.conf, line 1) has no effect: {shown} is not the number of a port"
        );
        assert_eq!(told(port), [expected]);
    }
    for port in ["2222", "\"2222\"", "null", "\"\""] {
        assert_eq!(told(port), [""; 0], "{port}");
    }
}

#[test]
fn a_login_without_user_or_password_is_told_and_its_values_are_not() {
    let told = |logins: &str| {
        let text = format!("agent.git.extra_credentials: {logins}");
        of_git::set_aside(&configured(&text, &[]))
    };
    let key = "agent.git.extra_credentials (/clearml.conf, line 1) has no effect";
    let logins = "[{user: a, pass: b}, {user: canary}, {host: x, token: canary}, {user: c, pass: 271828}, canary, \
                  {user: a, pass: b, host: [x]}]";
    assert_eq!(
        told(logins),
        [
            format!("entry 2 of {key}: it has no pass"),
            format!("entry 3 of {key}: it has no user"),
            format!("entry 4 of {key}: its pass is not a text: put it in quotes"),
            format!("entry 5 of {key}: it has no user"),
            format!("entry 6 of {key}: its host is not a text: put it in quotes"),
        ]
    );
    let expected = format!("{key}: it is not a list");
    assert_eq!(told("{user: a, pass: canary}"), [expected]);
    for logins in ["[]", "null", "[{user: a, pass: b, host: git.example}]"] {
        assert_eq!(told(logins), [""; 0], "{logins}");
    }
}
