//! `cargo xtask demo`: from nothing to a finished experiment on a real Kubernetes, watched line by line.
//!
//! Cluster, image, `trainyard server`, `helm install`, a `QueueBinding`, a git repository with uncommitted changes, and
//! the unmodified SDK that enqueues from it. Everything that is started here ends here, unless `--keep` is given.

use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::clearml::Server;
use crate::cluster::{self, Cluster};
use crate::process::{self, Identity};
use crate::{dirs, image, sh, tools};

/// How the demo runs.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave cluster, server and controller running
    #[arg(long)]
    keep: bool,
    /// Number of epochs of the experiment
    #[arg(long, default_value_t = 10)]
    epochs: u32,
    #[command(flatten)]
    which: cluster::Which,
}

const NAMESPACE: &str = "trainyard-demo";
const QUEUE: &str = "gpu";
const STEPS: u32 = 8;

/// Runs the demo.
pub fn main(arguments: &Arguments) -> Result<()> {
    let kubeconfig = arguments.which.foreign()?;
    cluster::install_missing(kubeconfig.as_deref())?;
    let was_up = cluster::is_up(kubeconfig.as_deref());
    let mut step = Step::default();

    step.begin("a Kubernetes cluster");
    let cluster = cluster::up(kubeconfig.as_deref())?;
    let result = on_cluster(arguments, &mut step, &cluster);
    if !arguments.keep && !was_up {
        println!("taking the cluster down");
        cluster::down()?;
    }
    let (task, seconds) = result?;
    println!("demo: task {task} completed in {seconds:.1} s");
    Ok(())
}

/// Numbered progress lines.
#[derive(Default)]
struct Step(u32);

impl Step {
    fn begin(&mut self, what: &str) {
        self.0 += 1;
        println!("[{}/{STEPS}] {what}", self.0);
    }
}

/// What the demo started; dropped, it ends.
struct Stage<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    children: Vec<Child>,
    keep: bool,
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        self.clear();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Stage<'_> {
    /// Takes away what this demo, or one that was cut off, made in the cluster. The binding goes first, while its
    /// controller lives to give tasks back; one that has lost its controller is freed of its finalizer.
    fn clear(&self) {
        let run = |mut command: Command| sh::output(&mut command).unwrap_or_default();
        run(self.kubectl(&["delete", "queuebinding", "--all", "--timeout=20s"]));
        run(self.helm(&["uninstall", "trainyard", "--wait", "--timeout", "60s"]));
        for name in run(self.kubectl(&["get", "queuebinding", "--output", "name"])).lines() {
            let free = r#"{"metadata":{"finalizers":null}}"#;
            run(self.kubectl(&["patch", name, "--type=merge", "--patch", free]));
        }
        run(self.kubectl(&[
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--timeout=60s",
        ]));
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.cluster.bin.join("kubectl"));
        command
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .args(["--namespace", NAMESPACE])
            .args(arguments);
        command
    }

    fn helm(&self, arguments: &[&str]) -> Command {
        let home = self.folder.join("helm");
        let mut command = Command::new(self.cluster.bin.join("helm"));
        command
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
            .args(["--namespace", NAMESPACE])
            .args(arguments);
        command
    }

    fn apply(&self, object: &Value) -> Result<()> {
        sh::feed(
            &mut self.kubectl(&["apply", "--filename", "-"]),
            &object.to_string(),
        )
    }

    /// Starts a program that lives as long as the demo, or on with `--keep`.
    fn start(&mut self, mut command: Command, log: &str) -> Result<()> {
        let log = self.folder.join(log);
        let file = fs::File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        if self.keep {
            // Its own group: Ctrl-C in the terminal is not for it.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let child = command
            .spawn()
            .with_context(|| format!("could not start {command:?}"))?;
        self.children.push(child);
        Ok(())
    }
}

fn folder() -> Result<PathBuf> {
    Ok(dirs::state()?.join("demo"))
}

/// What a demo with `--keep`, or one that was cut off, has left running on this machine.
pub fn kept() -> Result<Vec<Identity>> {
    Ok(process::of_folder(&["trainyard", "git-daemon"], &folder()?))
}

/// Ends it.
pub fn end_kept() -> Result<()> {
    for process in kept()? {
        process.end(Duration::from_secs(5));
    }
    Ok(())
}

