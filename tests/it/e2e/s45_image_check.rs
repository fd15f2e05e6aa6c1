//! S45: a real registry is asked for an image before its task is taken.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::s17_closed_network::certificates;
use super::taken::{nowhere, taken, taken_at};
use super::world::{Proc, World, wait};
use crate::git::servers::free_port;
use crate::{clock, times};

/// `user:canary-secret`, by bcrypt.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuu3PYrq6m/qxbNlTuN4B34JSamOsjZkKu\n";

/// The stated figure, in seconds: a good task is delayed by no more.
const DELAYED: f64 = 1.0;

/// A registry of its own that asks for a password, and images that were pushed to it.
struct Registry {
    address: String,
    _proc: Proc,
}

impl Registry {
    fn start(world: &World) -> Self {
        Self::listening(world, "127.0.0.1", None)
    }

    /// One by TLS, and the file of the authority that vouches for it. It listens where pods see this machine: an address
    /// that is the controller's own is spoken to without TLS.
    fn with_tls(world: &World) -> (Self, PathBuf) {
        let folder = world.dir.path().join("authority");
        fs::create_dir_all(&folder).expect("folder is made");
        certificates(&folder, &world.place.gateway);
        let files = json!({"certificate": folder.join("cert.pem"), "key": folder.join("key.pem")});
        let registry = Self::listening(world, &world.place.gateway, Some(files));
        (registry, folder.join("ca.crt"))
    }

    fn listening(world: &World, host: &str, tls: Option<Value>) -> Self {
        let address = format!("{host}:{}", free_port(host));
        let folder = world.dir.path().join("registry");
        fs::create_dir_all(&folder).expect("folder is made");
        fs::write(folder.join("htpasswd"), HTPASSWD).expect("htpasswd is written");
        let mut config = json!({
            "version": "0.1", "storage": {"filesystem": {"rootdirectory": folder.join("data")}},
            "http": {"addr": address}, "log": {"level": "error"},
            "auth": {"htpasswd": {"realm": "test", "path": folder.join("htpasswd")}},
        });
        if let Some(files) = tls {
            config["http"]["tls"] = files;
        }
        let path = folder.join("config.yml");
        fs::write(&path, config.to_string()).expect("configuration is written");
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none");
        let proc = Proc::start(&mut command, &world.dir.path().join("registry.log"));
        wait("the registry listens", 20, || {
            TcpStream::connect(&address).ok()
        });
        Self {
            address,
            _proc: proc,
        }
    }

    /// Pushes an image of one configuration and no layer.
    fn push(&self, name: &str, architecture: &str) {
        let config = json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}}).to_string();
        let digest = digest(&config);
        let base = format!("http://{}/v2/{name}", self.address);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let http = reqwest::Client::new();
            let auth = |request: reqwest::RequestBuilder| request.basic_auth("user", Some("canary-secret"));
            let begun = auth(http.post(format!("{base}/blobs/uploads/"))).send().await.expect("upload begins");
            let place = begun.headers()["location"].to_str().expect("a location").to_owned();
            let separator = if place.contains('?') { '&' } else { '?' };
            let done = auth(http.put(format!("{place}{separator}digest={digest}"))).body(config.clone()).send().await.expect("blob is sent");
            assert_eq!(done.status(), 201);
            let kind = "application/vnd.oci.image.manifest.v1+json";
            let manifest = json!({"schemaVersion": 2, "mediaType": kind, "layers": [],
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len()}});
            let pushed = auth(http.put(format!("{base}/manifests/1"))).header("content-type", kind).body(manifest.to_string()).send().await.expect("manifest is sent");
            assert_eq!(pushed.status(), 201, "{}", pushed.text().await.unwrap_or_default());
        });
    }
}

/// What stands before a registry and limits requests: each is answered with 429, until it lets them through.
struct Limit {
    address: String,
    /// How many it has turned away.
    turned_away: Arc<AtomicU64>,
    is_open: Arc<AtomicBool>,
}

