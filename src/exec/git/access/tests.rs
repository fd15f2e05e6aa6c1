use super::*;

#[test]
fn the_password_is_for_the_host_of_the_repository() {
    assert_eq!(
        over_http("https://git.example/a.git").as_deref(),
        Some("https://git.example")
    );
    assert_eq!(
        over_http("http://git.example:8080/a").as_deref(),
        Some("http://git.example:8080")
    );
    assert_eq!(over_http("ssh://git@git.example/a"), None);
    assert_eq!(over_http("git@git.example:a"), None);
}

#[test]
fn the_host_of_an_ssh_address_is_found() {
    assert_eq!(
        over_ssh("git@git.example:a/b.git").as_deref(),
        Some("git.example")
    );
    assert_eq!(
        over_ssh("ssh://git@git.example:2222/a.git").as_deref(),
        Some("git.example")
    );
    assert_eq!(over_ssh("https://git.example/a"), None);
    assert_eq!(over_ssh("/srv/a"), None);
}

fn access(url: &str, options: Options) -> Access {
    let wanted = Checkout {
        url: url.to_owned(),
        revision: crate::exec::plan::Revision::Default,
        branch: None,
        credentials: None,
    };
    let settings = GitSettings {
        options,
        ..GitSettings::default()
    };
    Access::new(&wanted, &settings).unwrap()
}

fn login(host: Option<&str>, password: &str) -> crate::exec::git::Login {
    crate::exec::git::Login {
        username: SecretString::from("u"),
        password: SecretString::from(password),
        host: host.map(str::to_owned),
    }
}

fn keys(access: &Access) -> Vec<&str> {
    let keys = access.config.iter().skip(fixed(Duration::ZERO).len());
    keys.map(|(key, _)| key.as_str()).collect()
}

#[test]
fn a_login_is_for_its_own_host_or_for_that_of_the_repository() {
    let options = Options {
        logins: vec![
            login(None, "general"),
            login(Some("other.example/team"), "special"),
        ],
        ..Options::default()
    };
    let access = access("https://git.example/a", options);
    let keys = keys(&access);
    assert!(
        keys.contains(&"credential.https://git.example.helper"),
        "{keys:?}"
    );
    assert!(keys.contains(&"credential.https://other.example/team.helper"));
    assert!(keys.contains(&"credential.https://other.example.useHttpPath"));
    assert!(keys.contains(&"url.https://git.example/.insteadOf"));
    assert!(
        !keys.contains(&"credential.http://git.example.helper"),
        "the scheme of the repository is known"
    );
}

#[test]
fn other_credentials_have_another_fingerprint() {
    let of = |password| {
        let options = Options {
            logins: vec![login(None, password)],
            ..Options::default()
        };
        access("https://git.example/a", options)
            .fingerprint()
            .to_owned()
    };
    assert_eq!(of("a"), of("a"));
    assert_ne!(of("a"), of("b"));
}

#[test]
fn https_becomes_ssh_where_that_is_forced() {
    let options = Options {
        force_ssh: true,
        ssh_user: "me".to_owned(),
        ssh_port: Some(2222),
        ..Options::default()
    };
    let access = access("https://git.example/a", options);
    let has = |key: &str, value: &str| {
        access
            .config
            .iter()
            .any(|pair| pair.0 == key && pair.1 == value)
    };
    assert!(has(
        "url.ssh://me@git.example:2222/.insteadOf",
        "https://git.example/"
    ));
    assert!(has("url.ssh://me@.insteadOf", "https://"));
}

#[test]
fn a_token_of_azure_goes_into_a_header_and_into_no_helper() {
    let options = Options {
        logins: vec![login(None, "pat")],
        scheme: Scheme::Azure,
        ..Options::default()
    };
    let access = access("https://dev.azure.example/a", options);
    assert!(access.config.contains(&(
        "http.https://dev.azure.example.extraHeader".to_owned(),
        "Authorization: Basic OnBhdA==".to_owned()
    )));
    assert!(
        !keys(&access)
            .iter()
            .any(|key| key.starts_with("credential.https"))
    );
}

#[test]
fn a_secret_without_a_known_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pass"), "x").unwrap();
    assert!(Mounted::read(Some(folder.path())).is_err());
    std::fs::write(folder.path().join("token"), "x\n").unwrap();
    let mounted = Mounted::read(Some(folder.path())).unwrap();
    let (username, password) = mounted.login.unwrap();
    assert_eq!(
        (username.expose_secret(), password.expose_secret()),
        ("git", "x")
    );
}
