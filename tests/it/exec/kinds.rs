//! What a task's code may be: notebook, what Jupyter has recorded, module, shell script.

use serde_json::{Value, json};

use super::pod::Pod;
use super::server::Server;

/// Runs a stand-alone task to its end: exit code, log, and the task's own lines of it.
fn run(script: &Value) -> (i32, String, String) {
    let server = Server::start();
    let task = server.task("kind", script);
    let pod = Pod::parked(&server, &task);
    let code = pod.run();
    (code, server.log(&task), server.output(&task))
}

#[test]
fn a_notebook_runs_as_a_script_and_says_what_it_leaves_out() {
    let notebook = json!({"nbformat": 4, "cells": [
        {"cell_type": "markdown", "source": "# Notes"},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "import sys\n", "x = 'ä'"]},
        {"cell_type": "code", "source": "print(x, sys.argv[1:])\nif x:\n    !ls\n"},
    ]});
    let script = json!({"binary": "python3", "entry_point": "train.ipynb --lr 1", "diff": notebook.to_string()});
    let (code, log, output) = run(&script);
    assert_eq!(code, 0, "{log}");
    assert_eq!(output, "ä ['--lr', '1']\n");
    assert!(
        log.contains("trainyard: not run, as it is meant for IPython: %matplotlib inline (cell 2"),
        "{log}"
    );
    assert!(
        log.contains("trainyard: not run, as it is meant for IPython: !ls (cell 3"),
        "{log}"
    );
}

#[test]
fn a_notebook_that_is_not_python_fails_with_one_sentence() {
    let notebook = json!({"cells": [{"cell_type": "code", "source": "1"}], "metadata": {"language_info": {"name": "julia"}}});
    let script =
        json!({"binary": "python3", "entry_point": "train.ipynb", "diff": notebook.to_string()});
    let (code, log, output) = run(&script);
    assert_eq!((code, output.as_str()), (212, ""));
    assert!(
        log.contains("the notebook train.ipynb cannot be run: its cells are written in julia"),
        "{log}"
    );
}

#[test]
fn what_jupyter_has_recorded_runs_under_the_notebooks_name() {
    let captured = "#!/usr/bin/env python\n# coding: utf-8\n\n# In[1]:\n\n# get_ipython().run_line_magic('x', '')\nprint('cell')\n";
    for entry_point in ["notebook.py", "notebook.ipynb"] {
        let script = json!({"binary": "python3", "entry_point": entry_point, "diff": captured});
        let (code, log, output) = run(&script);
        assert_eq!((code, output.as_str()), (0, "cell\n"), "{log}");
    }
}

#[test]
fn a_module_a_shell_script_and_a_line_of_code_run() {
    for (script, expected) in [
        (
            json!({"binary": "python3", "entry_point": "-m json.tool --help"}),
            "usage: ",
        ),
        (
            json!({"binary": "bash", "entry_point": "go.sh one", "diff": "echo \"got $1\"\n"}),
            "got one\n",
        ),
        (
            json!({"binary": "/bin/sh", "entry_point": "-c 'echo $((1+1))'"}),
            "2\n",
        ),
    ] {
        let (code, log, output) = run(&script);
        assert_eq!(code, 0, "{log}");
        assert!(output.starts_with(expected), "{log}");
    }
}

#[test]
fn the_images_own_command_runs_in_place_of_the_code_with_the_same_reporting() {
    let server = Server::start();
    // Code that could be neither checked out nor installed.
    let script = json!({"binary": "python3", "repository": "/no/such/repository", "entry_point": "train.py",
        "requirements": {"pip": "no-such-package==1"}});
    let task = server.task("own command", &script);
    let mut pod = Pod::parked(&server, &task);
    let source = "echo \"$1|$2|$CLEARML_TASK_ID|$PYTHONPATH\"\necho wrong >&2\nexit 3";
    let source = source.replace('$', "$$");
    let words = json!(["sh", "-c", source, "sh", "$(OF_IMAGE)", "two words"]);
    pod.set("TRAINYARD_ENTRYPOINT", &words.to_string());
    pod.set("OF_IMAGE", "its own");
    pod.set("PYTHONPATH", "/of/the/image");
    assert_eq!(pod.run(), 3, "{}", server.log(&task));
    assert_eq!(
        server.output(&task),
        format!("its own|two words|{task}|/of/the/image\nwrong\n")
    );
    let after = server.get(&task);
    assert_eq!(after["status"], "failed");
    let message = after["status_message"].as_str().unwrap();
    assert!(message.contains("exit code 3"), "{message}");
    assert_eq!(pod.termination()["exit_code"], 3);
}

#[test]
fn an_own_command_that_is_not_in_the_image_fails_the_task_with_one_sentence() {
    let server = Server::start();
    for (words, sentence) in [
        (
            json!(["/no/such/program"]),
            "the image's command /no/such/program is not in the image",
        ),
        (json!([]), "there is no command to run in place"),
    ] {
        let task = server.task("no command", &json!({}));
        let mut pod = Pod::parked(&server, &task);
        pod.set("TRAINYARD_ENTRYPOINT", &words.to_string());
        assert_eq!(pod.run(), 212, "{}", server.log(&task));
        let after = server.get(&task);
        let message = after["status_message"].as_str().unwrap();
        assert!(message.contains(sentence), "{message}");
    }
}