fn on_cluster(arguments: &Arguments, step: &mut Step, cluster: &Cluster) -> Result<(String, f64)> {
    let folder = folder()?;
    end_kept()?;
    sh::remove(&folder)?;
    sh::make_dir(&folder)?;
    let mut stage = Stage {
        cluster,
        folder,
        children: Vec::new(),
        keep: arguments.keep,
    };

    step.begin("the image");
    let image = image::build(cluster)?;
    cluster::publish(cluster, Some("python"))?;

    step.begin("a ClearML-compatible server");
    let server = start_server(&mut stage)?;

    step.begin("the controller, by helm");
    install(&mut stage, &image, &server)?;

    step.begin("a QueueBinding");
    bind(&stage)?;

    step.begin("a git repository with uncommitted changes");
    let clone = repository(&mut stage)?;

    step.begin("enqueue the experiment with the SDK");
    tools::sdk_python()?;
    let enqueued = Instant::now();
    let task = enqueue(&stage, &clone, arguments.epochs)?;
    println!("      task {task}");

    step.begin("follow its log");
    let status = follow(&server, &task, enqueued)?;
    let seconds = enqueued.elapsed().as_secs_f64();
    if status != "completed" {
        bail!("the task ended as {status}; see {}", server.url());
    }
    show(&stage, &server, &task, arguments.keep);
    Ok((task, seconds))
}

fn free_port(host: IpAddr) -> Result<u16> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?.port())
}

fn start_server(stage: &mut Stage) -> Result<Server> {
    let host = stage.cluster.gateway;
    let port = free_port(host)?;
    let url = format!("http://{host}:{port}");
    let conf = stage.folder.join("clearml.conf");
    let mut command = Command::new(dirs::repository().join("dist/trainyard"));
    command
        .args([
            "server",
            "--listen",
            &format!("{host}:{port}"),
            "--public-url",
            &url,
            "--data",
        ])
        .arg(stage.folder.join("server"))
        .arg("--write-conf")
        .arg(&conf);
    stage.start(command, "server.log")?;
    sh::wait_for("the server to answer", Duration::from_secs(20), || {
        Ok(conf.exists() && Server::from_conf(&conf).is_ok_and(|server| server.is_up()))
    })?;
    let server = Server::from_conf(&conf)?;
    server.call("queues.create", &json!({"name": QUEUE}))?;
    println!("      {url}, keys in {}", conf.display());
    Ok(server)
}

fn install(stage: &mut Stage, image: &str, server: &Server) -> Result<()> {
    stage.clear();
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    stage.apply(&namespace)?;
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "clearml-credentials"},
        "stringData": {"access_key": server.access_key(), "secret_key": server.secret_key()},
    }))?;
    let (repository, tag) = image.rsplit_once(':').context("the image has no tag")?;
    let values = json!({
        "image": {"repository": repository, "tag": tag},
        "server": {"apiUrl": server.url(), "webUrl": server.url(), "filesUrl": server.files_url(),
                   "credentialsSecretRef": {"name": "clearml-credentials"}},
    });
    let file = stage.folder.join("values.json");
    sh::write(&file, values.to_string())?;
    let chart = dirs::repository().join("charts/trainyard");
    sh::run(
        stage
            .helm(&["upgrade", "--install", "trainyard"])
            .arg(chart)
            .arg("--values")
            .arg(file)
            .args(["--wait", "--timeout", "120s"]),
    )
}

fn bind(stage: &Stage) -> Result<()> {
    let cluster = stage.cluster;
    let environment = match cluster.index_url.as_str() {
        "" => json!({}),
        url => json!({"indexUrl": url}),
    };
    // Only the node of the local cluster is known to offer any.
    let resources = if cluster.is_ours() {
        json!({"limits": {"nvidia.com/gpu": 1}})
    } else {
        json!({})
    };
    stage.apply(&json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "QueueBinding", "metadata": {"name": QUEUE},
        "spec": {
            "queues": [{"name": QUEUE}],
            "limits": {"maxConcurrent": 4},
            "environment": environment,
            "template": {"spec": {"containers": [{
                "name": "task", "image": cluster.task_image, "resources": resources,
            }]}},
        },
    }))?;
    sh::run(&mut stage.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "queuebinding",
        QUEUE,
    ]))
}

