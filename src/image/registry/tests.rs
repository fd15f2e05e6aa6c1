use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wiremock::matchers::{basic_auth, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

const MANIFEST: &str = MANIFESTS[0];
const INDEX: &str = INDEXES[0];

async fn registry() -> MockServer {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    MockServer::start().await
}

fn image(server: &MockServer) -> Reference {
    Reference::parse(&format!("{}/team/x:1", server.address())).unwrap()
}

fn client() -> Registry {
    Registry::new(None, Vec::new()).unwrap()
}

fn keys(server: &MockServer, auth: &str) -> Keyring {
    let mut ring = Keyring::default();
    let host = server.address().to_string();
    let config = json!({ "auths": { host: { "auth": STANDARD.encode(auth) } } });
    ring.add_config(config.to_string().as_bytes());
    ring
}

fn amd64() -> Vec<Platform> {
    vec![Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
    }]
}

async fn answers(server: &MockServer, verb: &str, at: &str, answer: ResponseTemplate) {
    Mock::given(method(verb))
        .and(path(at))
        .respond_with(answer)
        .mount(server)
        .await;
}

fn document(kind: &str, body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body.to_string(), kind)
}

#[tokio::test]
async fn without_platforms_a_head_is_enough() {
    let server = registry().await;
    answers(
        &server,
        "HEAD",
        "/v2/team/x/manifests/1",
        ResponseTemplate::new(200),
    )
    .await;
    let finding = client()
        .look(&image(&server), &Keyring::default(), None)
        .await;
    assert_eq!(finding, Finding::There(()));
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_missing_is_refused_by_name() {
    let server = registry().await;
    let finding = client()
        .look(&image(&server), &Keyring::default(), None)
        .await;
    let Finding::Refused(why) = finding else {
        panic!("{finding:?}")
    };
    assert_eq!(
        why,
        format!(
            "image {}/team/x:1 does not exist in its registry",
            server.address()
        )
    );
}

#[tokio::test]
async fn an_index_without_the_nodes_platform_is_refused() {
    let server = registry().await;
    let of =
        |architecture: &str| json!({ "platform": { "os": "linux", "architecture": architecture } });
    let body = json!({ "manifests": [of("arm64"), { "platform": { "os": "unknown", "architecture": "unknown" } }] });
    for verb in ["HEAD", "GET"] {
        answers(
            &server,
            verb,
            "/v2/team/x/manifests/1",
            document(INDEX, &body),
        )
        .await;
    }
    let finding = client()
        .look(&image(&server), &Keyring::default(), Some(&amd64()))
        .await;
    let Finding::Refused(why) = finding else {
        panic!("{finding:?}")
    };
    assert!(
        why.ends_with("is for linux/arm64, and the nodes of this cluster are linux/amd64"),
        "{why}"
    );
    let both = [
        amd64(),
        vec![Platform {
            os: "linux".into(),
            architecture: "arm64".into(),
        }],
    ]
    .concat();
    assert_eq!(
        client()
            .look(&image(&server), &Keyring::default(), Some(&both))
            .await,
        Finding::There(())
    );
}

#[tokio::test]
async fn what_a_registry_calls_platforms_is_told_in_few_words() {
    let of =
        |architecture: &str| json!({ "platform": { "os": "linux", "architecture": architecture } });
    let long = [of(&"x".repeat(10_000)), of("a\nb"), of("arm64")];
    let many: Vec<Value> = (0..500).map(|number| of(&format!("a{number}"))).collect();
    for (manifests, told) in [
        (json!(long), "is for linux/arm64, and the nodes"),
        (json!(many), " and 492 more, and the nodes"),
    ] {
        let server = registry().await;
        let body = json!({ "manifests": manifests });
        for verb in ["HEAD", "GET"] {
            let answer = document(INDEX, &body);
            answers(&server, verb, "/v2/team/x/manifests/1", answer).await;
        }
        let finding = client()
            .look(&image(&server), &Keyring::default(), Some(&amd64()))
            .await;
        let Finding::Refused(why) = finding else {
            panic!("{finding:?}")
        };
        assert!(why.contains(told) && why.len() < 400, "{why}");
    }
}

#[tokio::test]
async fn an_answer_with_too_many_values_is_not_taken_apart() {
    let server = registry().await;
    serves(&server, MANIFEST, &json!({ "x": vec![0; 20_000] }), &[]).await;
    let found = command_of(&server, None).await;
    assert!(
        matches!(&found, Finding::Unknown(why) if why.contains("is too large")),
        "{found:?}"
    );
    // What stands in a text is none, as in a label that holds JSON itself.
    let server = registry().await;
    let label = r#"{"a":[1,2]},\"#.repeat(10_000);
    let manifest = json!({ "config": { "digest": "sha256:abc" } });
    let config = json!({ "config": { "Cmd": ["run"], "Labels": { "x": label } } });
    let others = [("blobs/sha256:abc", config)];
    serves(&server, MANIFEST, &manifest, &others).await;
    assert_eq!(
        command_of(&server, None).await,
        Finding::There(command(&[], &["run"]))
    );
}

#[tokio::test]
async fn a_single_manifest_says_its_platform_in_its_configuration() {
    let server = registry().await;
    let body = json!({ "config": { "digest": "sha256:abc" } });
    for verb in ["HEAD", "GET"] {
        answers(
            &server,
            verb,
            "/v2/team/x/manifests/1",
            document(MANIFEST, &body),
        )
        .await;
    }
    let config = json!({ "os": "linux", "architecture": "arm64" });
    answers(
        &server,
        "GET",
        "/v2/team/x/blobs/sha256:abc",
        document("application/json", &config),
    )
    .await;
    let finding = client()
        .look(&image(&server), &Keyring::default(), Some(&amd64()))
        .await;
    assert!(matches!(finding, Finding::Refused(why) if why.contains("is for linux/arm64")));
}

#[tokio::test]
async fn a_token_is_fetched_with_the_keys_and_shown_to_the_registry() {
    let server = registry().await;
    Mock::given(method("HEAD"))
        .and(header("authorization", "Bearer good"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"r\",scope=\"repository:team/x:pull\"",
        server.uri()
    );
    Mock::given(method("HEAD"))
        .respond_with(ResponseTemplate::new(401).insert_header("www-authenticate", challenge))
        .with_priority(9)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/token"))
        .and(basic_auth("user", "canary"))
        .and(query_param("service", "r"))
        .and(query_param("scope", "repository:team/x:pull"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "token": "good" })))
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/token"))
        .respond_with(ResponseTemplate::new(401))
        .with_priority(9)
        .mount(&server)
        .await;
    let found = client()
        .look(&image(&server), &keys(&server, "user:canary"), None)
        .await;
    assert_eq!(found, Finding::There(()));
    let Finding::Refused(why) = client()
        .look(&image(&server), &keys(&server, "user:wrong"), None)
        .await
    else {
        panic!("wrong keys are refused")
    };
    assert!(
        why.contains("refuses image") && !why.contains("wrong"),
        "{why}"
    );
    let Finding::Refused(why) = client()
        .look(&image(&server), &Keyring::default(), None)
        .await
    else {
        panic!("no keys are refused")
    };
    assert!(why.contains("no pull secret of the pod has any"), "{why}");
}

