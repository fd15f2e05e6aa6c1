//! S45: a real registry that takes the tokens of a service, as Docker Hub and most others do, and images for several
//! platforms in it.

mod issuer;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use trainyard::image::{self, Finding, Keyring, Platform, Reference};

use self::issuer::{ISSUER, Issuer, LEEWAY, PASSWORD, SERVICE, Seal, USER};
use super::s45_image_check::digest;
use super::world::{Proc, wait};
use crate::git::servers::free_port;

const REPOSITORY: &str = "team/multi";
/// What reading it takes.
const PULL: &str = "repository:team/multi:pull";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A registry of its own.
struct Registry {
    address: String,
    http: reqwest::Client,
    _proc: Proc,
}

impl Registry {
    /// One that sends whoever asks to `realm`, and takes the tokens that this certificate vouches for.
    fn start(folder: &Path, realm: &str, certificate: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let config = json!({
            "version": "0.1", "storage": {"filesystem": {"rootdirectory": folder.join("data")}},
            "http": {"addr": address}, "log": {"level": "error"},
            "auth": {"token": {
                "realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": certificate,
            }},
        });
        let path = folder.join("config.yml");
        // JSON is YAML.
        fs::write(&path, config.to_string()).expect("configuration is written");
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none");
        let mut proc = Proc::start(&mut command, &folder.join("registry.log"));
        wait("the registry listens", 20, || {
            assert!(!proc.has_ended(), "the registry ended: {}", proc.log());
            TcpStream::connect(&address).ok()
        });
        Self {
            address,
            http: reqwest::Client::new(),
            _proc: proc,
        }
    }

    fn place(&self, of: &str) -> String {
        format!("http://{}/v2/{REPOSITORY}/{of}", self.address)
    }

    /// What it answers who asks for the image with this token.
    async fn answer(&self, token: &str) -> StatusCode {
        let asked = self.http.head(self.place("manifests/both"));
        let asked = asked.header("accept", INDEX).bearer_auth(token);
        asked.send().await.expect("the registry answers").status()
    }

    async fn push_blob(&self, token: &str, content: &str) -> String {
        let digest = digest(content);
        let begun = self.http.post(self.place("blobs/uploads/"));
        let begun = begun.bearer_auth(token).send().await;
        let begun = begun.expect("an upload begins");
        let place = begun.headers()["location"].to_str().expect("a location");
        let separator = if place.contains('?') { '&' } else { '?' };
        let blob = self.http.put(format!("{place}{separator}digest={digest}"));
        let blob = blob.bearer_auth(token).body(content.to_owned());
        let pushed = blob.send().await.expect("a blob is sent");
        assert_eq!(pushed.status(), StatusCode::CREATED);
        digest
    }

    async fn push_manifest(&self, token: &str, name: &str, kind: &str, text: &str) {
        let manifest = self.http.put(self.place(&format!("manifests/{name}")));
        let manifest = manifest.bearer_auth(token).header("content-type", kind);
        let pushed = manifest.body(text.to_owned()).send().await;
        let pushed = pushed.expect("a manifest is sent");
        let status = pushed.status();
        let words = pushed.text().await.unwrap_or_default();
        assert_eq!(status, StatusCode::CREATED, "{words}");
    }

    /// Pushes the image of one platform, which runs `/ARCHITECTURE`; what an index says of it.
    async fn push_image(&self, token: &str, architecture: &str) -> Value {
        let config = json!({
            "os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Entrypoint": [format!("/{architecture}")]},
        })
        .to_string();
        let blob = self.push_blob(token, &config).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": CONFIG, "digest": blob, "size": config.len()},
        })
        .to_string();
        let name = digest(&manifest);
        self.push_manifest(token, &name, MANIFEST, &manifest).await;
        json!({
            "mediaType": MANIFEST, "digest": name, "size": manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    }

    async fn push_index(&self, token: &str, tag: &str, images: &[&Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": images});
        self.push_manifest(token, tag, INDEX, &index.to_string())
            .await;
    }
}

/// A registry, its token service, and our client. The image `both` is for two platforms, `arm` for one.
struct Scene {
    registry: Registry,
    issuer: Issuer,
    seal: Arc<Seal>,
    client: image::Registry,
    folder: TempDir,
}

impl Scene {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().expect("temp folder");
        let seal = Arc::new(Seal::new(folder.path(), "issuer"));
        let issuer = Issuer::start(Arc::clone(&seal)).await;
        let registry = Registry::start(folder.path(), &issuer.realm(), &seal.file);
        let token = seal.token(&format!("{PULL},push"), 300);
        let amd64 = registry.push_image(&token, "amd64").await;
        let arm64 = registry.push_image(&token, "arm64").await;
        registry.push_index(&token, "both", &[&arm64, &amd64]).await;
        registry.push_index(&token, "arm", &[&arm64]).await;
        Self {
            registry,
            issuer,
            seal,
            client: image::Registry::new(None, Vec::new()).expect("a client"),
            folder,
        }
    }

    fn image(&self, tag: &str) -> Reference {
        let name = format!("{}/{REPOSITORY}:{tag}", self.registry.address);
        Reference::parse(&name).expect("the name of an image")
    }

    /// What a pull secret with this password holds.
    fn keys(&self, password: &str) -> Keyring {
        let mut config = json!({"auths": {}});
        config["auths"][self.registry.address.as_str()] =
            json!({"username": USER, "password": password});
        let mut keys = Keyring::default();
        keys.add_config(config.to_string().as_bytes());
        keys
    }

    /// Looks for an image that nodes of these architectures can run.
    async fn look(&self, tag: &str, keys: &Keyring, nodes: &[&str]) -> Finding {
        let nodes: Vec<Platform> = nodes.iter().map(|node| linux(node)).collect();
        self.client.look(&self.image(tag), keys, Some(&nodes)).await
    }

    /// What one was told who asked for the image in vain.
    async fn refusal(&self, tag: &str, keys: &Keyring, nodes: &[&str]) -> String {
        match self.look(tag, keys, nodes).await {
            Finding::Refused(why) => why,
            other => panic!("{tag} is not refused: {other:?}"),
        }
    }

    /// Scopes of the tokens that were given since this was last asked.
    fn scopes(&self) -> Vec<String> {
        let given = self.issuer.given().into_iter();
        given.map(|given| given.scope).collect()
    }
}

