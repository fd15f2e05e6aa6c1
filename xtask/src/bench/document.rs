//! `docs/benchmarks.md`: its parts, each of which a run of its own makes anew, and what is said around the tables.

use std::fs;

use super::{EXECUTOR, INCUMBENT, SERVER};

/// Parts of the document that a run of their own makes; each stands between lines of its own, so that every run leaves
/// the others' alone.
pub const PARTS: [&str; 4] = ["controller", EXECUTOR, SERVER, INCUMBENT];

fn marks(part: &str) -> (String, String) {
    (
        format!("<!-- {part} -->\n"),
        format!("<!-- end of {part} -->\n"),
    )
}

/// A part of a document; empty if it is not there.
fn section<'a>(document: &'a str, part: &str) -> &'a str {
    let (begin, end) = marks(part);
    let found = document
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end));
    found.map_or("", |(text, _)| text)
}

/// The document with this text as its part instead of its own.
fn with_section(document: &str, part: &str, text: &str) -> String {
    let (begin, end) = marks(part);
    let (head, tail) = match document.split_once(&begin) {
        Some((head, rest)) => (head, rest.split_once(&end).map_or("", |(_, tail)| tail)),
        None => (document, ""),
    };
    if text.is_empty() {
        return format!("{head}{tail}");
    }
    let gap = if head.ends_with("\n\n") { "" } else { "\n" };
    format!("{head}{gap}{begin}{text}{end}{tail}")
}

/// A part that no bench makes, but a run of all tests: what scenarios took.
const SCENARIOS: &str = "scenarios";

/// A part that is written by hand, and that every run leaves alone: the last outputs of scenarios in their long form.
const LONG_FORMS: &str = "long forms";

/// The document anew with this table, and with the parts that it has had.
pub fn whole(table: &str, before: &str) -> String {
    let parts = PARTS.into_iter().chain([SCENARIOS, LONG_FORMS]);
    parts.fold(document(table), |text, part| {
        with_section(&text, part, section(before, part))
    })
}

/// The document with this table as the part of that name.
pub fn with_part(before: &str, part: &str, table: &str) -> String {
    with_section(before, part, &format!("{}{table}", head(part)))
}

/// The document with this table of what scenarios took in a run of this command, so many tests side by side.
pub fn with_scenarios(before: &str, command: &str, threads: u8, table: &str) -> String {
    let load = if threads == 1 {
        "One scenario ran after the other.".to_owned()
    } else {
        format!(
            "All scenarios ran side by side at that time, on {threads} threads, and beside them what only computes, with the\n\
             least priority: on a machine of its own each takes less."
        )
    };
    let text = format!(
        "## The scenarios\n\n\
         Made by `{command}`, on the cluster of `cargo xtask cluster up`.\n\
         {load}\n\
         {}.\n\n{STATED}{table}",
        machine()
    );
    with_section(before, SCENARIOS, &text)
}

/// What the times of scenarios are held to.
const STATED: &str = "\
Each time is one that a scenario states. It is held if the median keeps it; the tests themselves allow five times of it
or more ([scenarios.md](scenarios.md)).

";

/// Why a part has no incumbent beside ours, where it has none.
fn why_alone(part: &str) -> &'static str {
    match part {
        SERVER => SERVER_ALONE,
        "controller" => CONTROLLER_ALONE,
        _ => "",
    }
}

const SERVER_ALONE: &str = "\
No incumbent stands beside these figures: `clearml-agent` has no server, and the vendor's own, which needs Elasticsearch,
MongoDB and Redis beside it, comes as container images that are not to be had where this is measured.

";

const CONTROLLER_ALONE: &str = "\
No incumbent stands beside these figures: its counterpart is a glue that knows no bindings and makes its pods one after
another, by a `kubectl` each: a thousand tasks at once are not what it is made for. What both do is measured in one run
by `cargo xtask bench incumbent`: from enqueuing to the first line, objects for 200 tasks, memory, requests.

";

/// What a part begins with.
fn head(part: &str) -> String {
    let (title, how) = match part {
        EXECUTOR => (
            "The executor",
            "without a cluster: the programs of a pod's three containers as processes of\n\
             one machine. \"Container start\" is the start of process 1.",
        ),
        "controller" => (
            "The controller",
            "on the cluster of `cargo xtask cluster up`, pods on simulated nodes (kwok).",
        ),
        SERVER => (
            "The server",
            "on one machine: server and clients side by side, data on its disk;\n\
             the page in headless Chromium.",
        ),
        _ => (
            "Beside the incumbent",
            "both controllers on the same cluster, server and image, in turns.",
        ),
    };
    format!(
        "## {title}\n\n\
         Made by `cargo xtask bench {part}`, {how}\n\
         {}.\n\n{}",
        machine(),
        why_alone(part)
    )
}