#[tokio::test]
async fn a_registry_that_limits_fails_or_babbles_says_nothing_about_the_image() {
    for (status, wanted) in [(429, "limits requests"), (500, "500"), (302, "302")] {
        let server = registry().await;
        answers(
            &server,
            "HEAD",
            "/v2/team/x/manifests/1",
            ResponseTemplate::new(status),
        )
        .await;
        let finding = client()
            .look(&image(&server), &Keyring::default(), None)
            .await;
        assert!(
            matches!(&finding, Finding::Unknown(why) if why.contains(wanted)),
            "{finding:?}"
        );
    }
    let server = registry().await;
    for verb in ["HEAD", "GET"] {
        answers(
            &server,
            verb,
            "/v2/team/x/manifests/1",
            ResponseTemplate::new(200).set_body_string("<html>"),
        )
        .await;
    }
    let finding = client()
        .look(&image(&server), &Keyring::default(), Some(&amd64()))
        .await;
    assert!(
        matches!(&finding, Finding::Unknown(why) if why.contains("no JSON")),
        "{finding:?}"
    );
    let nobody = Reference::parse("127.0.0.1:1/team/x:1").unwrap();
    let finding = client().look(&nobody, &Keyring::default(), None).await;
    assert!(
        matches!(&finding, Finding::Unknown(why) if why.starts_with("127.0.0.1:1: ")),
        "{finding:?}"
    );
}

#[test]
fn a_ca_bundle_without_a_certificate_is_an_error_and_trusts_nobody_by_mistake() {
    for bundle in ["", "no certificate"] {
        let made = Registry::new(Some(bundle.as_bytes()), Vec::new());
        assert!(matches!(made, Err(SetupError::BadCa)), "{bundle:?}");
    }
}

