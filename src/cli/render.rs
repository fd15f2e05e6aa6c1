//! `trainyard render`: the Job that a binding would make of a task.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{ask, controller, print_error, print_text};
use crate::controller as program;
use crate::crd::QueueBinding;
use crate::render;

/// Which binding, and which task.
#[derive(Debug, Args)]
// Its name would be that of the flags it takes over.
#[group(skip)]
pub(super) struct Flags {
    /// File with a QueueBinding as YAML or JSON, or the name of one in the cluster.
    #[arg(long, value_name = "FILE|NAME")]
    binding: String,
    /// Id of a task, or a file with its document as JSON: then neither server nor cluster is asked.
    #[arg(long, value_name = "ID|FILE")]
    task: String,
    /// Form of the Job.
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
    /// Print each field of the Job with its value and where it comes from, instead of the Job.
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    controller: controller::Flags,
}

/// Form of the Job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    #[default]
    Yaml,
    Json,
}

/// Prints the Job; what there is to say about it goes to standard error.
pub(super) fn main(flags: Flags) -> ExitCode {
    let (form, origin) = (flags.output, flags.origin);
    match run(flags) {
        Ok(preview) => {
            for note in &preview.notes {
                super::print_note(note);
            }
            print_text(&text(&preview, form, origin))
        }
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The Job, or its fields with their origins.
fn text(preview: &program::Preview, form: Form, origin: bool) -> String {
    match (form, origin) {
        (Form::Yaml, false) => serde_saphyr::to_string(&preview.job).unwrap_or_default(),
        (Form::Json, false) => format!("{:#}\n", preview.job),
        (Form::Yaml, true) => {
            let lines: Vec<String> = preview.fields.iter().map(ToString::to_string).collect();
            lines.join("\n") + "\n"
        }
        (Form::Json, true) => {
            let told = |field: &render::Field| json!({ "path": field.path, "value": field.value, "origin": field.origin.as_str() });
            let fields: Vec<Value> = preview.fields.iter().map(told).collect();
            format!("{:#}\n", json!(fields))
        }
    }
}

fn run(flags: Flags) -> Result<program::Preview, String> {
    let Flags {
        binding,
        task,
        output: _,
        origin: _,
        controller,
    } = flags;
    let settings = controller::settings_for_a_question(controller)?;
    let given = read_binding(&binding)?;
    if let Some(document) = read(&task)? {
        let Some(given) = given else {
            return Err(format!(
                "{binding:?} is no file; with a file for --task, --binding has to be one too"
            ));
        };
        return program::preview_offline(settings, &given, &document)
            .map_err(|error| error.to_string());
    }
    let id = task
        .parse()
        .map_err(|_| format!("{task:?} is neither a file nor the id of a task"))?;
    let which = given.map_or(program::Which::Name(binding), |given| {
        program::Which::Given(Box::new(given))
    });
    ask(program::preview(settings, which, &id))
}

/// The binding that a file holds; nothing if there is none of this name.
pub(super) fn read_binding(path: &str) -> Result<Option<QueueBinding>, String> {
    read(path)?
        .map(|value| {
            serde_path_to_error::deserialize::<_, QueueBinding>(value)
                .map_err(|error| format!("{path:?} holds no QueueBinding: {error}"))
        })
        .transpose()
}

/// The content of a file; nothing if there is none of this name.
pub(super) fn read(path: &str) -> Result<Option<Value>, String> {
    if !std::path::Path::new(path).is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("could not read {path:?}: {error}"))?;
    render::parse_yaml(&text)
        .map(Some)
        .map_err(|error| format!("{path:?} is not readable: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_the_cluster_reads_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "spec: {defaultMode: 0440}").unwrap();
        let path = file.path().display().to_string();
        let value = read(&path).unwrap().unwrap();
        assert_eq!(value["spec"]["defaultMode"], 288);
        std::fs::write(file.path(), "a: 1\na: 2\n").unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("line") && !error.contains('\n'), "{error}");
        assert_eq!(read("no such file"), Ok(None));
    }
}