/// A repository that pods reach, a clone of it, and in the clone a change that is not committed.
fn repository(stage: &mut Stage) -> Result<PathBuf> {
    let host = stage.cluster.gateway;
    let port = free_port(host)?;
    let base = stage.folder.join("git");
    let bare = base.join("digits.git");
    sh::make_dir(&bare)?;
    let clone = stage.folder.join("digits");
    git(
        &bare,
        &["init", "--quiet", "--bare", "--initial-branch=main"],
    )?;
    git(
        &stage.folder,
        &["clone", "--quiet", &bare.display().to_string(), "digits"],
    )?;
    let script = fs::read_to_string(dirs::repository().join("examples/digits/train.py"))?;
    sh::write(clone.join("train.py"), &script)?;
    git(&clone, &["add", "."])?;
    git(
        &clone,
        &["commit", "--quiet", "--message", "Train on the digits"],
    )?;
    git(&clone, &["push", "--quiet", "origin", "HEAD:main"])?;
    git(
        &clone,
        &[
            "remote",
            "set-url",
            "origin",
            &format!("git://{host}:{port}/digits.git"),
        ],
    )?;
    let changed = script.replace(
        "print(f\"done:",
        "print(\"this line is an uncommitted change\")\n    print(f\"done:",
    );
    sh::write(clone.join("train.py"), changed)?;

    // The daemon itself: `git daemon` is a parent that would be killed without its child.
    let folder = sh::output(sh::command("git").arg("--exec-path"))?;
    let mut daemon = Command::new(Path::new(&folder).join("git-daemon"));
    daemon.arg(format!("--base-path={}", base.display())).args([
        "--export-all",
        "--reuseaddr",
        &format!("--listen={host}"),
        &format!("--port={port}"),
    ]);
    stage.start(daemon, "git.log")?;
    Ok(clone)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    sh::run(
        sh::command("git")
            .args([
                "-c",
                "user.name=Researcher",
                "-c",
                "user.email=researcher@example.org",
            ])
            .args(arguments)
            .current_dir(folder),
    )
}

fn enqueue(stage: &Stage, clone: &Path, epochs: u32) -> Result<String> {
    // The SDK forks while its threads run and can stand still for ever in the child; this setting forbids the fork.
    let conf = stage.folder.join("clearml.conf");
    let settings = fs::read_to_string(&conf)?;
    sh::write(
        &conf,
        settings + "\nsdk.development.report_use_subprocess: false\n",
    )?;
    let said = sh::output(
        Command::new("timeout")
            .arg("120")
            .arg(tools::sdk_python()?)
            .args([
                "train.py",
                "--queue",
                QUEUE,
                "--epochs",
                &epochs.to_string(),
            ])
            .current_dir(clone)
            .env("CLEARML_CONFIG_FILE", stage.folder.join("clearml.conf")),
    )?;
    said.lines()
        .find_map(|line| line.strip_prefix("task "))
        .map(str::to_owned)
        .context("the SDK did not tell the task's id")
}

/// Prints each line of the log as it arrives, and what the task waits for meanwhile; gives the final status.
fn follow(server: &Server, task: &str, since: Instant) -> Result<String> {
    let mut printed = 0;
    let mut last = String::new();
    loop {
        let (status, message) = server.status(task)?;
        let said = if message.is_empty() {
            status.clone()
        } else {
            format!("{status}: {}", message.lines().next().unwrap_or_default())
        };
        if said != last {
            println!("      {:6.1} s  {said}", since.elapsed().as_secs_f64());
            last = said;
        }
        let lines = server.log(task)?;
        for line in lines.iter().skip(printed) {
            println!("      {:6.1} s  │ {line}", since.elapsed().as_secs_f64());
        }
        printed = lines.len().max(printed);
        if ["completed", "failed", "stopped"].contains(&status.as_str()) {
            return Ok(status);
        }
        if since.elapsed() > Duration::from_secs(600) {
            bail!("the task is still {status} after 10 minutes");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn show(stage: &Stage, server: &Server, task: &str, keep: bool) {
    println!();
    if let Ok(scalars) = server.last_scalars(task) {
        for (name, value) in scalars {
            println!("      {name}: {value:.4}");
        }
    }
    println!("      server: {}", server.url());
    let kubectl = format!(
        "KUBECONFIG={} {} -n {NAMESPACE}",
        stage.cluster.kubeconfig.display(),
        stage.cluster.bin.join("kubectl").display()
    );
    if keep {
        println!("      look around:");
    } else {
        println!("      with --keep all of this stays, to look around:");
    }
    for what in [
        "get queuebinding",
        "describe queuebinding gpu",
        "get jobs,pods --show-labels",
        "get events",
    ] {
        println!("        {kubectl} {what}");
    }
    println!();
}
