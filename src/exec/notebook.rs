//! PURE: a Jupyter notebook -> the Python script that it amounts to.
//!
//! ```text
//! cells of code, in order ──▶ lines ──▶ what only IPython understands becomes a comment ──▶ script, remarks
//! ```
//!
//! The rule is the SDK's own when it records a notebook (clearml 2.1.12, `repo/scriptinfo.py`): lines for IPython
//! (`%magic`, `!command`, `get_ipython()`) are not run. Nothing is left out in silence: the remarks name them.

mod lines;

use std::fmt::Write;

use serde::Deserialize;

use self::lines::Converter;

/// Largest notebook; pictures of earlier runs make them large.
pub const MAX_NOTEBOOK: u64 = 256 << 20;
/// How many lines that are not run are named one by one.
const NAMED: usize = 5;

/// A notebook as a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    pub script: String,
    /// Remarks for the task's log.
    pub notes: Vec<String>,
}

/// What of the file counts (nbformat 4; 3 has its cells in worksheets).
#[derive(Deserialize)]
struct Notebook {
    #[serde(default)]
    cells: Vec<Cell>,
    #[serde(default)]
    worksheets: Vec<Worksheet>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Worksheet {
    #[serde(default)]
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Cell {
    cell_type: String,
    #[serde(default, alias = "input")]
    source: Source,
}

/// One text, or its lines with their ends.
#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    Text(String),
    Lines(Vec<String>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    kernelspec: Kernel,
    #[serde(default)]
    language_info: Language,
}

#[derive(Default, Deserialize)]
struct Kernel {
    #[serde(default)]
    language: Option<String>,
}

#[derive(Default, Deserialize)]
struct Language {
    #[serde(default)]
    name: Option<String>,
}

/// Turns the text of a notebook into a script; the error is half a sentence.
pub fn convert(text: &str) -> Result<Converted, String> {
    let notebook: Notebook =
        serde_json::from_str(text).map_err(|error| format!("it is no notebook: {error}"))?;
    let language = notebook
        .metadata
        .kernelspec
        .language
        .or(notebook.metadata.language_info.name);
    if let Some(language) = language.filter(|name| !is_python(name)) {
        return Err(format!(
            "its cells are written in {language}, not in Python"
        ));
    }
    let cells = notebook.cells.into_iter().chain(
        notebook
            .worksheets
            .into_iter()
            .flat_map(|sheet| sheet.cells),
    );
    let mut script = String::from("# -*- coding: utf-8 -*-\n");
    let mut left_out = Vec::new();
    let mut count = 0;
    for (number, cell) in (1..).zip(cells) {
        if cell.cell_type != "code" {
            continue;
        }
        count += 1;
        let source = match cell.source {
            Source::Text(text) => text,
            Source::Lines(lines) => lines.concat(),
        };
        let _ = writeln!(script, "\n# cell {number}");
        let mut converter = Converter::default();
        script.push_str(&converter.convert(&source));
        left_out.extend(converter.left_out.into_iter().map(|line| (number, line)));
    }
    if count == 0 {
        return Err("it has no cell of code".to_owned());
    }
    Ok(Converted {
        script,
        notes: notes(&left_out),
    })
}

fn is_python(language: &str) -> bool {
    let language = language.to_ascii_lowercase();
    language.is_empty() || language.starts_with("python") || language == "ipython"
}

fn notes(left_out: &[(usize, String)]) -> Vec<String> {
    let mut notes: Vec<String> = left_out
        .iter()
        .take(NAMED)
        .map(|(cell, line)| {
            let line: String = line.chars().take(120).collect();
            format!("not run, as it is meant for IPython: {line} (cell {cell} of the notebook)")
        })
        .collect();
    if left_out.len() > NAMED {
        let more = left_out.len() - NAMED;
        notes.push(format!(
            "{more} more lines of the notebook are meant for IPython and not run"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(cells: &[&str]) -> Converted {
        let cells: Vec<_> = cells
            .iter()
            .map(|source| json!({"cell_type": "code", "source": source}))
            .collect();
        convert(&json!({"nbformat": 4, "cells": cells}).to_string()).unwrap()
    }

    fn lines(source: &str) -> String {
        let converted = of(&[source]);
        converted
            .script
            .split_once("# cell 1\n")
            .unwrap()
            .1
            .to_owned()
    }

    #[test]
    fn cells_of_code_follow_each_other_and_others_are_left_out() {
        let notebook = json!({"cells": [
            {"cell_type": "markdown", "source": ["# Title"]},
            {"cell_type": "code", "source": ["import os\n", "x = 'ä'"], "outputs": [{"png": "…"}]},
            {"cell_type": "code", "source": "print(x)\n"},
        ], "metadata": {"kernelspec": {"language": "python"}}});
        let converted = convert(&notebook.to_string()).unwrap();
        assert_eq!(
            converted.script,
            "# -*- coding: utf-8 -*-\n\n# cell 2\nimport os\nx = 'ä'\n\n# cell 3\nprint(x)\n"
        );
        assert!(converted.notes.is_empty());
    }

    #[test]
    fn old_notebooks_are_read_too() {
        let notebook = json!({"nbformat": 3, "worksheets": [{"cells": [
            {"cell_type": "code", "input": ["print(1)"], "language": "python"}]}]});
        assert!(
            convert(&notebook.to_string())
                .unwrap()
                .script
                .ends_with("print(1)\n")
        );
    }

    #[test]
    fn what_only_ipython_understands_becomes_a_comment_where_it_stands() {
        assert_eq!(
            lines(
                "%matplotlib inline\nif x:\n    !ls -l\nget_ipython().system('ls')\nprint?\ny = 1"
            ),
            "pass  # %matplotlib inline\nif x:\n    pass  # !ls -l\npass  # get_ipython().system('ls')\n\
             pass  # print?\ny = 1\n"
        );
        assert_eq!(
            lines("files = !ls\nn = %who_ls"),
            "files = None  # !ls\nn = None  # %who_ls\n"
        );
        assert_eq!(
            lines("!pip install \\\n    six\nx = 1"),
            "pass  # !pip install \\\n# six\nx = 1\n"
        );
    }

    #[test]
    fn timing_magics_give_way_to_what_they_time() {
        assert_eq!(lines("%%time\nx = 1\n"), "# %%time\nx = 1\n");
        assert_eq!(lines("%time x = f()\n"), "x = f()\n");
        assert_eq!(
            of(&["%%time\nx = 1\n%time y = 2"]).notes,
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_cell_in_another_language_is_commented_as_a_whole() {
        assert_eq!(lines("%%bash\nls\n\ncd /\n"), "# %%bash\n# ls\n#\n# cd /\n");
        assert_eq!(of(&["%%bash\nls"]).notes.len(), 1);
    }

    #[test]
    fn percent_signs_and_exclamation_marks_inside_of_python_stay() {
        for source in [
            "x = '''\n%matplotlib\n!ls\n'''\n",
            "x = (a\n  % b)\n",
            "y = a \\\n  % b\n",
            "s = 'it''s' # '''\nz = f\"{a!r}\"\n",
            "assert a != b\n",
            "d = {'a': 1,\n# '(' \n'b': 2}\n",
            "what = 'really?'\n",
        ] {
            assert_eq!(lines(source), source);
        }
    }

    #[test]
    fn what_is_not_run_is_told_and_long_lists_are_cut() {
        let converted = of(&["%a\n%b\n%c\n", "!d\n!e\n!f\n!g"]);
        assert_eq!(converted.notes.len(), NAMED + 1);
        assert!(
            converted.notes[3].contains("!d (cell 2"),
            "{:?}",
            converted.notes
        );
        assert!(converted.notes[NAMED].starts_with("2 more lines"));
    }

    #[test]
    fn what_is_no_python_notebook_is_refused() {
        for (text, expected) in [
            ("print(1)", "no notebook"),
            ("{\"cells\": []}", "no cell"),
            (
                r#"{"cells": [], "metadata": {"kernelspec": {"language": "R"}}}"#,
                "written in R",
            ),
        ] {
            let error = convert(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
