//! Stories of models, and of the projects that hold them and tasks.

use serde_json::{Value, json};

use super::facts::{Ask, is, is_gone};
use super::lane::{Lane, id};
use super::tasks::by_lines;

/// All that is said about a model until it goes.
pub async fn draft(lane: &mut Lane) -> Option<()> {
    let name = lane.name("model");
    let named = Ask::named("models.get_all", &name);
    let new = json!({"name": name, "uri": "s3://bucket/new", "tags": ["a"]});
    let facts = vec![
        is(&named, "models/*name", json!([name])),
        is(&named, "models/*uri", json!(["s3://bucket/new"])),
    ];
    let model = id(&lane.write("models.create", new, facts).await?);
    let about = Ask::model(&model);

    let facts = vec![is(&about, "model/comment", "edited")];
    let ask = json!({"model": model, "comment": "edited"});
    lane.write("models.edit", ask, facts).await?;
    let task = lane.task().await?;
    let ask = json!({"model": model, "task": task, "iteration": 5, "framework": "pytorch"});
    let facts = vec![
        is(&about, "model/task", task.clone()),
        is(&about, "model/framework", "pytorch"),
        is(&Ask::task(&task), "task/last_iteration", 5),
    ];
    lane.write("models.update", ask, facts).await?;
    let ask = json!({"model": model, "metadata": [{"key": "k", "type": "str", "value": "v"}]});
    let facts = vec![is(&about, "model/metadata/k/value", "v")];
    lane.write("models.add_or_update_metadata", ask, facts)
        .await?;
    let facts = vec![is(&about, "model/metadata/k/value", Value::Null)];
    let ask = json!({"model": model, "keys": ["k"]});
    lane.write("models.delete_metadata", ask, facts).await?;

    let log = json!({"task": model, "model_events": true, "navigate_earlier": false});
    let log = Ask::call("events.get_task_log", log);
    let line = json!({"type": "log", "task": model, "model_event": true, "msg": "said"});
    let facts = vec![is(&log, "events/*msg", json!(["said"]))];
    let request = by_lines(lane, "events.add_batch", line.to_string());
    lane.also_send("events.add_batch", request, facts).await?;
    let facts = vec![is(&log, "events/*msg", json!([]))];
    lane.write("events.delete_for_model", json!({"model": model}), facts)
        .await?;

    together(lane, &model).await?;

    let facts = vec![
        is_gone(&about),
        is_gone(&log),
        is(&named, "models/*name", json!([])),
        is(&named, "models/*uri", json!([])),
    ];
    lane.write("models.delete", json!({"model": model}), facts)
        .await?;
    Some(())
}

/// A model with the tag `a`, and another one.
async fn together(lane: &mut Lane, model: &str) -> Option<()> {
    let other = lane.model().await?;
    let (about, about_other) = (Ask::model(model), Ask::model(&other));
    let ids = json!({"ids": [model, other]});
    let ask = json!({"ids": [model, other], "add_tags": ["x"]});
    let facts = vec![
        is(&about, "model/tags", json!(["a", "x"])),
        is(&about_other, "model/tags", json!(["x"])),
    ];
    lane.write("models.update_tags", ask, facts).await?;
    for (call, tags) in [
        ("models.archive_many", json!(["archived"])),
        ("models.unarchive_many", json!([])),
    ] {
        let facts = vec![
            is(&about, "model/system_tags", tags.clone()),
            is(&about_other, "model/system_tags", tags),
        ];
        lane.write(call, ids.clone(), facts).await?;
    }
    Some(())
}

/// Models that are published, one with the task that made it.
pub async fn published(lane: &mut Lane) -> Option<()> {
    let task = lane.task().await?;
    for call in ["tasks.started", "tasks.completed"] {
        lane.also(call, json!({"task": task}), Vec::new()).await?;
    }
    let name = lane.name("model");
    let new = json!({"name": name, "uri": "s3://bucket/model", "task": task});
    let model = lane.made("models.create", new).await?;
    let facts = vec![
        is(&Ask::model(&model), "model/ready", true),
        is(&Ask::task(&task), "task/status", "published"),
    ];
    lane.write("models.set_ready", json!({"model": model}), facts)
        .await?;

    let others = [lane.model().await?, lane.model().await?];
    let about = others.each_ref().map(|model| Ask::model(model));
    let facts = about.iter().map(|model| is(model, "model/ready", true));
    let facts = facts.collect();
    lane.write("models.publish_many", json!({"ids": others}), facts)
        .await?;
    let facts = about.iter().map(is_gone).collect();
    let ask = json!({"ids": others, "force": true});
    lane.write("models.delete_many", ask, facts).await?;
    Some(())
}

/// A project with one below it, in which a task and a model lie.
pub async fn project(lane: &mut Lane) -> Option<()> {
    let (first, then, other) = (
        lane.name("project"),
        lane.name("project"),
        lane.name("project"),
    );
    let named = |name: &str| Ask::named("projects.get_all", name);
    let below = |name: &str| format!("{name}/below");
    let (top, sub) = (named(&first), named(&below(&first)));
    let facts = vec![
        is(&top, "projects/*name", json!([first])),
        is(&sub, "projects/*name", json!([below(&first)])),
    ];
    let new = json!({"name": below(&first)});
    let lower = id(&lane.write("projects.create", new, facts).await?);
    let upper = lane.read(&top, "projects/*id").await?;
    let upper = upper[0].as_str().expect("an id").to_owned();
    let (about_upper, about_lower) = (Ask::project(&upper), Ask::project(&lower));

    let ask = json!({"project": upper, "name": then, "description": "renamed"});
    let facts = vec![
        is(&about_upper, "project/name", then.clone()),
        is(&about_upper, "project/description", "renamed"),
        is(&about_lower, "project/name", below(&then)),
        is(&top, "projects/*name", json!([])),
        is(&sub, "projects/*name", json!([])),
    ];
    lane.write("projects.update", ask, facts).await?;

    let (task, model) = (lane.task().await?, lane.model().await?);
    let (about_task, about_model) = (Ask::task(&task), Ask::model(&model));
    let lie_in = |project: Value| {
        [
            is(&about_task, "task/project", project.clone()),
            is(&about_model, "model/project", project),
        ]
    };
    let [of_task, of_model] = lie_in(json!(lower));
    let ask = json!({"ids": [task], "project": lower});
    lane.write("tasks.move", ask, vec![of_task]).await?;
    let ask = json!({"ids": [model], "project": lower});
    lane.write("models.move", ask, vec![of_model]).await?;

    let ask = json!({"project": lower, "new_location": other});
    let facts = vec![
        is(&about_lower, "project/name", below(&other)),
        is(&named(&other), "projects/*name", json!([other])),
    ];
    lane.write("projects.move", ask, facts).await?;
    let mut facts = lie_in(json!(upper)).to_vec();
    facts.push(is_gone(&about_lower));
    let ask = json!({"project": lower, "destination_project": upper});
    lane.write("projects.merge", ask, facts).await?;
    let mut facts = lie_in(Value::Null).to_vec();
    facts.push(is_gone(&about_upper));
    let ask = json!({"project": upper, "force": true});
    lane.write("projects.delete", ask, facts).await?;
    Some(())
}
