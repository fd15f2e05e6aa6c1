//! List filters and their operators (§1.13). Pure.

use serde_json::Value;

use super::super::wire::Refusal;

/// The items of a list filter: what must be there (one of them, or all), and what must not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) all: bool,
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
}

impl Terms {
    /// Items with their operators; a leading `-` excludes, `null` stands for "not set".
    pub(super) fn read(items: &[Value]) -> Result<Self, Refusal> {
        let mut terms = Terms::default();
        let mut negate = false;
        for item in items {
            let text = match item {
                Value::Null => "",
                Value::String(text) => text,
                _ => return Err(Refusal::bad(16, format!("Invalid field value: {item}"))),
            };
            match text {
                "__$not" => negate = true,
                "__$and" | "__$all" => terms.all = true,
                "__$or" | "__$any" => terms.all = false,
                _ if text.starts_with("__$") => {
                    return Err(Refusal::bad(16, format!("Unknown list operator: {text}")));
                }
                _ => {
                    let (text, excluded) = text
                        .strip_prefix('-')
                        .map_or((text, false), |text| (text, true));
                    let to = if excluded || negate {
                        &mut terms.exclude
                    } else {
                        &mut terms.include
                    };
                    to.push(text.to_owned());
                    negate = false;
                }
            }
        }
        Ok(terms)
    }

    pub(super) fn holds(&self, have: &[&str]) -> bool {
        let is_there =
            |term: &String| have.contains(&term.as_str()) || (term.is_empty() && have.is_empty());
        let included = match (self.include.is_empty(), self.all) {
            (true, _) => true,
            (false, true) => self.include.iter().all(is_there),
            (false, false) => self.include.iter().any(is_there),
        };
        included && !self.exclude.iter().any(is_there)
    }

    /// A plain choice of values, which a column can answer.
    pub(super) fn is_plain(&self) -> bool {
        !self.all && self.exclude.is_empty() && !self.include.iter().any(String::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(items: &Value, have: &[&str]) -> bool {
        Terms::read(items.as_array().unwrap()).unwrap().holds(have)
    }

    #[test]
    fn list_items_are_alternatives_unless_all_is_said() {
        assert!(holds(&json!(["a", "b"]), &["b"]));
        assert!(!holds(&json!(["__$all", "a", "b"]), &["b"]));
        assert!(holds(&json!(["__$all", "a", "b"]), &["b", "a", "c"]));
    }

    #[test]
    fn a_minus_or_a_not_excludes() {
        assert!(!holds(&json!(["a", "-b"]), &["a", "b"]));
        assert!(holds(&json!(["-b"]), &["a"]));
        assert!(!holds(&json!(["a", "__$not", "b", "c"]), &["a", "b"]));
        assert!(holds(&json!(["a", "__$not", "b", "c"]), &["c"]));
        assert!(holds(&json!([null]), &[]) && !holds(&json!([null]), &["p"]));
        assert_eq!(Terms::read(&[json!("__$odd")]).unwrap_err().subcode, 16);
    }
}
