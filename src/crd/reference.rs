//! `docs/queuebinding.md`: every field of a binding, from the schema that the API server has too.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::crd;

const HEADER: &str = "# QueueBinding\n\n\
    Generated from `src/crd`; do not edit. A `QueueBinding` says which ClearML queues are run as Jobs in its namespace, \
    by which pod template and within which limits. Only `spec.queues` must be given. A field that is set and not \
    honoured by the installed version is told by an Event of the binding.\n";

/// What a table cannot say: which task goes next, and what a single task may ask for.
const PROSE: &str = include_str!("prose.md");

/// The reference of all fields, in Markdown.
pub fn reference() -> String {
    let mut text = HEADER.to_owned();
    for version in crd().spec.versions {
        let root = version.schema.and_then(|schema| schema.open_api_v3_schema);
        for part in ["spec", "status"] {
            let fields = root
                .as_ref()
                .and_then(|root| root.properties.as_ref()?.get(part));
            if let Some(fields) = fields {
                let _ = write!(
                    text,
                    "\n## {part}\n\n| field | type | meaning |\n|---|---|---|\n"
                );
                rows(part, fields, &mut text);
            }
        }
    }
    text.push_str(PROSE);
    text
}

fn rows(path: &str, schema: &JSONSchemaProps, text: &mut String) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let meaning = field
            .description
            .as_deref()
            .unwrap_or_default()
            .replace('\n', " ")
            .replace('|', "\\|");
        let _ = writeln!(text, "| `{path}` | {} | {meaning} |", type_of(field));
        rows(&path, field, text);
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &field.items {
            rows(&format!("{path}[]"), items, text);
        }
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    if let Some(words) = &field.enum_ {
        let words: Vec<String> = words
            .iter()
            .filter_map(|word| Some(word.0.as_str()?.to_owned()))
            .collect();
        return words.join(", ");
    }
    match (
        field.type_.as_deref(),
        &field.items,
        &field.additional_properties,
    ) {
        (Some("array"), Some(JSONSchemaPropsOrArray::Schema(items)), _) => {
            format!("list of {}", type_of(items))
        }
        (Some("object"), _, Some(JSONSchemaPropsOrBool::Schema(values))) => {
            format!("map to {}", type_of(values))
        }
        (Some(name), ..) => name.to_owned(),
        (None, ..) => "number or text".to_owned(),
    }
}