#[test]
fn hosts_of_this_machine_and_listed_ones_are_spoken_to_without_tls() {
    let registry =
        Registry::new(None, vec!["registry.lan".into(), "other.lan:5000".into()]).unwrap();
    for (host, scheme) in [
        ("127.0.0.1:5000", "http"),
        ("localhost", "http"),
        ("[::1]:5000", "http"),
        ("registry.lan:80", "http"),
        ("other.lan:5000", "http"),
        ("other.lan:5001", "https"),
        ("docker.io", "https"),
        ("10.0.0.1:5000", "https"),
    ] {
        assert_eq!(registry.scheme(host), scheme, "{host}");
    }
}

/// Serves the manifest of the tag, and what else is below the repository.
async fn serves(server: &MockServer, kind: &str, manifest: &Value, others: &[(&str, Value)]) {
    let tag = "/v2/team/x/manifests/1";
    answers(server, "GET", tag, document(kind, manifest)).await;
    for (place, body) in others {
        let place = format!("/v2/team/x/{place}");
        answers(server, "GET", &place, document("application/json", body)).await;
    }
}

async fn command_of(server: &MockServer, platforms: Option<&[Platform]>) -> Finding<Command> {
    client()
        .command(&image(server), &Keyring::default(), platforms)
        .await
}

fn command(entrypoint: &[&str], cmd: &[&str]) -> Command {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Command {
        entrypoint: words(entrypoint),
        cmd: words(cmd),
    }
}

#[tokio::test]
async fn the_own_command_is_that_of_the_nodes_platform() {
    let server = registry().await;
    let of = |architecture: &str| json!({ "digest": format!("sha256:{architecture}"), "platform": { "os": "linux", "architecture": architecture } });
    let index = json!({ "manifests": [of("arm64"), of("amd64")] });
    let manifest = |config: &str| json!({ "config": { "digest": config } });
    let others = [
        ("manifests/sha256:arm64", manifest("sha256:a")),
        ("manifests/sha256:amd64", manifest("sha256:b")),
        (
            "blobs/sha256:a",
            json!({ "config": { "Entrypoint": ["/arm"] } }),
        ),
        (
            "blobs/sha256:b",
            json!({ "config": { "Entrypoint": ["/run", "$HOME"], "Cmd": ["a b"] } }),
        ),
    ];
    serves(&server, INDEX, &index, &others).await;
    assert_eq!(
        command_of(&server, Some(&amd64())).await,
        Finding::There(command(&["/run", "$HOME"], &["a b"]))
    );
    assert_eq!(
        command_of(&server, None).await,
        Finding::There(command(&["/arm"], &[]))
    );
    let other = [Platform {
        os: "linux".into(),
        architecture: "s390x".into(),
    }];
    let found = command_of(&server, Some(&other)).await;
    assert!(
        matches!(&found, Finding::Refused(why) if why.contains("is for linux/amd64, linux/arm64")),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_image_may_have_no_command_and_a_missing_one_is_refused() {
    let server = registry().await;
    let found = command_of(&server, None).await;
    assert!(
        matches!(&found, Finding::Refused(why) if why.contains("does not exist in its registry")),
        "{found:?}"
    );
    let manifest = json!({ "config": { "digest": "sha256:abc" } });
    let config = json!({ "os": "linux", "config": { "Entrypoint": null } });
    serves(
        &server,
        MANIFEST,
        &manifest,
        &[("blobs/sha256:abc", config)],
    )
    .await;
    assert_eq!(
        command_of(&server, Some(&amd64())).await,
        Finding::There(Command::default())
    );
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_says_nothing_about_the_command() {
    let longest = "x".repeat(40 << 10);
    for (manifest, config, wanted) in [
        (json!({}), json!({}), "names no configuration"),
        (json!({ "manifests": [] }), json!({}), "names no manifest"),
        (
            json!({ "config": { "digest": "sha256:abc" } }),
            json!({ "config": { "Entrypoint": "/run" } }),
            "Entrypoint in the image's configuration is no list",
        ),
        (
            json!({ "config": { "digest": "sha256:abc" } }),
            json!({ "config": { "Cmd": [longest] } }),
            "longer than 32768 bytes",
        ),
    ] {
        let server = registry().await;
        serves(
            &server,
            MANIFEST,
            &manifest,
            &[("blobs/sha256:abc", config)],
        )
        .await;
        let found = command_of(&server, None).await;
        assert!(
            matches!(&found, Finding::Unknown(why) if why.contains(wanted)),
            "{found:?}"
        );
    }
}
