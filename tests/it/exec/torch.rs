//! S4, PyTorch itself: the real one from the index that this machine's pip is set to, on this machine's Python.
//!
//! `TRAINYARD_TORCH` is the requirement (`torch`). `python` tries the choice among builds with small stand-ins.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use super::pod::Pod;
use super::server::Server;
use crate::clock::now;
use crate::times;

/// Seconds in which so much is downloaded and unpacked; a third of what is waited for.
const LONG: u64 = 1200;
/// The stated figure, in seconds: the start in an environment that is there; five times of it are allowed.
const WARM: f64 = 2.0;
const AT_ONCE: f64 = WARM * 5.0;

const SCRIPT: &str = "import time
open('at', 'w').write(repr(time.time()))
import torch
x = torch.linspace(0, 5, 6).reshape(2, 3)
print('product', (x @ x.T).sum().item())
print('BUILD', torch.__version__, torch.version.cuda)
";

/// A task that has run.
struct Ran {
    log: String,
    /// What the server has as its packages.
    packages: String,
    /// Seconds from the start of process 1 to the script.
    waited: f64,
}

impl Ran {
    /// What the executor says of PyTorch.
    fn told(&self) -> &str {
        let mut lines = self.log.lines();
        lines
            .find_map(|line| line.strip_prefix("trainyard: PyTorch: "))
            .unwrap_or_else(|| panic!("nothing is told of PyTorch: {}", self.log))
    }

    /// Version and CUDA version of what was imported.
    fn build(&self) -> &str {
        let mut lines = self.log.lines();
        lines
            .find_map(|line| line.strip_prefix("BUILD "))
            .unwrap_or_else(|| panic!("no build is printed: {}", self.log))
    }
}

fn run(server: &Server, cache: &Path) -> Ran {
    let torch = std::env::var("TRAINYARD_TORCH").unwrap_or_else(|_| "torch".to_owned());
    let script = json!({
        "binary": "python3", "entry_point": "script.py", "working_dir": ".", "diff": SCRIPT,
        "requirements": {"pip": format!("{torch}\nnumpy\n")},
    });
    let task = server.task("torch", &script);
    let mut pod = Pod::parked(server, &task);
    pod.set("TRAINYARD_ENVIRONMENT_MANAGER", "auto");
    pod.set("UV_HTTP_TIMEOUT", "300");
    fs::create_dir_all(pod.path("root")).unwrap();
    std::os::unix::fs::symlink(cache, pod.path("root/cache")).unwrap();
    pod.prepare();
    pod.bring_uv();
    let mut uplink = pod.uplink();
    let begun = now();
    let code = pod.start().end(LONG);
    uplink.signal(Signal::SIGTERM);
    assert_eq!(uplink.end(60), 0, "{}", pod.stream("uplink.stderr"));
    let log = server.log(&task);
    assert_eq!(code, 0, "{log}");
    let at: f64 = pod.stream("root/code/at").parse().unwrap();
    Ran {
        log,
        packages: server.get(&task)["script"]["requirements"]["pip"].to_string(),
        waited: at - begun,
    }
}

#[test]
#[ignore = "long form: PyTorch itself, gigabytes from the index at hand"]
fn s4_pytorch_itself_is_installed_told_and_found_at_once() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let first = run(&server, cache.path());
    println!("first after {:.1} s: {}", first.waited, first.told());
    assert!(first.log.contains("\nproduct 83.0\n"), "{}", first.log);
    assert!(first.packages.contains("torch=="), "{}", first.packages);
    // Which build it is, and what this machine has that speaks for it.
    let told = first.told();
    assert!(told.contains("torch"), "{told}");
    assert!(
        told.contains("no GPU here (") || told.contains("CUDA "),
        "{told}"
    );
    if told.contains("the build for the CPU") {
        assert!(first.build().ends_with(" None"), "{}", first.build());
    }

    let second = run(&server, cache.path());
    println!("second: {}", second.told());
    times::told(
        "S42",
        "start in an environment of PyTorch that is there",
        second.waited,
        WARM,
    );
    assert!(
        second
            .log
            .contains("trainyard: the Python environment is in the cache\n"),
        "{}",
        second.log
    );
    assert!(second.waited < AT_ONCE, "{} s", second.waited);
    assert_eq!(second.build(), first.build());
    // Wheels of PyPI name their CUDA version to who imports them, not to who lists them.
    let version = first.build().split(['+', ' ']).next().unwrap();
    assert!(second.told().contains(version), "{}", second.told());
}