fn linux(architecture: &str) -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
    }
}

#[tokio::test]
async fn s45_a_registry_with_tokens_is_asked_with_one_and_its_index_is_read_by_platform() {
    let scene = Scene::start().await;
    let keys = scene.keys(PASSWORD);
    // One token serves all requests of a look: index, manifest and configuration.
    for nodes in [&["amd64"][..], &["arm64"], &["s390x", "amd64"]] {
        let found = scene.look("both", &keys, nodes).await;
        assert_eq!(found, Finding::There(()), "{nodes:?}");
        assert_eq!(scene.scopes(), [PULL]);
    }
    for architecture in ["amd64", "arm64"] {
        let (both, nodes) = (scene.image("both"), [linux(architecture)]);
        let found = scene.client.command(&both, &keys, Some(&nodes)).await;
        let own = image::Command {
            entrypoint: vec![format!("/{architecture}")],
            cmd: Vec::new(),
        };
        assert_eq!(found, Finding::There(own));
        assert_eq!(scene.scopes(), [PULL]);
    }
    let found = scene.look("arm", &keys, &["arm64"]).await;
    assert_eq!(found, Finding::There(()));
    assert_eq!(
        scene.refusal("arm", &keys, &["amd64"]).await,
        format!(
            "image {} is for linux/arm64, and the nodes of this cluster are linux/amd64",
            scene.image("arm")
        )
    );
    assert_eq!(
        scene.refusal("none", &keys, &["amd64"]).await,
        format!(
            "image {} does not exist in its registry",
            scene.image("none")
        )
    );
}

#[tokio::test]
async fn s45_a_registry_with_tokens_refuses_a_wrong_password_nobody_and_what_a_stranger_signed() {
    let scene = Scene::start().await;
    let (image, nodes) = (scene.image("both"), ["amd64"]);
    let wrong = scene.keys("wrong-secret");
    assert_eq!(
        scene.refusal("both", &wrong, &nodes).await,
        format!("the registry refuses image {image} to the credentials of the pull secrets")
    );
    // The service gave none for the password; the one for nobody has no rights, and the registry saw that.
    assert_eq!(scene.scopes(), [PULL]);
    assert_eq!(
        scene.refusal("both", &Keyring::default(), &nodes).await,
        format!(
            "image {image} does not exist or needs credentials, and no pull secret of the pod has any for {}",
            scene.registry.address
        )
    );
    assert_eq!(scene.scopes(), [PULL]);
    // It is the signature that the registry believes.
    let stranger = Seal::new(scene.folder.path(), "stranger");
    for (token, answer) in [
        (scene.seal.token(PULL, 300), StatusCode::OK),
        (stranger.token(PULL, 300), StatusCode::UNAUTHORIZED),
        (scene.seal.token("", 300), StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(scene.registry.answer(&token).await, answer);
    }
}

#[tokio::test]
async fn s45_a_look_after_a_token_has_ended_is_made_with_another_one() {
    let scene = Scene::start().await;
    let keys = scene.keys(PASSWORD);
    // The registry takes each for four seconds.
    scene.issuer.lasts(4 - LEEWAY);
    let found = scene.look("both", &keys, &["amd64"]).await;
    assert_eq!(found, Finding::There(()));
    let given = scene.issuer.given();
    let [first] = given.as_slice() else {
        panic!("one look, one token: {}", given.len())
    };
    let begun = Instant::now();
    while scene.registry.answer(&first.token).await != StatusCode::UNAUTHORIZED {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the registry takes a token that has ended"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = scene.look("both", &keys, &["amd64"]).await;
    assert_eq!(found, Finding::There(()));
    assert_eq!(scene.scopes(), [PULL], "it has got a new one");
}
