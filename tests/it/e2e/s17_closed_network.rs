//! S17: a network that is closed. The server has a certificate of an authority of its own; git and the package index too,
//! and those two are reached through the one proxy alone. Every packet of the pods is looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::world::{Proc, World, merge, wait};
use super::{experiment, locks, s4_conda};
use crate::git;

const FRONT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/e2e/s17/front.py");
const GIT: &str = "git.internal";
const INDEX: &str = "index.internal";

/// The programs of the network, all on the address that pods reach.
struct Network {
    folder: PathBuf,
    authority: String,
    server: String,
    proxy: String,
    commit: String,
    _programs: Vec<Proc>,
    _git: (git::servers::Server, tokio::runtime::Runtime),
}

fn openssl(folder: &Path, args: &str) {
    let output = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An authority, and one certificate of it for all names.
pub fn certificates(folder: &Path, host: &str) -> String {
    openssl(
        folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
    );
    openssl(
        folder,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=internal -keyout key.pem -out request.pem",
    );
    let names = format!("subjectAltName=IP:{host},DNS:{GIT},DNS:{INDEX}\n");
    fs::write(folder.join("names"), names).expect("names are written");
    openssl(
        folder,
        "x509 -req -in request.pem -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem",
    );
    fs::read_to_string(folder.join("ca.crt")).expect("the authority is there")
}

/// User code that reaches the server by the SDK, and the index by what Python brings.
const TRAIN: &str = "\
import os, urllib.request
from clearml import Task
task = Task.init(auto_connect_frameworks=False)
task.get_logger().report_scalar('loss', 'train', 0.25, 1)
with urllib.request.urlopen('https://index.internal/simple/six/') as page:
    print('user code reads the index', page.status)
print('proxy', os.environ['HTTPS_PROXY'].startswith('http://'))
task.close()
print('closed network is enough')
";

/// Folders of the repository whose packages are named by files in them: two locks, and a project without one.
const NAMED: [&str; 3] = ["uv", "poetry", "project"];
const USES: &str = "import joblib\nprint('named by files', joblib.__version__)\n";

/// What conda brings, from a channel inside, and pip beside it.
const USES_CONDA: &str =
    "import beta, six\nprint('brought by conda', beta.V, 'beside', six.__name__)\n";

/// All files of the repository. The lock of uv names the index as it is called inside.
fn files(world: &World, folder: &Path) -> Vec<(String, String)> {
    let project = locks::project(&["joblib"]);
    let index = world.place.index_url.as_str();
    let outside = index.split("/simple").next().unwrap_or(index);
    let inside = format!("https://{INDEX}");
    let lock = locks::uv_lock(&folder.join("locking"), &project, index).replace(outside, &inside);
    assert!(lock.contains(&inside), "{lock}");
    // The same packages in poetry's words: the one that is asked for needs the others.
    let packages = locks::packages(&lock);
    let mut poetry = String::new();
    for (name, version) in &packages {
        let needs: String = packages
            .iter()
            .filter(|(other, _)| name == "joblib" && other != name)
            .flat_map(|(other, _)| [other.as_str(), " = \"*\"\n"])
            .collect();
        let package = format!(
            "[[package]]\nname = {name:?}\nversion = {version:?}\npython-versions = \"*\"\nfiles = []\n\n[package.dependencies]\n{needs}\n"
        );
        poetry.push_str(&package);
    }
    assert!(poetry.contains("joblib"), "{lock}");
    let mut files = vec![
        ("train.py".to_owned(), TRAIN.to_owned()),
        ("conda/train.py".to_owned(), USES_CONDA.to_owned()),
        ("uv/uv.lock".to_owned(), lock),
        ("poetry/poetry.lock".to_owned(), poetry),
    ];
    for kind in NAMED {
        files.push((format!("{kind}/pyproject.toml"), project.clone()));
        files.push((format!("{kind}/train.py"), USES.to_owned()));
    }
    files
}

impl Network {
    fn start(world: &World) -> Self {
        let folder = world.dir.path().join("network");
        fs::create_dir_all(folder.join("served")).expect("folder is made");
        let host = world.place.gateway.clone();
        let authority = certificates(&folder, &host);
        let files = files(world, &folder);
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let commit = experiment::commit(&folder, &files);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let repositories =
            runtime.block_on(git::servers::Server::start(&folder.join("served"), None));
        let free = || format!("{host}:{}", git::servers::free_port(&host));
        let (server, index, served, proxy) = (free(), free(), free(), free());
        let plain = |url: &str| {
            let rest = url.trim_start_matches("http://");
            rest.split('/').next().unwrap_or_default().to_owned()
        };
        let at = |name: &str| folder.join(name).display().to_string();
        let (cert, key) = (at("cert.pem"), at("key.pem"));
        let programs: [Vec<String>; 5] = [
            vec![
                "tls".into(),
                server.clone(),
                cert.clone(),
                key.clone(),
                plain(&world.url),
            ],
            vec![
                "tls".into(),
                index.clone(),
                cert.clone(),
                key.clone(),
                plain(&world.place.index_url),
            ],
            vec![
                "tls".into(),
                served.clone(),
                cert,
                key,
                plain(&repositories.url),
            ],
            vec![
                "proxy".into(),
                proxy.clone(),
                at("proxied"),
                format!("{GIT}={served}"),
                format!("{INDEX}={index}"),
            ],
            vec!["packets".into(), "trainyard0".into(), at("packets")],
        ];
        let programs = programs.into_iter().enumerate().map(|(number, arguments)| {
            let log = folder.join(format!("front-{number}.log"));
            let mut command = Command::new("/usr/bin/python3");
            let program = Proc::start(command.arg(FRONT).args(&arguments), &log);
            wait(&format!("{arguments:?}: {}", program.log()), 20, || {
                program.log().contains("listening").then_some(())
            });
            program
        });
        Self {
            authority,
            server: format!("https://{server}"),
            proxy: format!("http://{proxy}"),
            commit,
            _programs: programs.collect(),
            _git: (repositories, runtime),
            folder,
        }
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The share of a binding whose tasks run in this image.
    fn patch(&self, world: &World, image: &str) -> Value {
        let bundle = json!({"kind": "ConfigMap", "name": "corp-ca", "key": "ca.crt"});
        let env: Vec<Value> = [
            ("HTTPS_PROXY", self.proxy.as_str()),
            ("HTTP_PROXY", self.proxy.as_str()),
            ("NO_PROXY", world.place.gateway.as_str()),
        ]
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
        json!({
            "server": {"apiUrl": self.server, "webUrl": self.server, "filesUrl": format!("{}/files", self.server),
                       "caBundleRef": bundle},
            "environment": {"indexUrl": format!("https://{INDEX}/simple/"), "caBundleRef": bundle},
            "template": {"spec": {"containers": [{"name": "task", "image": image, "env": env}]}},
        })
    }
}

#[test]
fn s17_a_closed_network_is_enough_and_nothing_else_is_asked() {
    let mut world = World::new("s17");
    let network = Network::start(&world);
    world.apply(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"},
                        "data": {"ca.crt": network.authority}}),
    );
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &network.patch(&world, &world.place.task_image),
    );
    let channel = s4_conda::Channel::serve(&world);
    channel.configure(&world);
    world.queue("conda");
    let mut of_conda = network.patch(&world, &s4_conda::image(&world));
    of_conda["environment"]["clearmlConfRef"] = json!({"name": "conf"});
    world.bind("conda", &["conda"], &of_conda);
    world.until_ready("gpu");
    world.until_ready("conda");
    let task = run(
        &world,
        &network,
        "gpu",
        &json!({"requirements": {"pip": "clearml == 2.1.12\nsix\n"}}),
    );
    let named = NAMED.map(|folder| run(&world, &network, "gpu", &json!({"working_dir": folder})));
    let by_conda = run(
        &world,
        &network,
        "conda",
        &json!({"working_dir": "conda", "requirements": {"conda": "beta\n", "pip": "six\n"}}),
    );
    let lines = [
        "user code reads the index 200",
        "proxy True",
        "closed network is enough",
    ];
    ends_well(&world, &network, &task, &lines);
    let scalars = world.call(
        "events.scalar_metrics_iter_histogram",
        &json!({"task": task, "key": "iter"}),
    );
    assert!(
        scalars["loss"]["train"].is_object(),
        "the SDK has reported: {scalars}"
    );
    let line = format!("named by files {}", locks::JOBLIB);
    for task in &named {
        ends_well(&world, &network, task, &[&line]);
        world.has_written(task, &format!("{line}\n"));
    }
    let line = "brought by conda 1.0 beside six";
    ends_well(&world, &network, &by_conda, &[line]);
}

