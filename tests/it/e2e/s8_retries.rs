//! S8 with `maxFailures`: a task that fails by its own fault is tried again as often as asked, apart from interruptions.

use serde_json::json;

use super::world::World;

#[test]
fn s8_a_task_that_fails_is_tried_again_as_often_as_asked_and_ends_with_its_last_failure() {
    let mut world = World::new("s8retry");
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"lifecycle": {"maxFailures": 1, "maxInterruptions": 0}}),
    );
    let source =
        |word: &str, then: &str| format!("{}import sys\n{then}\n", world.counter.python(word));
    let mends = world.run(
        "mends",
        &source(
            "mends",
            "sys.exit(3 if os.environ['TRAINYARD_ATTEMPT'] == '1' else 0)",
        ),
        "gpu",
    );
    let never = world.run("never", &source("never", "sys.exit(4)"), "gpu");
    let ended = world.until_ended(&mends, 240);
    assert_eq!(ended["status"], "completed", "{:#?}", world.log(&mends));
    let ended = world.until_ended(&never, 120);
    assert_eq!(ended["status"], "failed");
    let message = ended["status_message"].as_str().unwrap_or_default();
    assert!(message.contains("exit code 4"), "{message}");
    for (task, code) in [(&mends, 3), (&never, 4)] {
        let runs = world.counter.lines();
        let runs = runs.iter().filter(|line| line.ends_with(task.as_str()));
        assert_eq!(runs.count(), 2, "two runs of {task}");
        let told = format!("exit code {code}; it is tried again");
        let log = world.log(task);
        let times = log.iter().filter(|line| line.contains(&told)).count();
        assert_eq!(times, 1, "{told}: {log:#?}");
        world.has_written(task, "");
        let notes = world.job_of_attempt(task, 2)["metadata"]["annotations"].clone();
        assert_eq!(notes["trainyard.dev/failures"], "1", "{notes}");
        assert!(notes["trainyard.dev/requeues"].is_null(), "{notes}");
    }
}