impl Limit {
    fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the limit binds");
        let address = listener.local_addr().expect("an address").to_string();
        let limit = Self {
            address,
            turned_away: Arc::default(),
            is_open: Arc::default(),
        };
        let (count, is_open) = (Arc::clone(&limit.turned_away), Arc::clone(&limit.is_open));
        let target = registry.address.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = target.clone();
                if is_open.load(Ordering::Relaxed) {
                    thread::spawn(move || let_through(client, &target));
                } else {
                    count.fetch_add(1, Ordering::Relaxed);
                    thread::spawn(move || turn_away(client));
                }
            }
        });
        limit
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

/// One request of a connection, as registries answer those that ask too often.
fn turn_away(mut client: TcpStream) {
    let Ok(copy) = client.try_clone() else { return };
    let lines = BufReader::new(copy).lines().map_while(Result::ok);
    if lines.take_while(|line| !line.is_empty()).count() == 0 {
        return;
    }
    let _ = client.write_all(
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
}

/// Carries a connection both ways, until a side closes it.
fn let_through(mut client: TcpStream, target: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    let (mut asked, mut asking) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut asked, &mut asking);
        let _ = asking.shutdown(Shutdown::Write);
    });
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// What a registry calls a blob of this text.
pub(super) fn digest(text: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", "printf %s \"$1\" | sha256sum", "sh", text])
        .output()
        .expect("sha256sum runs");
    format!(
        "sha256:{}",
        String::from_utf8_lossy(&output.stdout)
            .split(' ')
            .next()
            .expect("a sum")
    )
}

fn pull_secret(world: &World, addresses: &[&str]) {
    let mut config = json!({"auths": {}});
    for address in addresses {
        config["auths"][*address] = json!({"username": "user", "password": "canary-secret"});
    }
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config.to_string()}}));
}

/// A task with this image, not yet enqueued.
fn created(world: &World, image: &str) -> String {
    world.create(image, "print(1)\n", &json!({"container": {"image": image}}))
}

fn with_image(world: &World, image: &str) -> String {
    let task = created(world, image);
    world.enqueue(&task, "gpu");
    task
}

fn bind(world: &World, check: &str, secrets: &Value) {
    bind_queues(world, &["gpu"], check, secrets);
}

fn bind_queues(world: &World, queues: &[&str], check: &str, secrets: &Value) {
    let mut template = nowhere(world, &json!({}));
    template["spec"]["imagePullSecrets"] = secrets.clone();
    world.bind(
        "gpu",
        queues,
        &json!({
            "imageCheck": check, "limits": {"maxConcurrent": 20}, "template": template,
            "overrides": {"image": {"allow": ["127.0.0.1:*", format!("{}:*", world.place.gateway)]}},
        }),
    );
}

