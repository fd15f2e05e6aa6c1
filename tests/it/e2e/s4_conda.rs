//! S4 with conda in a pod: the image brings the program, rattler's real solver and installer; the channel is one of this
//! machine, which pods reach.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::images;
use super::world::{Proc, World, wait};
use crate::git::servers::free_port;
use crate::python::conda;

/// The interpreter of the image of tasks and its version: the channel's python leads there.
const PYTHON: [&str; 2] = ["/usr/bin/python3.11", "3.11"];

/// Copies rattler, and libraries that its wheel may bring beside it.
const COPY: &str = "
import os, rattler, shutil, sys
own = os.path.dirname(rattler.__file__)
for name in os.listdir(os.path.dirname(own)):
    if name == 'rattler' or name.endswith('.libs'):
        source = os.path.join(os.path.dirname(own), name)
        shutil.copytree(source, os.path.join(sys.argv[1], name), ignore=shutil.ignore_patterns('__pycache__'))
";
const PROGRAM: &str = "#!/bin/sh\nexec /usr/bin/python3 /opt/conda/micromamba.py \"$@\"\n";

/// The image of tasks with that program, for all scenarios that want it.
pub fn image(world: &World) -> String {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| made(world)).clone()
}

fn made(world: &World) -> String {
    let context = world.dir.path().join("conda");
    let program = context.join("bin/micromamba");
    fs::create_dir_all(context.join("bin")).expect("folder is made");
    let copied = Command::new(conda::rattler_python())
        .args(["-c", COPY])
        .arg(&context)
        .status()
        .expect("Python runs");
    assert!(copied.success());
    let script = conda::script("micromamba.py");
    fs::copy(script, context.join("micromamba.py")).expect("script is copied");
    fs::write(&program, PROGRAM).expect("program is written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it may be run");
    let base = &world.place.task_image;
    let text = format!("FROM {base}\nCOPY . /opt/conda/\nENV PATH=/opt/conda/bin:$PATH\n");
    fs::write(context.join("Dockerfile"), text).expect("Dockerfile is written");
    // The same files are the same image, whenever it is made.
    images::make(world, "conda", &context, &["--timestamp", "0"])
}

/// A channel with python, alpha 1.0, alpha 2.0 and a beta that asks for an alpha below 2, where pods reach it.
pub struct Channel {
    pub url: String,
    server: Proc,
}

impl Channel {
    pub fn serve(world: &World) -> Self {
        let folder = world.dir.path().join("channel");
        conda::write_channel(&folder, &PYTHON);
        let host = world.place.gateway.as_str();
        let port = free_port(host);
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-u", "-m", "http.server", &port.to_string()])
            .args(["--bind", host, "--directory"])
            .arg(&folder);
        let server = Proc::start(&mut command, &world.dir.path().join("channel.log"));
        wait("the channel is served", 20, || {
            TcpStream::connect((host, port)).ok()
        });
        Self {
            url: format!("http://{host}:{port}"),
            server,
        }
    }

    /// Whether a package of this name and version was fetched.
    fn has_given(&self, package: &str) -> bool {
        let asked = format!("GET /noarch/{package}-0.tar.bz2 ");
        self.server.log().contains(&asked)
    }
}

/// The Secret `conf` with a configuration that has conda make environments from these channels.
pub fn configure(world: &World, channels: &[&str]) {
    let text = format!(
        "agent.package_manager {{\n  type: conda\n  conda_channels: {channels:?}\n  conda_full_env_update: true\n}}\n"
    );
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "conf"},
        "stringData": {"clearml.conf": text},
    }));
}

/// What the task requires once its packages are recorded in it.
fn recorded(world: &World, task: &str) -> Value {
    wait("what is installed is in the task", 30, || {
        let requirements = world.task(task)["script"]["requirements"].clone();
        requirements["pip"].is_array().then_some(requirements)
    })
}

#[test]
fn s4_a_pod_makes_an_environment_by_conda_and_the_task_tells_what_is_in_it() {
    let mut world = World::new("s4conda");
    let channel = Channel::serve(&world);
    configure(&world, &[&channel.url]);
    let container = json!({"name": "task", "image": image(&world)});
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "environment": {"clearmlConfRef": {"name": "conf"}},
            "template": {"spec": {"containers": [container]}},
        }),
    );
    world.until_ready("gpu");
    let task = world.create(
        "conda",
        "import alpha, beta, six\nprint('alpha', alpha.V, 'beta', beta.V, 'and', six.__name__)\n",
        &json!({"script": {"requirements": {"conda": "beta = 1.0\n", "pip": "six\n"}}}),
    );
    world.enqueue(&task, "gpu");
    let ended = world.until_ended(&task, 120);
    if ended["status"] != "completed" {
        println!("asked of the channel: {}", channel.server.log());
        world.tell(&task);
    }
    assert_eq!(ended["status"], "completed");
    // The solver has chosen the alpha that beta wants, not the newest.
    assert_eq!(world.output(&task), "alpha 1.0 beta 1.0 and six\n");
    let log = world.log(&task).join("\n");
    assert!(log.contains("making an environment by micromamba"), "{log}");
    for (package, given) in [
        ("alpha-1.0", true),
        ("beta-1.0", true),
        ("alpha-2.0", false),
    ] {
        let asked = channel.server.log();
        assert_eq!(channel.has_given(package), given, "{package}: {asked}");
    }
    let requirements = recorded(&world, &task);
    let installed: Vec<&str> = requirements["pip"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        matches!(installed[..], ["alpha==1.0", "beta==1.0", six] if six.starts_with("six==")),
        "{installed:?}"
    );
    assert_eq!(requirements["conda"], "beta = 1.0\n");
    assert_eq!(requirements["org_pip"], "six\n");
}
