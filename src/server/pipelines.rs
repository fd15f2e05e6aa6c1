//! The `pipelines` service: runs of a pipeline are its controller, copied, and the steps below it.

use serde_json::{Value, json};

use super::call::{Call, required, wrong};
use super::rules::Ask;
use super::tasks::{clone, remove, status};
use super::wire::{Answer, Doc, Refusal};
use super::{doc, projects, query, tasks};

/// `pipelines.start_pipeline`: a copy of the controller with these arguments goes into a queue.
pub(crate) fn start_pipeline(call: &Call) -> Answer {
    let queue = call.text("queue")?;
    let arguments = arguments(call)?;
    let (mut run, _) = clone::copy(call)?;
    if !arguments.is_empty() {
        doc::object_at(doc::object_at(&mut run, "hyperparams"), "Args").extend(arguments);
    }
    number(call, &mut run)?;
    let id = run["id"].clone();
    let ask = Ask {
        message: "Starting pipeline".into(),
        ..Ask::default()
    };
    let queued = status::into_queue(call, run, queue, &ask)?;
    let mut answer = json!({"pipeline": id, "enqueued": true});
    if let Some(watched) = queued.get("queue_watched") {
        answer["queue_watched"] = watched.clone();
    }
    Ok(answer)
}

/// What goes into the section `Args`.
fn arguments(call: &Call) -> Result<Doc, Refusal> {
    let mut arguments = Doc::new();
    if call.value("args").is_none() {
        return Ok(arguments);
    }
    for item in call.objects("args")? {
        let (name, value) = (text(item, "name")?, text(item, "value")?);
        let item = json!({"section": "Args", "name": name, "value": value});
        arguments.insert(name.to_owned(), item);
    }
    Ok(arguments)
}

fn text<'d>(item: &'d Doc, key: &str) -> Result<&'d str, Refusal> {
    match item.get(key) {
        None | Some(Value::Null) => Err(required(key)),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong(key, "a string")),
    }
}

/// Names a run after its project, and numbers it among the runs that are there, itself counted with the name of what
/// it is a copy of.
fn number(call: &Call, run: &mut Doc) -> Result<(), Refusal> {
    let id = doc::text(run, "project").to_owned();
    let Some(project) = projects::find(call.db, &id)? else {
        return Ok(());
    };
    let pipeline = doc::text(&project, "name");
    let pipeline = pipeline.rsplit('/').next().unwrap_or(pipeline);
    let sql = "SELECT name FROM tasks WHERE project = ?1
                 AND EXISTS (SELECT 1 FROM json_each(doc, '$.system_tags') WHERE value = 'pipeline')";
    let mut statement = call.db.prepare_cached(sql)?;
    let names = statement
        .query_map([&id], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    let count = names.iter().filter(|name| is_run(name, pipeline)).count();
    let name = if count > 0 {
        format!("{pipeline} #{count}")
    } else {
        pipeline.to_owned()
    };
    run.insert("name".into(), name.into());
    Ok(())
}

/// Whether a name ends with the pipeline's, or with that and a number.
fn is_run(name: &str, pipeline: &str) -> bool {
    let without_number = name
        .rsplit_once(" #")
        .filter(|(_, number)| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
        .map_or(name, |(before, _)| before);
    name.ends_with(pipeline) || without_number.ends_with(pipeline)
}

/// `pipelines.delete_runs`: controllers of a project with all their steps; one run has to stay.
pub(crate) fn delete_runs(call: &Call) -> Answer {
    let project = call.text("project")?;
    let ids = call.texts_required("ids")?;
    let sql =
        "SELECT doc FROM tasks WHERE project = ?1 AND type = 'controller' ORDER BY created, id";
    let mut runs = query::documents(call.db, sql, project)?;
    let all = runs.len();
    runs.retain(|run| ids.contains(&doc::text(run, "id")));
    if runs.len() == all {
        let text = format!("At least one pipeline run should be left: project={project}");
        return Err(Refusal::bad(160, text));
    }
    let mut succeeded = Vec::new();
    for run in &runs {
        // One that was a step of another went with it.
        if tasks::find(call.db, doc::text(run, "id"))?.is_none() {
            continue;
        }
        let mut answer = remove::delete_run(call, run)?;
        answer.insert("id".into(), run["id"].clone());
        succeeded.push(answer);
    }
    Ok(json!({"succeeded": succeeded, "failed": []}))
}

#[cfg(test)]
mod tests {
    use super::is_run;

    #[test]
    fn runs_are_known_by_their_names() {
        for name in ["train", "train #1", "train #12", "old train #3"] {
            assert!(is_run(name, "train"), "{name}");
        }
        for name in ["train #", "train #a", "train 2", "trained", "#1"] {
            assert!(!is_run(name, "train"), "{name}");
        }
        assert!(is_run("round #3", "round #3") && is_run("round #3 #2", "round #3"));
    }
}
