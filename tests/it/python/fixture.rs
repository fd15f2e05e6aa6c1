//! An image with a Python, a package index in a folder, and a task's volume.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use trainyard::exec::failure::Failure;
use trainyard::exec::plan::{Manager, PlanSettings, plan};
use trainyard::exec::python::{Python, PythonSettings, make};

/// The uv under test: `TRAINYARD_UV`, else the one in `PATH`.
fn uv() -> PathBuf {
    let uv = std::env::var_os("TRAINYARD_UV").map_or_else(|| PathBuf::from("uv"), PathBuf::from);
    let runs = Command::new(&uv)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    assert!(
        runs,
        "{} does not run: install it with `pip install uv`, or name it in TRAINYARD_UV",
        uv.display()
    );
    uv
}

/// The real Python of this machine, whatever stands before it in `PATH`.
fn system_python() -> PathBuf {
    let output = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let output = output.expect("python3 runs (apt-get install python3)");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Writes a wheel with one module that holds its version as `V`.
pub fn wheel(index: &Path, name: &str, version: &str, requires: &[&str]) {
    const WRITE: &str = "
import sys, zipfile
path, name, version, *requires = sys.argv[1:]
info = f'{name}-{version}.dist-info'
meta = f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n' + ''.join(f'Requires-Dist: {r}\\n' for r in requires)
with zipfile.ZipFile(f'{path}/{name}-{version}-py3-none-any.whl', 'w') as wheel:
    wheel.writestr(f'{name}/__init__.py', f'V = {version!r}\\n')
    wheel.writestr(f'{info}/METADATA', meta)
    wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(f'{info}/RECORD', f'{name}/__init__.py,,\\n{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n')
";
    let mut command = Command::new("python3");
    command
        .args(["-c", WRITE])
        .arg(index)
        .args([name, version])
        .args(requires);
    assert!(command.status().expect("python3 runs").success());
}

pub struct Image {
    folder: TempDir,
    pub settings: PythonSettings,
    pub pip: bool,
}

/// One preparation that succeeded.
#[derive(Debug)]
pub struct Run {
    pub python: Python,
    pub log: String,
}

impl Run {
    /// What the made Python prints for this code.
    pub fn run(&self, code: &str) -> String {
        let interpreter = self.python.interpreter.as_ref().expect("an interpreter");
        let output = Command::new(interpreter)
            .args(["-c", code])
            .env_remove("PYTHONPATH")
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Image {
    /// An image with nothing but Python.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        for name in ["bin", "code", "index"] {
            fs::create_dir(folder.path().join(name)).expect("a folder is made");
        }
        std::os::unix::fs::symlink(system_python(), folder.path().join("bin/python3"))
            .expect("a link is made");
        let path = |name: &str| folder.path().join(name);
        let text = |name: &str| path(name).to_string_lossy().into_owned();
        let variables = [
            ("PATH", text("bin")),
            ("PIP_NO_INDEX", "1".into()),
            ("PIP_FIND_LINKS", text("index")),
        ];
        let settings = PythonSettings {
            uv: uv(),
            cache: path("cache"),
            own: path("own"),
            variables: variables
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            index_url: None,
            index_ca: None,
            limit: Duration::from_mins(2),
        };
        Self {
            folder,
            settings,
            pip: false,
        }
    }

    /// An image whose Python has these packages.
    pub fn prebuilt(packages: &[(&str, &str)]) -> Self {
        let image = Self::new();
        let venv = image.folder.path().join("usr");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(uv());
            command
                .args(arguments)
                .env("UV_CACHE_DIR", image.folder.path().join("build-cache"));
            assert!(command.status().expect("uv runs").success());
        };
        let root = venv.to_string_lossy().into_owned();
        run(&[
            "venv",
            "--quiet",
            "--python",
            &system_python().to_string_lossy(),
            &root,
        ]);
        for (name, version) in packages {
            wheel(&image.index(), name, version, &[]);
            let index = image.index().to_string_lossy().into_owned();
            run(&[
                "pip",
                "install",
                "--quiet",
                "--python",
                &format!("{root}/bin/python"),
                "--no-index",
                "--find-links",
                &index,
                name,
            ]);
        }
        let mut image = image;
        image
            .settings
            .variables
            .insert("PATH".into(), format!("{root}/bin"));
        image
    }

    pub fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    /// Takes a package out of a prebuilt image.
    pub fn uninstall(&self, name: &str) {
        let python = self.folder.path().join("usr/bin/python");
        let mut command = Command::new(uv());
        command
            .args(["pip", "uninstall", "--quiet", "--python"])
            .arg(python)
            .arg(name);
        assert!(command.status().expect("uv runs").success());
    }

    /// Nothing more can be installed.
    pub fn empty_the_index(&self) {
        fs::remove_dir_all(self.index()).expect("the index goes");
        fs::create_dir(self.index()).expect("an empty one comes");
    }

    pub fn cache(&self) -> PathBuf {
        self.settings.cache.clone()
    }

    /// A file of the checkout.
    pub fn code(&self, name: &str, text: &str) {
        let file = self.folder.path().join("code").join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a folder is made");
        fs::write(file, text).expect("a file is written");
    }

    /// Puts the pip of this machine's Python into the index.
    pub fn bring_pip(&self) {
        let find = "import ensurepip, glob, os; print(glob.glob(os.path.dirname(ensurepip.__file__) + '/_bundled/pip-*.whl')[0])";
        let output = Command::new("python3")
            .args(["-c", find])
            .output()
            .expect("python3 runs");
        let wheel = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let name = Path::new(&wheel)
            .file_name()
            .expect("a bundled pip (apt-get install python3-venv)");
        fs::copy(&wheel, self.index().join(name)).expect("pip is copied");
    }

    /// Makes the environment of a stand-alone script with this requirement list.
    pub async fn make(&self, list: Value) -> Result<Run, Failure> {
        self.make_script(json!({"entry_point": "x.py", "diff": "1", "requirements": {"pip": list}}))
            .await
    }

    pub async fn make_script(&self, script: Value) -> Result<Run, Failure> {
        let task = json!({"id": "0123456789abcdef0123456789abcdef", "script": script});
        let task = serde_json::from_value(task).expect("a task");
        let manager = if self.pip {
            Manager::Pip
        } else {
            Manager::Auto
        };
        let code_root = self.folder.path().join("code");
        let plan = plan(&task, &PlanSettings { manager, code_root }).expect("a plan");
        let mut log = Vec::new();
        let python = make(&plan, &self.settings, &mut |line: &str| {
            log.push(line.to_owned());
        })
        .await?;
        Ok(Run {
            python,
            log: log.join("\n"),
        })
    }
}