/// What the figures were taken on, and its load at this moment.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let hardware = hardware(&read("/proc/cpuinfo"), &read("/proc/meminfo"));
    let load = read("/proc/loadavg");
    format!(
        "{cores} shared cores of {hardware},\nLinux {}, load {} at the end",
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

/// Model of the processor and size of the memory, as the kernel tells them.
fn hardware(cpuinfo: &str, meminfo: &str) -> String {
    let model = told(cpuinfo, "model name").unwrap_or("an unknown model");
    let memory = told(meminfo, "MemTotal")
        .and_then(|text| text.strip_suffix(" kB")?.parse::<f64>().ok())
        .map_or("?".to_owned(), |kib| format!("{:.1}", kib / 1_048_576.0));
    format!("{model}, {memory} GiB of memory")
}

/// The first value of this name in a file of lines `name: value`.
fn told<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// What the figures of the incumbent are.
pub const BESIDE: &str = "
Incumbent: `clearml-agent` 3.0.3 in the same run, with the same server, package index, Python and task: its Kubernetes
glue with the real kubectl; its daemon, whose tasks are processes of this machine, beside our pods; and where no pod is
named `clearml-agent execute` beside the three programs of a pod, all as processes of one machine. In its favour it
finds agent, virtualenv, pip and uv ready, where its pods would install git, pip and the agent at every start.
";

fn document(table: &str) -> String {
    let machine = machine();
    format!(
        "# Benchmarks\n\n\
         Made by `cargo xtask bench` on the cluster of `cargo xtask cluster up`:\n\
         {machine}; control plane, node,\n\
         server, controller and tasks are all on them; controller-manager with `--kube-api-qps 1000`,\n\
         `--concurrent-job-syncs` as it comes (5).\n\
         The programs are those of the image (profile `image`: optimised for size, not for speed).\n\n{table}\n\
         \"Container start\" is the start of the container's process 1, read from `/proc` by the script itself. Tests\n\
         assert behaviour only; these figures are kept here. The requests before user code are compared by name and order in\n\
         `tests/it/exec/fence.rs`, too.\n\n\
         These are ours alone. The incumbent stands beside them under \"The executor\" and in what `cargo xtask bench incumbent`\n\
         measures, as far as it has the same; its glue is a process there, so that it has no pod whose start could be told.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_told_as_the_kernel_knows_it() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: Another\n";
        let meminfo = "MemTotal:        8388608 kB\nMemFree:         1000 kB\n";
        assert_eq!(
            hardware(cpuinfo, meminfo),
            "Some CPU @ 2.00GHz, 8.0 GiB of memory"
        );
        assert_eq!(hardware("", ""), "an unknown model, ? GiB of memory");
    }

    #[test]
    fn each_run_leaves_the_others_parts_of_the_document_alone() {
        let one = with_section("# Benchmarks\n", "executor", "old\n");
        let first = with_section(&one, "server", "fast\n");
        assert_eq!(section(&first, "executor"), "old\n");
        let second = with_section(&first, "executor", "new\n");
        assert_eq!(second, first.replace("old", "new"));
        assert_eq!(section(&second, "server"), "fast\n");
        assert_eq!(section(&second, "incumbent"), "");
        assert_eq!(with_section("# Others\n", "server", ""), "# Others\n");
    }

    #[test]
    fn what_has_no_incumbent_says_why() {
        for part in PARTS {
            let text = with_part("", part, "| figure |\n");
            let alone = text.contains("No incumbent stands beside these figures: ");
            assert_eq!(alone, ["controller", SERVER].contains(&part), "{text}");
        }
        assert!(whole("| figure |\n", "").contains("These are ours alone."));
    }

    #[test]
    fn what_scenarios_took_is_a_part_that_tells_command_and_load() {
        let before = with_section("# Benchmarks\n", LONG_FORMS, "by hand\n");
        let once = with_scenarios(&before, "cargo xtask test --figures", 6, "| once |\n");
        for words in [
            "## The scenarios\n",
            "Made by `cargo xtask test --figures`, ",
            "6 threads",
            "shared cores of",
            "| once |\n<!-- end of scenarios -->\n",
        ] {
            assert!(once.contains(words), "{words:?} in {once}");
        }
        let again = with_scenarios(&once, "cargo xtask test --figures", 1, "| again |\n");
        assert!(!again.contains("| once |"), "{again}");
        assert!(
            again.contains("One scenario ran after the other"),
            "{again}"
        );
        for after in [&again, &whole("| a table |\n", &again)] {
            assert!(section(after, SCENARIOS).contains("| again |"), "{after}");
            assert_eq!(section(after, LONG_FORMS), "by hand\n");
        }
    }

    #[test]
    fn what_is_written_by_hand_outlives_every_run() {
        let path = crate::dirs::repository().join("docs/benchmarks.md");
        let before = fs::read_to_string(path).unwrap();
        let by_hand = section(&before, LONG_FORMS);
        for scenario in ["S10", "S31", "S32", "S35"] {
            assert!(by_hand.contains(scenario), "{scenario} in {by_hand:?}");
        }
        let all = whole("| a table |\n", &before);
        assert!(all.contains("| a table |"), "{all}");
        let one = with_section(&all, "controller", "new\n");
        for after in [&all, &one] {
            assert_eq!(section(after, LONG_FORMS), by_hand);
        }
    }
}
