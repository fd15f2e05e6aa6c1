//! GPU statistics against a double of the driver's library. Each test runs its second half in a process of its own,
//! because a library is found by the environment variables that a process starts with.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use trainyard::stats::gpu::{Gpus, TABLE_QUERY, Xid, driver_cuda, listen, parse_table};
use trainyard::stats::report::{Averages, GpuSample, HostSample, Report, Sample};

use crate::python::fixture::Image;
use crate::shared::Shared;

/// The library's file.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// Set in the process that finds the double.
const CHILD: &str = "NVML_TEST_CHILD";

/// A folder with the double of the driver's library.
pub fn double() -> Arc<TempDir> {
    static DOUBLE: Shared<TempDir> = Shared::new();
    DOUBLE.get(|| {
        let folder = tempfile::tempdir().expect("a folder is made");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml/nvml.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(folder.path().join(LIBRARY))
            .arg(source)
            .status()
            .expect("a C compiler is there (apt-get install gcc)");
        assert!(compiled.success());
        folder
    })
}

/// Runs `checks` where the double, with these settings, is the machine's GPU driver.
fn with_double(test: &str, settings: &[(&str, &str)], checks: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return checks();
    }
    let library = double();
    let output = Command::new(std::env::current_exe().expect("own program"))
        .args([&format!("nvml::{test}"), "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", library.path())
        .envs(settings.iter().copied())
        .output()
        .expect("the test runs itself");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

fn report(gpus: Vec<GpuSample>) -> Report {
    let mut averages = Averages::default();
    averages.add(&Sample {
        host: HostSample::default(),
        gpus,
    });
    averages.take().expect("there was a sample")
}

#[test]
fn s2_twelve_gpus_are_reported_in_numeric_order() {
    with_double(
        "s2_twelve_gpus_are_reported_in_numeric_order",
        &[
            ("NVML_DOUBLE_GPUS", "12"),
            ("NVIDIA_VISIBLE_DEVICES", "void"),
        ],
        || {
            let report = report(Gpus::new(None).sample(Instant::now()));
            let stats = report.machine_stats();
            let busy: Vec<f64> = (0..12).map(|gpu| f64::from(gpu) * 10.0 + 7.0).collect();
            assert_eq!(stats["gpu_usage"], json!(busy));
            assert_eq!(stats["gpu_memory_used"][11], json!(12.0 * 1024.0));
            assert_eq!(stats["gpu_memory_free"][0], json!(79.0 * 1024.0));
            assert_eq!(stats["gpu_temperature"][10], json!(50.0));
            let scalars = report.scalars();
            let power = scalars
                .iter()
                .find(|scalar| scalar.variant == "gpu_11_power_draw");
            assert_eq!(power.map(|scalar| scalar.value), Some(111.0));
        },
    );
}

#[test]
fn s2_twenty_failures_do_not_end_the_graphs() {
    let settings = [("NVML_DOUBLE_FAIL", "20"), ("NVML_DOUBLE_FAIL_FROM", "1")];
    with_double(
        "s2_twenty_failures_do_not_end_the_graphs",
        &settings,
        || {
            let mut gpus = Gpus::new(Some(Box::new(|| {
                panic!("the driver is there: nvidia-smi is not asked")
            })));
            let mut now = Instant::now();
            assert_eq!(gpus.sample(now).len(), 1);
            let mut silent = Duration::ZERO;
            loop {
                now += Duration::from_secs(5);
                silent += Duration::from_secs(5);
                if gpus.sample(now).len() == 1 {
                    break;
                }
                assert!(
                    silent < Duration::from_hours(2),
                    "the GPU is still not back"
                );
            }
            assert!(
                silent > Duration::from_mins(1),
                "it was waited, not asked all the time"
            );
            assert_eq!(gpus.sample(now + Duration::from_secs(5)).len(), 1);
        },
    );
}

#[test]
fn a_driver_that_comes_later_is_found() {
    with_double(
        "a_driver_that_comes_later_is_found",
        &[("NVML_DOUBLE_FAIL_INIT", "3")],
        || {
            let mut gpus = Gpus::new(None);
            let begun = Instant::now();
            assert!(gpus.sample(begun).is_empty());
            let later = (1..60).map(|minute| begun + Duration::from_mins(minute));
            assert!(later.into_iter().any(|now| gpus.sample(now).len() == 1));
        },
    );
}

#[test]
fn a_lost_gpu_does_not_hide_the_others() {
    let settings = [("NVML_DOUBLE_GPUS", "3"), ("NVML_DOUBLE_LOST", "1")];
    with_double("a_lost_gpu_does_not_hide_the_others", &settings, || {
        let samples = Gpus::new(None).sample(Instant::now());
        assert_eq!(
            samples.iter().map(|gpu| gpu.index).collect::<Vec<_>>(),
            [0, 2]
        );
    });
}

#[test]
fn an_unknown_utilization_is_not_full_load() {
    with_double(
        "an_unknown_utilization_is_not_full_load",
        &[("NVML_DOUBLE_NO_UTILIZATION", "1")],
        || {
            let report = report(Gpus::new(None).sample(Instant::now()));
            let stats = report.machine_stats();
            assert!(!stats.contains_key("gpu_usage"), "{stats:?}");
            assert_eq!(stats["gpu_memory_used"], json!([1024.0]));
            assert!(
                !report
                    .scalars()
                    .iter()
                    .any(|scalar| scalar.variant.contains("utilization"))
            );
        },
    );
}

/// Everything else here is played by a double; this one asks a driver, and holds its numbers to what `nvidia-smi` says.
#[test]
#[ignore = "needs a GPU"]
fn s2_gpus_of_the_machine_have_the_numbers_of_nvidia_smi() {
    let output = Command::new("nvidia-smi")
        .args(TABLE_QUERY)
        .output()
        .expect("nvidia-smi is there where a GPU is");
    let listed = parse_table(&String::from_utf8_lossy(&output.stdout));
    assert!(!listed.is_empty(), "{output:?}");
    let sampled = Gpus::new(None).sample(Instant::now());
    assert_eq!(sampled.len(), listed.len(), "{sampled:?}, {listed:?}");
    for (ours, theirs) in sampled.iter().zip(&listed) {
        assert_eq!(ours.index, theirs.index);
        assert!(
            ours.utilization_percent
                .is_some_and(|share| (0.0..=100.0).contains(&share))
        );
        let total = |gpu: &GpuSample| gpu.memory_total_mib.expect("a GPU has memory");
        assert!(
            (total(ours) - total(theirs)).abs() <= 1.0,
            "{ours:?}, {theirs:?}"
        );
        for (ours, theirs, slack) in [
            (ours.temperature, theirs.temperature, 10.0),
            (ours.power, theirs.power, 200.0),
        ] {
            if let Some(theirs) = theirs {
                let ours = ours.expect("what nvidia-smi knows is known");
                assert!((ours - theirs).abs() <= slack, "{ours} and {theirs}");
            }
        }
    }
}

#[test]
fn s2_a_divided_gpu_counts_as_its_slices() {
    let settings = [("NVML_DOUBLE_GPUS", "3"), ("NVML_DOUBLE_DIVIDED", "1")];
    with_double("s2_a_divided_gpu_counts_as_its_slices", &settings, || {
        let samples = Gpus::new(None).sample(Instant::now());
        let used = samples.iter().map(|gpu| (gpu.index, gpu.memory_used_mib));
        let gib = |gib: f64| Some(gib * 1024.0);
        assert_eq!(
            used.collect::<Vec<_>>(),
            [(0, gib(1.0)), (1, gib(3.0)), (2, gib(4.0)), (3, gib(3.0))]
        );
        for slice in &samples[1..3] {
            assert_eq!(slice.memory_total_mib, gib(10.0));
            assert_eq!(slice.temperature, Some(41.0), "that of its GPU");
            // Load and power of the whole are not those of a slice.
            assert_eq!((slice.utilization_percent, slice.power), (None, None));
        }
    });
}

/// What the driver tells until it has told so much, or falls silent.
fn heard(most: usize) -> Vec<Xid> {
    let heard = std::cell::RefCell::new(Vec::new());
    let begun = Instant::now();
    listen(&mut |xid| heard.borrow_mut().push(xid), &|| {
        heard.borrow().len() < most && begun.elapsed() < Duration::from_secs(20)
    });
    heard.into_inner()
}

#[test]
fn faults_of_gpus_are_heard_with_their_numbers() {
    let settings = [
        ("NVML_DOUBLE_GPUS", "3"),
        ("NVML_DOUBLE_LOST", "0"),
        ("NVML_DOUBLE_XID", "31,79"),
    ];
    with_double(
        "faults_of_gpus_are_heard_with_their_numbers",
        &settings,
        || {
            let xid = |number| Xid {
                gpu: Some(2),
                number,
            };
            assert_eq!(heard(2), [xid(31), xid(79)]);
        },
    );
}

#[test]
fn a_fault_of_a_divided_gpu_has_the_numbers_of_its_graphs() {
    let name = "a_fault_of_a_divided_gpu_has_the_numbers_of_its_graphs";
    let settings = [
        ("NVML_DOUBLE_GPUS", "2"),
        ("NVML_DOUBLE_DIVIDED", "1"),
        ("NVML_DOUBLE_XID", "79"),
    ];
    with_double(name, &settings, || {
        let samples = Gpus::new(None).sample(Instant::now());
        let graphs: Vec<u32> = samples.iter().map(|gpu| gpu.index).collect();
        assert_eq!(graphs, [0, 1, 2]);
        // It is the fault of both slices of the second GPU.
        let faults = heard(2);
        let gpus: Vec<Option<u32>> = faults.iter().map(|xid| xid.gpu).collect();
        assert_eq!(gpus, [Some(1), Some(2)], "{faults:?}");
    });
}

#[test]
fn who_uses_a_gpu_is_told_as_far_as_it_can_be_known() {
    let file = std::env::temp_dir().join(format!("trainyard-gpu-users-{}", std::process::id()));
    let path = file.display().to_string();
    let settings = [
        ("NVML_DOUBLE_GPUS", "3"),
        ("NVML_DOUBLE_PROCESSES", path.as_str()),
    ];
    let name = "who_uses_a_gpu_is_told_as_far_as_it_can_be_known";
    with_double(name, &settings, || {
        // Here a child stands for the script, and the parent for somebody else whose processes can be seen.
        let file = std::env::var("NVML_DOUBLE_PROCESSES").expect("set above");
        let mut child = Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("cat runs");
        let (own, other) = (child.id(), std::os::unix::process::parent_id());
        std::fs::write(&file, format!("0 {own} 2048\n1 {other} 3072\n1 {own} 1\n")).unwrap();
        let mut gpus = Gpus::new(None);
        let begun = Instant::now();
        let samples = gpus.sample(begun);
        let of_task: Vec<Option<f64>> = samples.iter().map(|gpu| gpu.memory_of_task_mib).collect();
        assert_eq!(of_task, [Some(2048.0), Some(1.0), Some(0.0)]);
        let told = gpus.others();
        let expected =
            format!("GPU 1 is not this task's alone: its memory is held by process {other} (");
        assert!(
            told.len() == 1 && told[0].starts_with(&expected),
            "{told:?}"
        );
        assert!(told[0].ends_with(", 3.0 GiB)"), "{told:?}");
        // Not each time.
        let later = begun + Duration::from_mins(1);
        let samples = gpus.sample(later);
        assert_eq!(samples[0].memory_of_task_mib, Some(2048.0));
        assert!(gpus.others().is_empty());
        let samples = gpus.sample(later + Duration::from_secs(1));
        assert_eq!(samples[0].memory_of_task_mib, None, "asked less often");
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let _ = std::fs::remove_file(file);
}

#[test]
fn s4_the_drivers_cuda_version_chooses_the_build_of_pytorch() {
    let name = "s4_the_drivers_cuda_version_chooses_the_build_of_pytorch";
    with_double(name, &[("NVML_DOUBLE_CUDA", "11080")], || {
        assert_eq!(driver_cuda(), Some(118));
        let mut image = Image::new();
        let index = image.indexes(&[
            ("public", "torch", "2.3.1"),
            ("cu118", "torch", "2.3.1+cu118"),
            ("cpu", "torch", "2.3.1+cpu"),
        ]);
        let variables = &mut image.settings.variables;
        variables.remove("PIP_NO_INDEX");
        variables.remove("PIP_FIND_LINKS");
        variables.insert("UV_DEFAULT_INDEX".to_owned(), index.replace("{}", "public"));
        // What an image's own libraries are made for says nothing of the driver.
        variables.insert("CUDA_VERSION".to_owned(), "12.4.1".to_owned());
        image.settings.options.torch_index = Some(index);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let made = runtime
            .block_on(image.make(json!("torch==2.3.1\n")))
            .unwrap();
        assert_eq!(made.run("import torch; print(torch.V)"), "2.3.1+cu118");
        let told =
            "PyTorch: the build for CUDA 11.8 of torch==2.3.1 is installed, as CUDA 11.8 (driver)";
        assert!(made.log.contains(told), "{}", made.log);
        // What the settings say counts before the driver.
        image.settings.options.cuda = Some(("0".to_owned(), "agent.cpu_only".to_owned()));
        let made = runtime
            .block_on(image.make(json!("torch==2.3.1\n")))
            .unwrap();
        assert_eq!(made.run("import torch; print(torch.V)"), "2.3.1+cpu");
    });
}