fn message(world: &World, task: &str) -> String {
    world.task(task)["status_message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn enforce_fails_bad_images_at_once_and_holds_up_nobody_else() {
    let mut world = World::new("s45");
    let registry = Registry::start(&world);
    registry.push("team/good", "amd64");
    registry.push("team/arm", "arm64");
    let limit = Limit::before(&registry);
    pull_secret(&world, &[&registry.address, &limit.address]);
    world.start_controller();
    for queue in ["gpu", "beside"] {
        world.queue(queue);
    }
    let of = |name: &str| format!("{}/{name}", registry.address);
    // One that listens and never answers, and one where nobody listens.
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let silent = silent.local_addr().expect("an address");
    let good_first = with_image(&world, &of("team/good:1"));
    let missing = with_image(&world, &of("team/missing:1"));
    let forbidden = with_image(&world, "registry.example/forbidden:1");
    let other_platform = with_image(&world, &of("team/arm:1"));
    let down = with_image(&world, "127.0.0.1:1/down:1");
    let beyond_limit = |name: &str| with_image(&world, &format!("{}/{name}", limit.address));
    let limited = [beyond_limit("team/good:1"), beyond_limit("team/good:1")];
    let good_last = with_image(&world, &of("team/good:1"));
    let begun = Instant::now();
    let secrets = json!([{"name": "pull"}]);
    bind_queues(&world, &["gpu", "beside"], "Enforce", &secrets);
    for (task, cause) in [
        (&missing, "does not exist in its registry"),
        (&forbidden, "is not allowed here"),
        (
            &other_platform,
            "is for linux/arm64, and the nodes of this cluster are linux/amd64",
        ),
    ] {
        wait("a bad one is failed", 60, || {
            (world.status(task) == "failed").then_some(())
        });
        assert!(
            message(&world, task).contains(cause),
            "{}",
            message(&world, task)
        );
        assert!(
            world.log(task).iter().any(|line| line.contains(cause)),
            "{:#?}",
            world.log(task)
        );
        assert!(world.job_of(task).is_null(), "no Job was made");
    }
    let unchecked = [&down, &limited[0], &limited[1]];
    wait(
        "the good ones go, and those whose registry is down or limits",
        60,
        || {
            let now = taken(&world);
            [&good_first, &good_last]
                .iter()
                .chain(&unchecked)
                .all(|task| now.contains(*task))
                .then_some(())
        },
    );
    println!(
        "all judged {:.1} s after the binding was made",
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(taken(&world).len(), 5);
    for task in unchecked {
        let notes = world.job_of(task).to_string();
        assert!(
            notes.contains("the image was not checked beforehand"),
            "{notes}"
        );
        let told = notes.contains("the registry limits requests (429)");
        assert_eq!(told, task != &down, "{notes}");
    }
    // The answer holds for 15 s, for all who ask for the image.
    let most = 1 + begun.elapsed().as_secs() / 15;
    let turned_away = limit.turned_away();
    assert!((1..=most).contains(&turned_away), "{turned_away} of {most}");
    limit.open();
    let missing = beyond_limit("team/missing:1");
    wait("it is asked again once it answers", 60, || {
        (world.status(&missing) == "failed").then_some(())
    });
    let told = message(&world, &missing);
    assert!(told.contains("does not exist in its registry"), "{told}");
    // A registry that never answers delays its own task by five seconds and a good one behind it by one at most, so that
    // it is overtaken; two of them no longer than one. How long a good one waits for the next look is no delay: one that
    // nothing bad stands before, in another queue, waits for the same. A machine that stood still for as long says nothing:
    // then others are looked at.
    let made = |task: &str| {
        let created = world.job_of(task)["metadata"]["creationTimestamp"].clone();
        created.as_str().expect("a Job has a time").to_owned()
    };
    let overtakes = |number: usize| {
        let [slow, slower] =
            ["x", "y"].map(|name| created(&world, &format!("{silent}/{name}{number}:1")));
        let missing = created(&world, &of(&format!("team/missing{number}:1")));
        let [behind, alone] = [(); 2].map(|()| created(&world, &of("team/good:1")));
        for task in [&slow, &slower, &missing, &behind] {
            world.enqueue(task, "gpu");
        }
        let with = clock::now();
        world.enqueue(&alone, "beside");
        let without = clock::now();
        wait("all go, the slow ones unchecked", 60, || {
            let now = taken(&world);
            [&slow, &slower, &behind, &alone]
                .into_iter()
                .all(|task| now.contains(task))
                .then_some(())
        });
        let waited = |task: &str, since: f64| taken_at(&world.job_of(task)) - since;
        let delay = waited(&behind, with) - waited(&alone, without);
        times::told(
            "S45",
            "delay of a good task by bad ones before it",
            delay.max(0.0),
            DELAYED,
        );
        made(&behind) < made(&slow)
    };
    assert!(
        (1..=3).any(overtakes),
        "good images wait for a silent registry"
    );
    let log = world.controller().log();
    assert!(
        !log.contains("canary-secret")
            && !world
                .kubectl(&["get", "jobs", "-o", "yaml"])
                .contains("canary-secret")
    );
}

#[test]
fn without_a_pull_secret_a_private_image_is_told_by_warn_refused_by_enforce_and_not_asked_for_by_off()
 {
    let mut world = World::new("s45warn");
    let registry = Registry::start(&world);
    registry.push("team/good", "amd64");
    world.start_controller();
    world.queue("gpu");
    let image = format!("{}/team/good:1", registry.address);
    bind(&world, "Warn", &json!([]));
    let warned = with_image(&world, &image);
    wait("it goes with a warning", 60, || {
        taken(&world).contains(&warned).then_some(())
    });
    let job = world.job_of(&warned).to_string();
    assert!(
        job.contains("needs credentials, and no pull secret of the pod has any"),
        "{job}"
    );
    bind(&world, "Enforce", &json!([]));
    let refused = with_image(&world, &image);
    wait("it is failed", 60, || {
        (world.status(&refused) == "failed").then_some(())
    });
    assert!(message(&world, &refused).contains("no pull secret of the pod has any"));
    // The service account's pull secret counts where the pod names none.
    pull_secret(&world, &[&registry.address]);
    world.kubectl(&[
        "patch",
        "serviceaccount",
        "trainyard-task",
        "-p",
        r#"{"imagePullSecrets":[{"name":"pull"}]}"#,
    ]);
    let other = format!(
        "{}/team/good@{}",
        registry.address,
        manifest_digest(&registry)
    );
    let allowed = with_image(&world, &other);
    wait("it goes with the account's secret", 60, || {
        taken(&world).contains(&allowed).then_some(())
    });
    bind(&world, "Off", &json!([]));
    let unasked = with_image(&world, &format!("{}/team/missing:1", registry.address));
    wait("it goes unasked", 60, || {
        taken(&world).contains(&unasked).then_some(())
    });
    assert!(!world.job_of(&unasked).to_string().contains("imageCheck"));
}

#[test]
fn a_registry_by_tls_is_believed_by_the_ca_bundle_of_the_controller_and_else_told_as_unchecked() {
    let mut world = World::new("s45tls");
    let (registry, authority) = Registry::with_tls(&world);
    pull_secret(&world, &[&registry.address]);
    world.start_controller();
    world.queue("gpu");
    bind(&world, "Enforce", &json!([{"name": "pull"}]));
    let image = format!("{}/team/missing:1", registry.address);
    let unchecked = with_image(&world, &image);
    wait("it goes unchecked", 60, || {
        taken(&world).contains(&unchecked).then_some(())
    });
    // What its pod tells in its log, too.
    let job = world.job_of(&unchecked).to_string();
    for words in [
        "the image was not checked beforehand",
        "invalid peer certificate: UnknownIssuer",
        "--registry-ca",
    ] {
        assert!(job.contains(words), "{job}");
    }
    world.kill_controller();
    let authority = authority.display().to_string();
    world
        .environment
        .push(("TRAINYARD_REGISTRY_CA".to_owned(), authority));
    world.start_controller();
    let refused = with_image(&world, &image);
    wait("the registry is believed: it has no such image", 60, || {
        (world.status(&refused) == "failed").then_some(())
    });
    let told = message(&world, &refused);
    assert!(told.contains("does not exist in its registry"), "{told}");
}

fn manifest_digest(registry: &Registry) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let url = format!("http://{}/v2/team/good/manifests/1", registry.address);
        let answer = reqwest::Client::new()
            .head(url)
            .basic_auth("user", Some("canary-secret"))
            .header("accept", "application/vnd.oci.image.manifest.v1+json")
            .send()
            .await
            .expect("asked");
        answer.headers()["docker-content-digest"]
            .to_str()
            .expect("a digest")
            .to_owned()
    })
}
