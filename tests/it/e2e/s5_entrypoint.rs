//! S5: with `useEntrypoint` a queue runs the image's own command instead of the task's code, with the same reporting.

use serde_json::{Value, json};

use super::s45_image_check::digest;
use super::world::{World, merge, wait};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Prints its arguments and what it finds, complains, and fails.
const ENTRYPOINT: &str = "for word in \"$@\"; do echo \"argument $word\"; done\n\
    echo \"$CLEARML_TASK_ID in $PWD with $OF_IMAGE\"\necho complaint >&2\nexit 3\n";

/// What a registry has there.
async fn read(http: &reqwest::Client, address: &str) -> Value {
    let request = http.get(address).header("accept", MANIFEST);
    let answer = request.send().await.expect("the registry answers");
    let text = answer.text().await.expect("a body");
    serde_json::from_str(&text).expect("JSON")
}

/// An image of the layers of `bare` with settings of its own, in the cluster's registry; named after what is in it.
pub(super) fn image_with(world: &World, settings: &Value) -> String {
    let registry = &world.place.registry;
    let base = format!("http://{registry}/v2/bare");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let http = reqwest::Client::new();
        let mut manifest = read(&http, &format!("{base}/manifests/1")).await;
        let known = manifest["config"]["digest"].as_str().expect("a digest");
        let mut config = read(&http, &format!("{base}/blobs/{known}")).await;
        config["config"] = settings.clone();
        let config = config.to_string();
        let digest = digest(&config);
        manifest["config"]["digest"] = json!(digest);
        manifest["config"]["size"] = json!(config.len());

        let begun = http.post(format!("{base}/blobs/uploads/")).send().await;
        let begun = begun.expect("upload begins");
        let place = begun.headers()["location"].to_str().expect("a location");
        let separator = if place.contains('?') { '&' } else { '?' };
        let address = format!("{place}{separator}digest={digest}");
        let done = http.put(address).body(config).send().await;
        assert_eq!(done.expect("blob is sent").status(), 201);
        let tag = format!("own-{}", &digest["sha256:".len()..][..12]);
        let pushed = http
            .put(format!("{base}/manifests/{tag}"))
            .header("content-type", MANIFEST)
            .body(manifest.to_string())
            .send()
            .await;
        assert_eq!(pushed.expect("manifest is sent").status(), 201);
        format!("{registry}/bare:{tag}")
    })
}

/// A container of the template with this image and these fields.
fn template(image: &str, fields: &Value) -> Value {
    let mut container = json!({"name": "task", "image": image});
    merge(&mut container, fields);
    json!({"spec": {"containers": [container]}})
}

/// A task whose code can be neither checked out nor installed.
fn task(world: &World, name: &str, queue: &str) -> String {
    let script = json!({"repository": "http://127.0.0.1:1/none.git", "diff": "", "requirements": {"pip": "none==1\n"}});
    let task = world.create(name, "", &json!({"script": script}));
    world.enqueue(&task, queue);
    task
}

/// A world with a controller and these queues, none of them bound.
fn world(name: &str, queues: &[&str]) -> World {
    let mut world = World::new(name);
    world.start_controller();
    for queue in queues {
        world.queue(queue);
    }
    world
}

