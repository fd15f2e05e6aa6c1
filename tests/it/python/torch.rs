//! The build of PyTorch that suits the CUDA version.

use std::fs;

use serde_json::json;

use super::fixture::{Image, wheel};

#[tokio::test]
async fn the_build_of_pytorch_follows_the_cuda_version_and_is_told() {
    // Small stand-ins: `torch` at the package index, and builds at an index for each CUDA version.
    let mut image = Image::new();
    let index = image.indexes(&[
        ("public", "torch", "2.3.1"),
        ("public", "numpy", "1.0"),
        ("cu118", "torch", "2.3.1+cu118"),
        ("cpu", "torch", "2.3.1+cpu"),
    ]);
    image.settings.variables.remove("PIP_NO_INDEX");
    image.settings.variables.remove("PIP_FIND_LINKS");
    let public = index.replace("{}", "public");
    image
        .settings
        .variables
        .insert("UV_DEFAULT_INDEX".to_owned(), public);
    image.settings.options.torch_index = Some(index);
    for (cuda, expected, said) in [
        (
            "12.4",
            "2.3.1",
            "as the package index has it, built for CUDA 12.1; it suits CUDA 12.4",
        ),
        (
            "118",
            "2.3.1+cu118",
            "the build for CUDA 11.8 of torch==2.3.1 is installed",
        ),
        (
            "0",
            "2.3.1+cpu",
            "the build for the CPU of torch==2.3.1 is installed",
        ),
        ("117", "2.3.1+cu118", "the build for CUDA 11.8"),
        ("102", "2.3.1+cpu", "the build for the CPU"),
    ] {
        image.settings.options.cuda = Some((cuda.to_owned(), "agent.cuda_version".to_owned()));
        let made = image.make(json!("torch==2.3.1\nnumpy\n")).await.unwrap();
        assert_eq!(
            made.run("import torch, numpy; print(torch.V)"),
            expected,
            "{cuda}: {}",
            made.log
        );
        assert!(made.log.contains(said), "{cuda}: {}", made.log);
    }
    // Whoever finds it made is told, too.
    image.settings.options.cuda = Some(("118".to_owned(), "agent.cuda_version".to_owned()));
    let again = image.make(json!("torch==2.3.1\nnumpy\n")).await.unwrap();
    assert!(again.python.reused);
    let told = "PyTorch: torch==2.3.1+cu118, as it was chosen for an earlier task with the same list; CUDA 11.8 (agent.cuda_version)";
    assert!(again.log.contains(told), "{}", again.log);
    image.settings.options.torch_index = Some("file:///nowhere/{}".to_owned());
    image.settings.options.cuda = Some(("116".to_owned(), "driver".to_owned()));
    let made = image.make(json!("torch==2.3.1\n")).await.unwrap();
    assert!(
        made.log.contains("but no build for that was found"),
        "{}",
        made.log
    );
    assert_eq!(made.run("import torch; print(torch.V)"), "2.3.1");
    // Ahead of the task, where its node's driver cannot be asked, nothing is guessed; what the settings say counts.
    image.settings.driver_elsewhere = true;
    image.make(json!("torch==2.3.1\n")).await.unwrap();
    image.settings.options.cuda = None;
    if trainyard::exec::smi::cuda("/none").unwrap_or(0) == 0 {
        let failure = image.make(json!("torch==2.3.1\n")).await.unwrap_err();
        assert!(failure.to_string().contains("not known here"), "{failure}");
        image.make(json!("numpy\n")).await.unwrap();
    }
}

#[tokio::test]
async fn s4_a_build_of_pytorch_comes_from_a_page_of_links_on_request() {
    let mut image = Image::new();
    let index = image.indexes(&[
        ("public", "torch", "2.3.1"),
        ("public", "numpy", "1.0"),
        ("cu118", "torch", "2.3.1+cu118"),
    ]);
    let variables = &mut image.settings.variables;
    variables.remove("PIP_NO_INDEX");
    variables.remove("PIP_FIND_LINKS");
    variables.insert("UV_DEFAULT_INDEX".to_owned(), index.replace("{}", "public"));
    // A folder that holds the files themselves stands for a page of links to them.
    image.settings.options.torch_index = Some(format!("{index}/torch"));
    image.settings.options.cuda = Some(("118".to_owned(), "agent.cuda_version".to_owned()));
    let list = json!("torch==2.3.1\nnumpy\n");
    for (is_page, expected, said) in [
        (false, "2.3.1", "but no build for that was found"),
        (
            true,
            "2.3.1+cu118",
            "the build for CUDA 11.8 of torch==2.3.1",
        ),
    ] {
        image.settings.options.torch_page = is_page;
        // Each has an environment of its own: only the settings differ.
        image.settings.cache = image.index().with_file_name(format!("cache-{is_page}"));
        let made = image.make(list.clone()).await.unwrap();
        let found = made.run("import torch, numpy; print(torch.V)");
        assert_eq!(found, expected, "{is_page}: {}", made.log);
        assert!(made.log.contains(said), "{is_page}: {}", made.log);
    }
}

#[tokio::test]
async fn s4_the_images_cudnn_is_told_beside_the_build_of_pytorch() {
    let mut image = Image::new();
    wheel(&image.index(), "torch", "2.3.1", &[]);
    // Its header comes before whatever this machine has itself.
    let toolkit = tempfile::tempdir().unwrap();
    let header = toolkit.path().join("include/cudnn_version.h");
    fs::create_dir(toolkit.path().join("include")).unwrap();
    let numbers = "#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 9\n#define CUDNN_PATCHLEVEL 7\n";
    fs::write(&header, numbers).unwrap();
    let home = toolkit.path().display().to_string();
    let variables = &mut image.settings.variables;
    variables.insert("CUDA_HOME".to_owned(), home);
    let set = |version: &str, source: &str| Some((version.to_owned(), source.to_owned()));
    image.settings.options.cuda = set("12.4", "agent.cuda_version");
    let first = image.make(json!("torch==2.3.1\n")).await.unwrap();
    let found = format!("; the image's cuDNN is 8.9.7 ({})", header.display());
    let told = |log: &str, what: &str| {
        log.lines()
            .any(|line| line.starts_with("PyTorch: torch==2.3.1") && line.ends_with(what))
    };
    assert!(told(&first.log, &found), "{}", first.log);
    assert!(first.log.contains("CUDA 12.4 (agent.cuda_version)"));

    // What is set counts before, and no environment is another for it.
    for (version, expected) in [
        ("76", "; the image's cuDNN is 7.6 (agent.cudnn_version)"),
        ("0", "; the image has no cuDNN (agent.cudnn_version)"),
        (
            "new",
            "; agent.cudnn_version names no version of cuDNN: new",
        ),
    ] {
        image.settings.options.cudnn = set(version, "agent.cudnn_version");
        let again = image.make(json!("torch==2.3.1\n")).await.unwrap();
        assert!(again.python.reused, "{}", again.log);
        assert!(told(&again.log, expected), "{version}: {}", again.log);
    }
    // Where there is no GPU nothing is said of it.
    image.settings.options.cuda = set("0", "agent.cpu_only");
    let made = image.make(json!("torch==2.3.1\n")).await.unwrap();
    assert!(told(&made.log, ""), "{}", made.log);
    assert!(!made.log.contains("cuDNN"), "{}", made.log);
}
