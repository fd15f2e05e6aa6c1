//! S5: the executor starts in images that were not made for it, and leaves them as they are: no root, no writable root,
//! and one each without Python, without shell, without glibc, without anything but one program.
//!
//! The binary comes by the copying init container. Image volumes need a newer containerd than this cluster's.

use std::time::Duration;

use rand::Rng;
use serde_json::json;

use super::world::{PATIENCE, World};
use crate::times;

/// The stated figure: the code begins so soon after the start of its container; five times of it are allowed, and so many
/// times as long where others use the machine too.
const START: Duration = Duration::from_secs(1);

/// How long the container is up, for a shell with nothing but `cat`.
const SINCE: &str =
    "read up rest < /proc/uptime\nset -- $(cat /proc/1/stat)\necho SINCE $up ${22}\n";
/// The same for Python.
const SINCE_PYTHON: &str = "up = open('/proc/uptime').read().split()[0]\n\
    print('SINCE', up, open('/proc/1/stat').read().split()[21])\n";

/// What each of them writes at its end: bytes that are easily lost or changed on their way, to both streams.
const WRITES: &str = r"printf '\303\251\342\202\254 \033[1mbold\033[0m\n'
printf '10%%\r 50%%\r100%%\n'
printf 'windows\r\n'
printf 'broken \377 byte\n'
printf 'to stderr\n' >&2
printf '\nno end'
";
/// The same for Python.
const WRITES_PYTHON: &str = r"
import os, sys
sys.stdout.flush()
os.write(1, b'\xc3\xa9\xe2\x82\xac \x1b[1mbold\x1b[0m\n')
os.write(1, b'10%\r 50%\r100%\n')
os.write(1, b'windows\r\n')
os.write(1, b'broken \xff byte\n')
os.write(2, b'to stderr\n')
os.write(1, b'\nno end')
";
/// That after the rule for carriage returns, as UTF-8.
const WRITTEN: &str = "\u{e9}\u{20ac} \u{1b}[1mbold\u{1b}[0m\n100%\nwindows\nbroken \u{fffd} byte\nto stderr\n\nno end";

/// An image, what runs the task in it, the task's own part, and all the lines that it prints.
struct Kind {
    image: &'static str,
    binary: &'static str,
    source: &'static str,
    printed: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind {
        image: "bare",
        binary: "sh",
        source: "ls /lib64 2> /dev/null || echo no loader\n",
        printed: &["no loader"],
    },
    Kind {
        image: "debian",
        binary: "sh",
        source: "command -v python3 || echo no python\ncommand -v git || echo no git\n",
        printed: &["no python", "no git"],
    },
    Kind {
        image: "musl",
        binary: "sh",
        source: "musl\nls /lib64 2> /dev/null || echo no glibc\n",
        printed: &["from musl", "no glibc"],
    },
    Kind {
        image: "distroless",
        binary: "python3",
        source: "import os\nprint('shell', os.path.exists('/bin/sh'), 'git', os.path.exists('/usr/bin/git'))\n",
        printed: &["shell False git False"],
    },
];

/// Seconds from the start of process 1 to this line, which [`SINCE`] prints.
fn since_start(line: &str) -> Option<f64> {
    let (up, start) = line.strip_prefix("SINCE ")?.split_once(' ')?;
    Some(up.parse::<f64>().ok()? - start.parse::<f64>().ok()? / 100.0)
}

/// A user that no image knows, as some clusters give one to each namespace.
fn random_uid() -> u32 {
    rand::rng().random_range(10_000..2_000_000_000)
}

#[test]
fn s5_a_task_runs_in_images_without_python_shell_glibc_or_root() {
    let world = World::with_binding("s5");
    let uid = random_uid();
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"environment": {"manager": "none"},
                "overrides": {"image": {"allow": [format!("{}/*", world.place.registry)]}},
                "template": {"spec": {
                    "securityContext": {"runAsNonRoot": true, "runAsUser": uid, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{"name": "task", "image": format!("{}/bare:1", world.place.registry), "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}],
                }}}),
    );
    world.until_observed("gpu");
    world.until_ready("gpu");
    let tasks = KINDS.map(|kind| {
        let (entry_point, since, writes) = if kind.binary == "sh" {
            ("job.sh", SINCE, WRITES)
        } else {
            ("job.py", SINCE_PYTHON, WRITES_PYTHON)
        };
        let task = world.create(
            kind.image,
            &[since, kind.source, writes].concat(),
            &json!({"script": {"binary": kind.binary, "entry_point": entry_point},
                    "container": {"image": format!("{}/{}:1", world.place.registry, kind.image)}}),
        );
        world.enqueue(&task, "gpu");
        (kind, task)
    });
    for (kind, task) in tasks {
        let ended = world.until_ended(&task, 120);
        if ended["status"] != "completed" {
            world.tell(&task);
        }
        assert_eq!(ended["status"], "completed", "in image {}", kind.image);
        let output = world.output(&task);
        let since = output
            .lines()
            .next()
            .and_then(since_start)
            .unwrap_or_else(|| panic!("SINCE begins {output:?}"));
        let (_, rest) = output.split_once('\n').expect("a first line");
        let wanted: String = kind
            .printed
            .iter()
            .flat_map(|line| [*line, "\n"])
            .chain([WRITTEN])
            .collect();
        assert_eq!(rest, wanted, "byte for byte in image {}", kind.image);
        times::told(
            "S5",
            "container start to first line",
            since,
            START.as_secs_f64(),
        );
        assert!(
            since < (START * 5 * PATIENCE).as_secs_f64(),
            "{since} s in image {}",
            kind.image
        );
    }
}

#[test]
fn s5_no_root_and_no_writable_root_are_needed_where_packages_are_installed() {
    let world = World::with_binding("restricted");
    let uid = random_uid();
    world.kubectl(&[
        "label",
        "namespace",
        &world.namespace,
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"template": {"spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": uid, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "task", "image": world.place.task_image, "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}],
        }}}),
    );
    world.until_observed("gpu");
    world.until_ready("gpu");
    let task = world.create(
        "restricted",
        "import os, six\nprint('uid', os.getuid())\nopen('here.txt', 'w').write('x')\nprint(six.__name__)\n",
        &json!({"script": {"requirements": {"pip": "six\n"}}}),
    );
    world.enqueue(&task, "gpu");
    let ended = world.until_ended(&task, 120);
    if ended["status"] != "completed" {
        world.tell(&task);
    }
    assert_eq!(ended["status"], "completed");
    assert_eq!(world.output(&task), format!("uid {uid}\nsix\n"));
}
