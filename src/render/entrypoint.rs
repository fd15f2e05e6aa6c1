//! What a task's container runs where its queue has `useEntrypoint`: the image's own command, joined with `command` and
//! `args` of the template as Kubernetes joins them.

use serde_json::Value;

use super::fields::items;

/// What runs in the task's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs<'a> {
    /// The task's code.
    Code,
    /// The image's own command; nothing where that is not known.
    Image(Option<OwnCommand<'a>>),
}

/// What an image runs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnCommand<'a> {
    pub entrypoint: &'a [String],
    pub cmd: &'a [String],
}

impl Runs<'_> {
    /// The argument list that runs in this container instead of the task's code, with references to variables; nothing
    /// where it is the code, and where the image has to be asked first.
    pub(super) fn argv(self, container: &Value) -> Option<Vec<String>> {
        let Self::Image(own) = self else {
            return None;
        };
        let (command, args) = (texts(container, "command"), texts(container, "args"));
        if !command.is_empty() {
            return Some([command, args].concat());
        }
        let own = own?;
        let cmd = if args.is_empty() {
            literal(own.cmd)
        } else {
            args
        };
        Some([literal(own.entrypoint), cmd].concat())
    }
}

/// Kubernetes replaces references in what a template says, never in what an image says.
fn literal(words: &[String]) -> Vec<String> {
    words.iter().map(|word| word.replace('$', "$$")).collect()
}

fn texts(container: &Value, field: &str) -> Vec<String> {
    items(container, &[field])
        .iter()
        .filter_map(|word| Some(word.as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn command_replaces_both_and_args_the_images_arguments() {
        let (entrypoint, cmd) = (["/run".to_owned()], ["$(A)".to_owned(), "b c".to_owned()]);
        let own = OwnCommand {
            entrypoint: &entrypoint,
            cmd: &cmd,
        };
        for (container, expected) in [
            (json!({}), vec!["/run", "$$(A)", "b c"]),
            (
                json!({ "command": [], "args": [] }),
                vec!["/run", "$$(A)", "b c"],
            ),
            (json!({ "args": ["$(B)"] }), vec!["/run", "$(B)"]),
            (json!({ "command": ["/other"] }), vec!["/other"]),
            (
                json!({ "command": ["/other"], "args": ["x"] }),
                vec!["/other", "x"],
            ),
        ] {
            let argv = Runs::Image(Some(own)).argv(&container);
            assert_eq!(argv.unwrap(), expected, "{container}");
        }
    }

    #[test]
    fn only_a_command_of_the_template_needs_no_image() {
        let unknown = |container: Value| Runs::Image(None).argv(&container);
        assert_eq!(unknown(json!({ "args": ["x"] })), None);
        assert_eq!(
            unknown(json!({ "command": ["/other"] })),
            Some(vec!["/other".to_owned()])
        );
        assert_eq!(Runs::Code.argv(&json!({ "command": ["/other"] })), None);
    }
}
