use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::render::fields::items;

/// What is granted of `arguments` where `overrides` hold, on a template's pod.
fn read_on(pod: &Value, overrides: &Value, arguments: &str) -> (Wishes, Vec<String>) {
    let overrides: OverridesSpec = serde_json::from_value(overrides.clone()).unwrap();
    let container = items(pod, &["containers"])
        .first()
        .cloned()
        .unwrap_or(json!({}));
    let reader = Reader {
        overrides: &overrides,
        pod,
        container: &container,
    };
    let (mut wishes, mut notes) = (Wishes::default(), Notes::default());
    reader.read(arguments, &mut wishes, &mut notes);
    (wishes, notes.into_lines())
}

fn read_with(flags: &[&str], arguments: &str) -> (Wishes, Vec<String>) {
    read_on(
        &json!({}),
        &json!({ "containerArguments": flags }),
        arguments,
    )
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

#[test]
fn every_spelling_of_env_is_understood() {
    let spellings = "-e A=1 -eB=2 --env C=3 --env=D=x=y -e 'E=two words' --env \"F=\"";
    let (wishes, notes) = read_with(&["env"], spellings);
    let expected = [
        ("A", "1"),
        ("B", "2"),
        ("C", "3"),
        ("D", "x=y"),
        ("E", "two words"),
        ("F", ""),
    ];
    assert_eq!(
        wishes.env,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn shm_size_is_read_as_docker_reads_it() {
    for (typed, size) in [
        ("8g", 8 << 30),
        ("512M", 512 << 20),
        ("64kb", 64 << 10),
        ("1024", 1024),
        ("1.5g", 3 << 29),
    ] {
        let (wishes, _) = read_with(&["shm-size"], &format!("--shm-size={typed}"));
        assert_eq!(wishes.shm_size, Some(size));
    }
    assert_eq!(as_quantity(8 << 30), "8Gi");
    assert_eq!(read_with(&["shm-size"], "--shm-size lots").1.len(), 1);
}

#[test]
fn what_is_not_allowed_is_refused_by_name_and_without_its_value() {
    let (wishes, notes) = read_with(
        &[],
        "-e TOKEN=canary --shm-size 8g --privileged -v /canary:/x --cpus 4 --ulimit memlock=-1",
    );
    assert_eq!(wishes, Wishes::default());
    let flags: Vec<&str> = notes
        .iter()
        .map(|note| note.split(' ').nth(2).unwrap())
        .collect();
    assert_eq!(
        flags,
        [
            "--env",
            "--shm-size",
            "--privileged",
            "--volume",
            "--cpus",
            "--ulimit"
        ]
    );
    assert!(!notes.concat().contains("canary"), "{notes:?}");
}

#[test]
fn allowed_and_without_counterpart_is_told_apart() {
    let (_, notes) = read_with(&["ulimit"], "--ulimit memlock=-1");
    assert_eq!(
        notes,
        ["container argument --ulimit is not honoured: a pod has nothing like it"]
    );
}

#[test]
fn what_every_pod_does_is_not_worth_a_word() {
    let (wishes, notes) = read_with(&[], "--rm -it --init --privileged=false");
    assert_eq!((wishes, notes), (Wishes::default(), vec![]));
}

#[test]
fn amounts_need_the_flag_and_the_maximum() {
    let all = ["cpus", "memory", "gpus"];
    let overrides = json!({ "containerArguments": all, "resources": { "max": { "cpu": 8, "nvidia.com/gpu": 4 } } });
    let (wishes, notes) = read_on(&json!({}), &overrides, "--cpus 1.5 -m 32g --gpus 2");
    let amounts: Vec<String> = wishes
        .resources
        .iter()
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    assert_eq!(amounts, ["cpu=1500m", "nvidia.com/gpu=2"]);
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].starts_with("container argument --memory is refused: memory may not be asked for"),
        "{notes:?}"
    );
}

#[test]
fn gpus_are_counted_as_the_template_names_them() {
    let pod = json!({ "containers": [{ "resources": { "limits": { "amd.com/gpu": 1 } } }] });
    let overrides =
        json!({ "containerArguments": ["gpus"], "resources": { "max": { "amd.com/gpu": 4 } } });
    let (wishes, notes) = read_on(&pod, &overrides, r#"--gpus '"device=0,1"'"#);
    assert_eq!(wishes.resources["amd.com/gpu"], Quantity::whole(2));
    assert!(
        notes[0].contains("cannot choose among the GPUs"),
        "{notes:?}"
    );
    let (wishes, notes) = read_on(&pod, &overrides, "--gpus count=3,capabilities=compute");
    assert_eq!(
        (wishes.resources["amd.com/gpu"], notes),
        (Quantity::whole(3), vec![])
    );
    // All that the template gives is what the pod has anyway.
    assert_eq!(
        read_on(&pod, &overrides, "--gpus all"),
        (Wishes::default(), vec![])
    );
    assert_eq!(
        read_on(
            &json!({}),
            &json!({ "containerArguments": ["gpus"] }),
            "--gpus all"
        )
        .1,
        [
            "container argument --gpus is not honoured: the template gives no nvidia.com/gpu; ask for a number of them"
        ]
    );
    assert_eq!(read_on(&pod, &overrides, "--gpus some").1.len(), 1);
    assert!(read_on(&pod, &overrides, "--gpus 5").1[0].contains("5 of amd.com/gpu is more than 4"));
}

#[test]
fn namespaces_of_the_host_are_fields_of_the_pod() {
    let (wishes, notes) = read_with(
        &["ipc", "network", "pid"],
        "--ipc=host --net host --pid host",
    );
    let expected = json!({
        "hostIPC": true, "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "hostPID": true,
    });
    assert_eq!((wishes.pod, notes), (object(&expected), vec![]));
    let (wishes, notes) = read_with(&["ipc", "network"], "--ipc private --network container:x");
    assert_eq!(wishes, Wishes::default());
    assert_eq!(notes.len(), 1);
}

#[test]
fn volumes_are_folders_of_the_node_claims_or_empty() {
    let flags = ["volume", "mount", "tmpfs"];
    let (wishes, notes) = read_with(
        &flags,
        "-v /data:/data:ro -v scratch:/scratch -v /work --tmpfs /fast:size=64m \
         --mount type=bind,source=/a,target=/b,readonly",
    );
    assert_eq!(notes, Vec::<String>::new());
    let got: Vec<Value> = wishes
        .volumes
        .iter()
        .map(|extra| json!([extra.path, extra.read_only, extra.source]))
        .collect();
    assert_eq!(
        got,
        [
            json!(["/data", true, { "hostPath": { "path": "/data" } }]),
            json!(["/scratch", false, { "persistentVolumeClaim": { "claimName": "scratch" } }]),
            json!(["/work", false, { "emptyDir": {} }]),
            json!(["/fast", false, { "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } }]),
            json!(["/b", true, { "hostPath": { "path": "/a" } }]),
        ]
    );
}

#[test]
fn no_volume_takes_the_executors_place_or_one_that_is_taken() {
    let pod = json!({ "containers": [{ "volumeMounts": [{ "mountPath": "/data" }] }] });
    let overrides = json!({ "containerArguments": ["volume"] });
    for (arguments, reason) in [
        ("-v /x:/trainyard/bin", "the executor's own"),
        ("-v /x://trainyard", "the executor's own"),
        ("-v /x:/./trainyard/bin", "the executor's own"),
        ("-v /x:/./data", "mounted at its target already"),
        ("-v /x:/.", "no absolute path"),
        ("-v /x:/data/", "mounted at its target already"),
        ("-v /x:relative", "no absolute path"),
        ("-v /x/../y:/z", "leads out of a folder"),
        ("-v a_b:/z", "neither an absolute path nor"),
        ("-v /x:/y -v /z:/y", "mounted at its target already"),
    ] {
        let (_, notes) = read_on(&pod, &overrides, arguments);
        assert!(notes.concat().contains(reason), "{arguments}: {notes:?}");
    }
}

#[test]
fn the_user_and_its_rights_are_fields_of_the_container() {
    let flags = [
        "user",
        "privileged",
        "cap-add",
        "cap-drop",
        "read-only",
        "workdir",
    ];
    let pod =
        json!({ "containers": [{ "securityContext": { "allowPrivilegeEscalation": false } }] });
    let (wishes, notes) = read_on(
        &pod,
        &json!({ "containerArguments": flags }),
        "-u 1000:100 --privileged --cap-add cap_sys_ptrace --cap-drop NET_RAW --read-only -w /here",
    );
    assert_eq!(notes, Vec::<String>::new());
    let expected = json!({
        "runAsUser": 1000, "runAsGroup": 100, "privileged": true, "allowPrivilegeEscalation": true,
        "readOnlyRootFilesystem": true,
    });
    assert_eq!(wishes.security, object(&expected));
    assert_eq!(wishes.capabilities_added, ["SYS_PTRACE"]);
    assert_eq!(wishes.capabilities_dropped, ["NET_RAW"]);
    assert_eq!(wishes.working_dir.as_deref(), Some("/here"));
    assert!(read_with(&flags, "--user jane").1[0].contains("give the number"));
    let beyond = ["2147483648", "1:4294967295", "-1"];
    for user in beyond {
        let (wishes, notes) = read_with(&flags, &format!("--user={user}"));
        assert_eq!(wishes, Wishes::default(), "{user}");
        assert!(notes[0].contains("give the number"), "{notes:?}");
    }
    let rootless = json!({ "securityContext": { "runAsNonRoot": true }, "containers": [{}] });
    let (wishes, notes) = read_on(&rootless, &json!({ "containerArguments": flags }), "-u 0");
    assert_eq!(wishes, Wishes::default());
    assert!(notes[0].contains("runAsNonRoot"), "{notes:?}");
}

#[test]
fn names_and_addresses_are_fields_of_the_pod() {
    let flags = ["hostname", "add-host", "dns", "dns-search", "entrypoint"];
    let (wishes, notes) = read_with(
        &flags,
        "-h trainer --add-host db:10.0.0.7 --add-host=db2:10.0.0.7 --dns 10.0.0.2 --dns-search lab.example --entrypoint ''",
    );
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(wishes.pod["hostname"], "trainer");
    assert_eq!(
        wishes.host_aliases,
        [json!({ "ip": "10.0.0.7", "hostnames": ["db", "db2"] })]
    );
    assert_eq!(wishes.nameservers, ["10.0.0.2"]);
    assert_eq!(wishes.searches, ["lab.example"]);
    let (_, notes) = read_with(
        &flags,
        "-h Bad_Name --add-host db --dns x --dns-search -a --entrypoint bash",
    );
    assert_eq!(notes.len(), 5, "{notes:?}");
}

#[test]
fn what_is_longer_than_kubernetes_or_linux_takes_is_refused() {
    let label = "a".repeat(63);
    let name = [label.as_str(); 4].join(".");
    let arguments = format!("--add-host {name}:10.0.0.7 --dns-search {name} -v {name}:/data");
    let (wishes, notes) = read_with(&["add-host", "dns-search", "volume"], &arguments);
    assert_eq!((wishes, notes.len()), (Wishes::default(), 3), "{notes:?}");
    let value = |length: usize| format!("-e A={}", "x".repeat(length - "A=".len()));
    let (wishes, notes) = read_with(&["env"], &value(LONGEST_VARIABLE));
    assert_eq!((wishes.env.len(), notes.len()), (1, 0), "{notes:?}");
    let (wishes, notes) = read_with(&["env"], &value(LONGEST_VARIABLE + 1));
    assert_eq!((wishes.env.len(), notes.len()), (0, 1), "{notes:?}");
}

#[test]
fn search_domains_beyond_what_a_pod_takes_are_refused_in_a_sentence() {
    let asked = |pod: &Value, domains: &[String]| {
        let arguments: Vec<String> = domains
            .iter()
            .map(|domain| format!("--dns-search {domain}"))
            .collect();
        let allowed = json!({ "containerArguments": ["dns-search"] });
        let (wishes, notes) = read_on(pod, &allowed, &arguments.join(" "));
        (wishes.searches.len(), notes)
    };
    let nothing = json!({});
    let refusal = "container argument --dns-search is not honoured: \
                   a pod takes at most 32 search domains, of 2048 characters together, the template's among them";
    let many: Vec<String> = (0..33).map(|n| format!("d{n}.example")).collect();
    assert_eq!(asked(&nothing, &many[..32]), (32, Vec::new()));
    assert_eq!(asked(&nothing, &many), (32, vec![refusal.to_owned()]));
    let template = json!({ "dnsConfig": { "searches": many[..31] } });
    // One that the template has already is no other.
    assert_eq!(asked(&template, &many[30..32]), (1, Vec::new()));
    assert_eq!(asked(&template, &many[31..]), (1, vec![refusal.to_owned()]));
    // Of 31 domains with 30 blanks between them, the last is as long as there is room, or longer by one.
    for (last, taken) in [(38, 31), (39, 30)] {
        let long: Vec<String> = (10..40)
            .map(|n| format!("{n}.{}", "a".repeat(63)))
            .chain(["b".repeat(last)])
            .collect();
        let (number, notes) = asked(&nothing, &long);
        assert_eq!((number, notes.len()), (taken, 31 - taken), "{last}");
    }
}

#[test]
fn the_executor_keeps_its_own_variables() {
    let (wishes, notes) = read_with(&["env"], "-e TRAINYARD_TASK_ID=x");
    assert_eq!(wishes.env, []);
    assert_eq!(notes.len(), 1);
}

#[test]
fn an_open_quote_spoils_all_of_them_and_says_so() {
    let (wishes, notes) = read_with(&["env"], "-e A=1 -e 'B=2");
    assert_eq!(wishes, Wishes::default());
    assert_eq!(
        notes,
        ["container arguments are not honoured: a quote is not closed"]
    );
}

proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC{0,80}") {
        let _ = read_with(CONTAINER_ARGUMENTS, &text);
    }

    #[test]
    fn no_value_of_any_flag_panics(flag in 0..CONTAINER_ARGUMENTS.len(), value in "[a-z0-9:/=,.\"-]{0,24}") {
        let _ = read_with(CONTAINER_ARGUMENTS, &format!("--{}={value}", CONTAINER_ARGUMENTS[flag]));
    }
}
