//! Workers and their machines.

use serde_json::json;

use super::world::Page;

#[test]
fn workers_show_what_they_run_and_how_busy_their_machines_are() {
    let page = Page::open();
    let task = page.task_in("on the gpu", "in_progress");
    let queue = page.call("queues.get_default", json!({}))["id"].clone();
    let now = page.js("return Date.now()").as_i64().unwrap();
    for (worker, task) in [("yard:gpu0", Some(&task)), ("yard:cpu", None)] {
        page.call(
            "workers.register",
            json!({"worker": worker, "queues": [queue]}),
        );
        for step in 0..30_i64 {
            let mut report = json!({"worker": worker, "timestamp": now - (30 - step) * 60_000, "machine_stats": {
                "cpu_usage": [20.0 + f64::from(i32::try_from(step).unwrap())], "memory_used": 4096.0, "memory_free": 8192.0, "network_rx": 1.5, "network_tx": 0.5}});
            if let Some(task) = task {
                report["task"] = json!(task);
                report["queue"] = queue.clone();
                report["machine_stats"]["gpu_usage"] = json!([90.0, 10.0]);
                report["machine_stats"]["gpu_memory_used"] = json!([20480.0, 1024.0]);
            }
            page.call("workers.status_report", report);
        }
    }
    page.at("workers");
    page.read("2 workers, 1 busy");
    page.read("on the gpu");
    page.read("idle");
    for title in ["CPU", "GPU", "Memory", "GPU memory", "Network"] {
        page.wait(
            &format!("a curve of {title}"),
            "return document.querySelector(`[aria-label=\"${arguments[0]}\"] path.line[d*=L]`) !== null",
            &[json!(title)],
        );
    }
    assert_eq!(
        page.js("return document.querySelectorAll('[aria-label=\"CPU\"] path.line').length"),
        2
    );
    page.keep("workers");

    page.press_button("yard:gpu0");
    page.read("show all");
    page.wait(
        "used and free memory of one worker",
        "return document.querySelectorAll('[aria-label=\"Memory\"] path.line[d^=M]').length === 2",
        &[],
    );
    page.press_button("6 hours");
    page.wait(
        "the range in the address",
        "return location.hash.includes('range=6h')",
        &[],
    );
    page.press_button("show all");
    page.read("All workers");
    let range = |name: &str, wanted: &str| {
        page.press_button(name);
        page.wait(
            wanted,
            "return location.hash.includes(arguments[0])",
            &[json!(wanted)],
        );
    };
    range("1 day", "range=1d");
    range("7 days", "range=7d");
    range("1 hour", "range=1h");
    page.press_button("on the gpu");
    page.reads(".title h1", "on the gpu");
    page.no_errors();
}