#[test]
fn s5_the_images_own_command_runs_with_the_same_reporting() {
    let world = world("s5own", &["own", "args"]);
    let image = image_with(
        &world,
        &json!({
            "Entrypoint": ["sh", "-c", ENTRYPOINT, "entrypoint"], "Cmd": ["one", "$(HOME) two"],
            "Env": ["PATH=/bin", "OF_IMAGE=its variable"], "WorkingDir": "/tmp",
        }),
    );
    let args = json!({"args": ["$(OF_TEMPLATE)"], "workingDir": "/", "env": [{"name": "OF_TEMPLATE", "value": "three"}]});
    world.bind(
        "own",
        &[],
        &json!({
            "template": template(&image, &json!({})),
            "queues": [
                {"name": "own", "useEntrypoint": true},
                {"name": "args", "useEntrypoint": true, "templatePatch": template(&image, &args)},
            ],
        }),
    );
    world.until_ready("own");
    let tasks = [task(&world, "own", "own"), task(&world, "args", "args")];
    let expected = [
        ("argument one\nargument $(HOME) two\n", "/tmp"),
        ("argument three\n", "/"),
    ];
    for (task, (arguments, folder)) in tasks.iter().zip(expected) {
        let ended = world.until_ended(task, 120);
        if ended["status"] != "failed" {
            world.tell(task);
        }
        assert_eq!(ended["status"], "failed");
        let message = ended["status_message"].as_str().unwrap_or_default();
        assert!(message.contains("exit code 3"), "{message}");
        let written = format!("{arguments}{task} in {folder} with its variable\ncomplaint\n");
        world.has_written(task, &written);
        let job = wait("the end is settled", 30, || {
            let job = world.job_of(task);
            let settled = job["metadata"]["labels"]["trainyard.dev/state"] == "settled";
            settled.then_some(job)
        });
        let notes = &job["metadata"]["annotations"];
        assert_eq!(notes["trainyard.dev/exit-code"], "3");
    }
}

#[test]
fn s5_a_task_waits_for_a_command_that_cannot_be_read_and_fails_where_there_is_none() {
    let world = world("s5none", &["down", "none"]);
    let image = image_with(&world, &json!({"Env": ["PATH=/bin"]}));
    world.bind(
        "own",
        &[],
        &json!({
            "template": template("127.0.0.1:1/down:1", &json!({})),
            "queues": [
                {"name": "down", "useEntrypoint": true},
                {"name": "none", "useEntrypoint": true, "templatePatch": template(&image, &json!({}))},
            ],
        }),
    );
    let waits = task(&world, "down", "down");
    let fails = task(&world, "none", "none");
    let ended = world.until_ended(&fails, 60);
    let message = ended["status_message"].as_str().unwrap_or_default();
    assert_eq!(ended["status"], "failed", "{message}");
    let sentence = format!(
        "image {image} has neither ENTRYPOINT nor CMD, and the template gives no command (useEntrypoint)"
    );
    assert!(message.contains(&sentence), "{message}");
    assert!(world.job_of(&fails).is_null(), "no Job was made");

    let condition = wait("the binding says why the other one waits", 60, || {
        let condition = world.condition("own", "CapacityAvailable");
        (condition["reason"] == "ImageCommandUnknown").then_some(condition)
    });
    let told = condition["message"].as_str().unwrap_or_default();
    assert!(
        told.contains("what image 127.0.0.1:1/down:1 runs by itself (useEntrypoint) is not known"),
        "{told}"
    );
    assert_eq!(world.entries("down"), std::slice::from_ref(&waits));
    assert!(world.job_of(&waits).is_null(), "no Job was made");
    assert_eq!(world.status(&waits), "queued");

    // Whoever asks hears the same.
    let output = |args: &[&str]| {
        let output = world.command(args).output().expect("the command runs");
        let streams = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&streams).into_owned()
    };
    let explained = output(&["explain", "task", &waits]);
    assert!(explained.contains("is not known"), "{explained}");
    let rendered = output(&["render", "--binding", "own", "--task", &waits]);
    assert!(
        rendered.contains("is not known, and the task waits for that"),
        "{rendered}"
    );
}

#[test]
fn s5_render_shows_the_images_own_command() {
    let world = world("s5render", &["own"]);
    let image = image_with(
        &world,
        &json!({"Entrypoint": ["/bin/echo"], "Cmd": ["shown"]}),
    );
    world.bind(
        "own",
        &[],
        &json!({"suspend": true, "template": template(&image, &json!({})),
                "queues": [{"name": "own", "useEntrypoint": true}]}),
    );
    let task = task(&world, "shown", "own");
    let args = ["render", "--binding", "own", "--task", &task, "--origin"];
    let output = world.command(&args).output().expect("the command runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = r#"containers[task].env[TRAINYARD_ENTRYPOINT].value = "[\"/bin/echo\",\"shown\"]"  # trainyard"#;
    assert!(told.lines().any(|known| known.ends_with(line)), "{told}");
}
