//! Which image a task runs in: the task's own where the binding allows it, else the template's.

use super::template::Template;
use crate::crd::QueueBindingSpec;
use crate::task::Task;

/// The image for `task`, or why it does not get the one that it asks for.
pub(super) fn choose(
    template: &Template,
    spec: &QueueBindingSpec,
    task: &Task,
) -> Result<String, String> {
    let wanted = task.container.image.trim();
    if wanted.is_empty() || wanted == template.image {
        return Ok(template.image.clone());
    }
    if !is_image_name(wanted) {
        return Err(format!("image {wanted:?} is no image name"));
    }
    if spec
        .overrides
        .image
        .allow
        .iter()
        .any(|pattern| matches(pattern, wanted))
    {
        return Ok(wanted.to_owned());
    }
    Err(format!("image {wanted:?} is not allowed here"))
}

/// What is told of a refused image where the task runs in the template's.
pub(super) fn refused_note(refusal: &str, template: &Template) -> String {
    format!(
        "{refusal}; the template's image {:?} is used \
         (hint: the binding's overrides.image.allow lists what a task may ask for)",
        template.image
    )
}

/// Whether `text` could be an image name: one bad word of one task must not make a Job that is refused.
fn is_image_name(text: &str) -> bool {
    text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
}

/// Whether `pattern` matches all of `text`; `*` stands for any characters, also none.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(found) = rest.find(part) else {
            return false;
        };
        rest = &rest[found + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, image, expected) in [
            ("127.0.0.1:5000/*", "127.0.0.1:5000/cuda/runtime:12", true),
            ("127.0.0.1:5000/*", "127.0.0.1:5001/cuda", false),
            ("*", "anything", true),
            ("python:3.*", "python:3.12", true),
            ("python:3.*", "python:3", false),
            ("*/cuda:*-devel", "a/cuda:12-devel", true),
            ("*/cuda:*-devel", "a/cuda:12-runtime", false),
            ("python", "python:3", false),
            ("xy*yx", "xyx", false),
        ] {
            assert_eq!(matches(pattern, image), expected, "{pattern} {image}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_the_regular_expression_means(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let expression = format!("^{}$", pattern.replace('*', ".*"));
            let expected = regex::Regex::new(&expression).unwrap().is_match(&text);
            prop_assert_eq!(matches(&pattern, &text), expected);
        }
    }
}
