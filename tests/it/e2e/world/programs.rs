//! Server and controller of a world: started, asked how they are, ended.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Proc, World, wait};
use crate::git::servers::free_port;

/// How the chart sets the memory allocator of a controller.
pub const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

impl World {
    pub fn start_server(&mut self) {
        let (_, listen) = self.url.split_once("//").expect("url has a scheme");
        let conf = self.dir.path().join("clearml.conf");
        let mut command = Command::new(&self.program);
        command
            .args([
                "server",
                "--listen",
                listen,
                "--public-url",
                &self.url,
                "--data",
            ])
            .arg(self.dir.path().join("server"))
            .arg("--write-conf")
            .arg(&conf);
        let mut proc = Proc::start(&mut command, &self.dir.path().join("server.log"));
        wait("the server answers", 30, || {
            assert!(!proc.has_ended(), "the server ended: {}", proc.log());
            (conf.exists() && TcpStream::connect(listen).is_ok()).then_some(())
        });
        self.server = Some(proc);
        let text = fs::read_to_string(&conf).expect("clearml.conf is readable");
        let value = |key: &str| {
            let at = text
                .find(key)
                .unwrap_or_else(|| panic!("{key} in clearml.conf"));
            // The name itself is quoted too: its value is what the next pair of quotes holds.
            text[at + key.len()..]
                .split('"')
                .find(|part| part.len() > 8)
                .map(str::to_owned)
        };
        self.key = value("access_key").expect("access_key is quoted");
        self.secret = value("secret_key").expect("secret_key is quoted");
    }

    pub fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    pub fn start_controller(&mut self) {
        self.probes = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let log = self.dir.path().join("controller.log");
        let mut command = self.controller_command(&self.probes);
        self.controller = Some(Proc::start(&mut command, &log));
    }

    /// Another replica under a name of its own; it ends with its value.
    pub fn replica(&self, identity: &str) -> Proc {
        let mut command = self.controller_command("127.0.0.1:0");
        command.env("TRAINYARD_IDENTITY", identity);
        Proc::start(
            &mut command,
            &self.dir.path().join(format!("{identity}.log")),
        )
    }

    fn controller_command(&self, probes: &str) -> Command {
        let mut command = self.command(&["controller"]);
        command
            .env("TRAINYARD_LISTEN", probes)
            .env("CLEARML_API_HOST", &self.url)
            .env("CLEARML_API_ACCESS_KEY", &self.key)
            .env("CLEARML_API_SECRET_KEY", &self.secret)
            .envs(ALLOCATOR)
            .envs(self.environment.iter().cloned());
        command
    }

    /// A command of ours as an administrator runs it: with a kubeconfig, on no controller's behalf.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("KUBECONFIG", &self.place.kubeconfig)
            .env("TRAINYARD_NAMESPACE", &self.namespace)
            .env("TRAINYARD_IMAGE", &self.place.image);
        command
    }

    /// What the controller answers to a GET on its port of probes: the status, and the text.
    pub fn probe(&self, path: &str) -> (u16, String) {
        self.fetch(&format!("http://{}{path}", self.probes))
    }

    /// What is answered to a GET: the status, and the text; 0 where nobody answers.
    pub fn fetch(&self, url: &str) -> (u16, String) {
        self.runtime.block_on(async {
            match self.http.get(url).send().await {
                Ok(answer) => (
                    answer.status().as_u16(),
                    answer.text().await.unwrap_or_default(),
                ),
                Err(error) => (0, error.to_string()),
            }
        })
    }

    /// The sum of a metric's series that carry all of these words, such as `binding="ns/gpu"`.
    pub fn metric(&self, name: &str, words: &[&str]) -> f64 {
        let (status, text) = self.probe("/metrics");
        assert_eq!(status, 200, "{text}");
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && words.iter().all(|word| line.contains(word))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// SIGTERM, and how long it took to end.
    pub fn terminate_controller(&mut self) -> Duration {
        let mut controller = self.controller.take().expect("the controller runs");
        let begun = Instant::now();
        controller.terminate();
        wait("the controller ends on SIGTERM", 60, || {
            controller.has_ended().then_some(())
        });
        begun.elapsed()
    }

    pub fn kill_controller(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            controller.kill();
        }
    }

    pub fn controller(&mut self) -> &mut Proc {
        self.controller.as_mut().expect("the controller runs")
    }
}
