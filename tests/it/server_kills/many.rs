//! The story of two tasks that are always asked for together: of no call one half is carried out.

use serde_json::{Value, json};

use super::facts::{Ask, Fact, is, is_gone, is_not};
use super::lane::Lane;

pub async fn many(lane: &mut Lane) -> Option<()> {
    let tasks = [lane.task().await?, lane.task().await?];
    let about = tasks.each_ref().map(|task| Ask::task(task));
    let both = |fact: &dyn Fn(&Ask) -> Fact| about.iter().map(fact).collect::<Vec<_>>();
    let status = |status: &str| both(&|task| is(task, "task/status", status));
    let completed = || both(&|task| is_not(task, "task/completed", Value::Null));
    let archived = |tags: Value| both(&|task| is(task, "task/system_tags", tags.clone()));
    let ids = json!({"ids": tasks});

    let queue = lane.queue().await?;
    let entries = |entries: Value| is(&Ask::queue(&queue), "queue/entries/*task", entries);
    let mut facts = status("queued");
    facts.push(entries(json!(tasks)));
    let ask = json!({"ids": tasks, "queue": queue});
    lane.write("tasks.enqueue_many", ask, facts).await?;
    let mut facts = status("created");
    facts.push(entries(json!([])));
    lane.write("tasks.dequeue_many", ids.clone(), facts).await?;

    lane.write("tasks.started_many", ids.clone(), status("in_progress"))
        .await?;
    lane.write("tasks.stop_many", ids.clone(), status("stopped"))
        .await?;
    lane.write("tasks.stopped_many", ids.clone(), completed())
        .await?;
    lane.write("tasks.close_many", ids.clone(), status("closed"))
        .await?;
    lane.write("tasks.failed_many", ids.clone(), status("failed"))
        .await?;
    let mut facts = status("created");
    facts.extend(both(&|task| is(task, "task/completed", Value::Null)));
    lane.write("tasks.reset_many", ids.clone(), facts).await?;

    lane.also("tasks.started_many", ids.clone(), status("in_progress"))
        .await?;
    let mut facts = status("completed");
    facts.extend(completed());
    lane.write("tasks.completed_many", ids.clone(), facts)
        .await?;
    lane.write("tasks.publish_many", ids.clone(), status("published"))
        .await?;
    lane.write(
        "tasks.archive_many",
        ids.clone(),
        archived(json!(["archived"])),
    )
    .await?;
    lane.write("tasks.unarchive_many", ids, archived(json!([])))
        .await?;
    let ask = json!({"ids": tasks, "force": true});
    let facts = both(&is_gone);
    lane.write("tasks.delete_many", ask, facts).await?;
    Some(())
}
