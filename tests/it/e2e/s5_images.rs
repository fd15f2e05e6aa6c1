//! S5: the executor starts in images that were not made for it, and leaves them as they are: no root, no writable root,
//! and one each without Python, without shell, without glibc, without anything but one program.
//!
//! The binary comes by the copying init container. Image volumes need a newer containerd than this cluster's.

use std::time::Duration;

use serde_json::json;

use super::world::World;

/// Five times the second that a start may take.
const START: Duration = Duration::from_secs(5);

/// How long the container is up, for a shell with nothing but `cat`.
const SINCE: &str =
    "read up rest < /proc/uptime\nset -- $(cat /proc/1/stat)\necho SINCE $up ${22}\n";
/// The same for Python.
const SINCE_PYTHON: &str = "up = open('/proc/uptime').read().split()[0]\n\
    print('SINCE', up, open('/proc/1/stat').read().split()[21])\n";

/// An image, what runs the task in it, the task's own part, and what it prints.
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
        source: "ls /lib64 || echo no loader\n",
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
        source: "musl\nls /lib64 || echo no glibc\n",
        printed: &["from musl", "no glibc"],
    },
    Kind {
        image: "distroless",
        binary: "python3",
        source: "import os\nprint('shell', os.path.exists('/bin/sh'), 'git', os.path.exists('/usr/bin/git'))\n",
        printed: &["shell False git False"],
    },
];

/// Seconds from the start of process 1 to the line that [`SINCE`] prints.
fn since_start(log: &[String]) -> Option<f64> {
    let numbers = log.iter().find_map(|line| line.strip_prefix("SINCE "))?;
    let (up, start) = numbers.split_once(' ')?;
    Some(up.parse::<f64>().ok()? - start.parse::<f64>().ok()? / 100.0)
}

#[test]
fn s5_a_task_runs_in_images_without_python_shell_glibc_or_root() {
    let world = World::with_binding("s5");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"environment": {"manager": "none"},
                "overrides": {"image": {"allow": [format!("{}/*", world.place.registry)]}},
                "template": {"spec": {
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 12345, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{"name": "task", "image": format!("{}/bare:1", world.place.registry), "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}],
                }}}),
    );
    world.until_ready("gpu");
    let tasks = KINDS.map(|kind| {
        let since = if kind.binary == "sh" {
            SINCE
        } else {
            SINCE_PYTHON
        };
        let entry_point = if kind.binary == "sh" {
            "job.sh"
        } else {
            "job.py"
        };
        let task = world.create(
            kind.image,
            &(since.to_owned() + kind.source),
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
        let log = world.log(&task);
        for line in kind.printed {
            assert!(
                log.iter().any(|found| found == line),
                "{line} in image {}: {log:#?}",
                kind.image
            );
        }
        let since = since_start(&log).unwrap_or_else(|| panic!("SINCE in {log:#?}"));
        println!("{}: container start to first line {since:.2} s", kind.image);
        assert!(
            since < START.as_secs_f64(),
            "{since} s in image {}",
            kind.image
        );
    }
}

#[test]
fn s5_no_root_and_no_writable_root_are_needed_where_packages_are_installed() {
    let world = World::with_binding("restricted");
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
            "securityContext": {"runAsNonRoot": true, "runAsUser": 12345, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "task", "image": world.place.task_image, "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}],
        }}}),
    );
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
    let log = world.log(&task);
    assert!(log.iter().any(|line| line == "uid 12345"), "{log:#?}");
}