/// Enqueues a task of the repository inside; `patch` is merged into its script.
fn run(world: &World, network: &Network, queue: &str, patch: &Value) -> String {
    let mut script = json!({
        "repository": format!("https://{GIT}/train.git"), "version_num": network.commit, "entry_point": "train.py",
        "diff": "",
    });
    merge(&mut script, patch);
    let task = world.create("closed", "", &json!({"script": script}));
    world.enqueue(&task, queue);
    task
}

/// The task completes with these lines, and its pod has asked nobody outside.
fn ends_well(world: &World, network: &Network, task: &str, lines: &[&str]) {
    let address = wait("the pod has an address", 90, || {
        world.pod_of(task)["status"]["podIP"]
            .as_str()
            .map(str::to_owned)
    });
    let ended = world.until_ended(task, 120);
    if ended["status"] != "completed" {
        println!("proxied: {:#?}", network.lines("proxied"));
        world.tell(task);
    }
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["script"]["version_num"], network.commit.as_str());
    let log = world.has_sent_all(task);
    for line in lines {
        assert!(log.lines().any(|found| found == *line), "{line}: {log}");
    }
    only_inside(world, network, &address);
}

/// Nobody but the two names was asked of the proxy; no packet of the pod left for another host, no name was asked of DNS.
fn only_inside(world: &World, network: &Network, pod: &str) {
    let proxied = network.lines("proxied");
    for name in [GIT, INDEX] {
        assert!(
            proxied
                .iter()
                .any(|line| *line == format!("CONNECT {name}:443")),
            "{name}: {proxied:#?}"
        );
    }
    let foreign: Vec<&String> = proxied
        .iter()
        .filter(|line| {
            ![GIT, INDEX]
                .iter()
                .any(|name| **line == format!("CONNECT {name}:443"))
        })
        .collect();
    assert!(foreign.is_empty(), "asked of the proxy: {foreign:#?}");
    let packets = network.lines("packets");
    let own: Vec<&str> = packets
        .iter()
        .filter_map(|line| line.strip_prefix(pod)?.strip_prefix(' '))
        .collect();
    let gateway = format!("{} ", world.place.gateway);
    assert!(
        own.iter().any(|line| line.starts_with(&gateway)),
        "the packet log sees the pod: {packets:#?}"
    );
    let outside: Vec<&&str> = own
        .iter()
        .filter(|line| !is_inside(line, &gateway))
        .collect();
    assert!(
        outside.is_empty(),
        "packets to other hosts, names asked: {outside:#?}"
    );
}

/// Whether a line of the packet log is about this machine, a Service of the cluster, or a name of the cluster.
fn is_inside(line: &str, gateway: &str) -> bool {
    match line.strip_prefix("dns ") {
        Some(name) => name.ends_with(".cluster.local") || !name.contains('.'),
        None => line.starts_with(gateway) || line.starts_with("10.97."),
    }
}
