//! S17: a network that is closed. What it serves has certificates of an authority of its own: the server, git, the package
//! index, conda's channel and an image registry whose name nobody else knows. The server is reached as it is, the others
//! through the one proxy alone, the channel in both ways. Every packet of the pods is looked at.

mod network;

use std::path::Path;

use serde_json::{Value, json};

pub use self::network::certificates;
use self::network::{CHANNEL, GIT, INDEX, Network, PROXIED, REGISTRY, inside};
use super::world::{World, merge, wait};
use super::{locks, s4_conda};

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

#[test]
fn s17_a_closed_network_is_enough_and_nothing_else_is_asked() {
    let mut world = World::new("s17");
    let channel = s4_conda::Channel::serve(&world);
    let network = Network::start(&world, &files(&world, world.dir.path()), &channel.url);
    world.apply(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"},
                        "data": {"ca.crt": network.authority}}),
    );
    world.place.image = inside(&world, &world.place.image);
    let variables = network.of_controller(&world);
    world.environment.extend(variables);
    world.start_controller();
    bind(&world, &network);
    let absent = json!({"container": {"image": format!("{REGISTRY}/absent:1")}});
    let absent = world.create("absent", "print(1)\n", &absent);
    world.enqueue(&absent, "gpu");
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
    both_ways_lead_to_the_channel(&network);
    images_come_from_inside(&world, &network, &absent);
}

/// The bindings `gpu` and `conda`, whose images have Python alone, and conda beside it.
fn bind(world: &World, network: &Network) {
    let [by_name, by_address] = [CHANNEL, &network.channel].map(|host| format!("https://{host}"));
    s4_conda::configure(world, &[&by_name, &by_address]);
    let images =
        [&world.place.task_image, &s4_conda::image(world)].map(|image| inside(world, image));
    let [gpu, mut conda] = images.map(|image| network.patch(world, &image));
    conda["environment"]["clearmlConfRef"] = json!({"name": "conf"});
    for (name, patch) in [("gpu", &gpu), ("conda", &conda)] {
        world.queue(name);
        world.bind(name, &[name], patch);
    }
    world.until_ready("gpu");
    world.until_ready("conda");
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

/// The task completes with these lines, and its pod is made of what is inside and has asked nobody outside.
fn ends_well(world: &World, network: &Network, task: &str, lines: &[&str]) {
    let pod = wait("the pod has an address", 90, || {
        Some(world.pod_of(task)).filter(|pod| pod["status"]["podIP"].is_string())
    });
    let ended = world.until_ended(task, 120);
    if ended["status"] != "completed" {
        println!("proxied: {:#?}", network.record("proxy"));
        world.tell(task);
    }
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["script"]["version_num"], network.commit.as_str());
    let log = world.has_sent_all(task);
    for line in lines {
        assert!(log.lines().any(|found| found == *line), "{line}: {log}");
    }
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array().into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            assert!(image.starts_with(REGISTRY), "{container:#}");
        }
    }
    let address = pod["status"]["podIP"].as_str().unwrap_or_default();
    only_inside(world, network, address);
}

/// Nobody but the names inside was asked of the proxy; no packet of the pod left for another host, no name was asked of
/// DNS.
fn only_inside(world: &World, network: &Network, pod: &str) {
    let proxied = network.record("proxy");
    let connects = PROXIED.map(|name| format!("CONNECT {name}:443"));
    for name in [GIT, INDEX, REGISTRY] {
        let wanted = format!("CONNECT {name}:443");
        assert!(proxied.contains(&wanted), "{name}: {proxied:#?}");
    }
    let foreign: Vec<&String> = proxied
        .iter()
        .filter(|line| !connects.contains(line))
        .collect();
    assert!(foreign.is_empty(), "asked of the proxy: {foreign:#?}");
    let packets = network.record("packets");
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

/// Whether the front of this name had a request for this host with all of these words.
fn asks(network: &Network, front: &str, host: &str, words: &[&str]) -> bool {
    network.record(front).iter().any(|line| {
        line.split(' ').next() == Some(host) && words.iter().all(|word| line.contains(word))
    })
}

/// Through the proxy by its name, where the packages come from, and as `NO_PROXY` says by its address.
fn both_ways_lead_to_the_channel(network: &Network) {
    let record = || network.record(CHANNEL);
    let package = "GET /noarch/beta-1.0-0.tar.bz2 ";
    assert!(
        asks(network, CHANNEL, CHANNEL, &[package]),
        "{:#?}",
        record()
    );
    let proxied = network.record("proxy");
    let connect = format!("CONNECT {CHANNEL}:443");
    assert!(proxied.contains(&connect), "{proxied:#?}");
    let list = "GET /noarch/repodata.json ";
    assert!(
        asks(network, CHANNEL, &network.channel, &[list]),
        "{:#?}",
        record()
    );
}

/// The controller has asked for them through the proxy and refused one that is not there; the node has pulled them.
fn images_come_from_inside(world: &World, network: &Network, absent: &str) {
    wait("an image that is not inside fails its task", 60, || {
        (world.status(absent) == "failed").then_some(())
    });
    let told = world.task(absent)["status_message"].to_string();
    assert!(told.contains("does not exist in its registry"), "{told}");
    let namespace = format!("ns={REGISTRY} ");
    for image in [&world.place.task_image, &s4_conda::image(world)] {
        let image = inside(world, image);
        let (repository, _) = image[REGISTRY.len()..]
            .split_once([':', '@'])
            .expect("a name and a version");
        let manifest = format!("/v2{repository}/manifests/");
        let asked = |host: &str, words: &[&str]| {
            let asks = asks(network, REGISTRY, host, words);
            assert!(
                asks,
                "{image} of {host}, {words:?}: {:#?}",
                network.record(REGISTRY)
            );
        };
        asked(REGISTRY, &[&manifest, " trainyard/"]);
        asked(&network.registry, &[&manifest, &namespace, " containerd/"]);
    }
}
