//! An image with a Python, a package index in a folder, and a task's volume.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use trainyard::exec::failure::Failure;
use trainyard::exec::plan::{Manager, PlanSettings, plan};
use trainyard::exec::python::{Python, PythonSettings, make};

/// Where the uv under test lies: `TRAINYARD_UV`, else the one in `PATH`.
pub fn uv() -> PathBuf {
    static UV: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let uv =
            std::env::var_os("TRAINYARD_UV").map_or_else(|| PathBuf::from("uv"), PathBuf::from);
        let runs = Command::new(&uv)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        assert!(
            runs,
            "{} does not run: install it with `pip install uv`, or name it in TRAINYARD_UV",
            uv.display()
        );
        uv.canonicalize().unwrap_or_else(|_| which("uv"))
    };
    UV.get_or_init(find).clone()
}

fn which(name: &str) -> PathBuf {
    let path = std::env::var("PATH").expect("a PATH");
    path.split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.is_file())
        .expect("it is in PATH")
}

/// The real Python of this machine, whatever stands before it in `PATH`.
fn system_python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let output = Command::new("python3")
            .args(["-c", "import sys; print(sys.executable)"])
            .output();
        let output = output.expect("python3 runs (apt-get install python3)");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    };
    PYTHON.get_or_init(find).clone()
}

/// Puts a wheel with one module that holds its version as `V` into a folder.
pub fn wheel(index: &Path, name: &str, version: &str, requires: &[&str]) {
    /// By name, version and what they require: many tests want the same.
    static MADE: Mutex<BTreeMap<Vec<String>, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let key = [name, version]
        .into_iter()
        .chain(requires.iter().copied())
        .map(str::to_owned)
        .collect();
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = made
        .entry(key)
        .or_insert_with(|| made_wheel(name, version, requires));
    let file = index.join(format!("{name}-{version}-py3-none-any.whl"));
    fs::write(file, bytes).expect("a wheel is written");
}

fn made_wheel(name: &str, version: &str, requires: &[&str]) -> Vec<u8> {
    const WRITE: &str = "
import io, sys, zipfile
name, version, *requires = sys.argv[1:]
info = f'{name}-{version}.dist-info'
meta = f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n' + ''.join(f'Requires-Dist: {r}\\n' for r in requires)
out = io.BytesIO()
with zipfile.ZipFile(out, 'w') as wheel:
    code = f'V = {version!r}\\n'
    wheel.writestr(f'{name}/__init__.py', code)
    wheel.writestr(f'{info}/METADATA', meta)
    wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(f'{info}/RECORD', f'{name}/__init__.py,,{len(code)}\\n{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n')
sys.stdout.buffer.write(out.getvalue())
";
    let output = Command::new("python3")
        .args(["-c", WRITE, name, version])
        .args(requires)
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output.stdout
}

/// The pip that this machine's Python brings; Debian keeps it in a folder of its own.
pub fn bundled_pip() -> PathBuf {
    static PIP: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let code = "import ensurepip, glob, os
folders = [os.path.dirname(ensurepip.__file__) + '/_bundled', '/usr/share/python-wheels']
print(*[wheel for folder in folders for wheel in glob.glob(folder + '/pip-*.whl')][:1])
";
        let output = Command::new("python3")
            .args(["-c", code])
            .output()
            .expect("python3 runs");
        let wheel = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        assert!(
            wheel.is_file(),
            "a bundled pip (apt-get install python3-venv)"
        );
        wheel
    };
    PIP.get_or_init(find).clone()
}

pub struct Image {
    folder: TempDir,
    pub settings: PythonSettings,
    pub manager: Manager,
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
            alone: false,
            driver_elsewhere: false,
            brought: Vec::new(),
            variables: variables
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            index_url: None,
            trusted: None,
            limit: Duration::from_mins(2),
            options: trainyard::exec::python::Options::default(),
        };
        Self {
            folder,
            settings,
            manager: Manager::Auto,
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

    /// The text of a file of the checkout.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("code").join(name)).expect("a file is read")
    }

    /// Locks the project of the checkout, as its author would.
    pub fn uv_lock(&self) {
        let mut command = Command::new(uv());
        command
            .args(["lock", "--quiet", "--no-index", "--find-links"])
            .arg(self.index())
            .current_dir(self.folder.path().join("code"))
            .env("UV_CACHE_DIR", self.folder.path().join("lock-cache"));
        assert!(command.status().expect("uv runs").success());
    }

    pub fn sha256(&self, wheel: &str) -> String {
        use sha2::{Digest, Sha256};
        use std::fmt::Write;
        let bytes = fs::read(self.index().join(wheel)).expect("a wheel");
        let mut text = String::new();
        for byte in Sha256::digest(bytes) {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// A wheel with that many bytes of noise.
    pub fn large_wheel(&self, name: &str, bytes: usize) {
        wheel(&self.index(), name, "1.0", &[]);
        let script = "import sys, zipfile, os\nwith zipfile.ZipFile(sys.argv[1], 'a') as w: w.writestr(sys.argv[2] + '/noise', os.urandom(int(sys.argv[3])))";
        let file = self.index().join(format!("{name}-1.0-py3-none-any.whl"));
        let mut command = Command::new("python3");
        command
            .args(["-c", script])
            .arg(file)
            .args([name, &bytes.to_string()]);
        assert!(command.status().expect("python3 runs").success());
    }

    /// Bytes of the cache on the disk, each file once.
    pub fn cache_size(&self) -> u64 {
        let output = Command::new("du")
            .arg("-sk")
            .arg(self.cache())
            .output()
            .expect("du runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .next()
            .and_then(|size| size.parse::<u64>().ok())
            .expect("a size")
            * 1024
    }

    /// Folders that stand for an index each: its name, a package, a version. The address, `{}` being the name.
    pub fn indexes(&self, files: &[(&str, &str, &str)]) -> String {
        let root = self.folder.path().join("whl");
        for (index, package, version) in files {
            let folder = root.join(index).join(package);
            fs::create_dir_all(&folder).expect("a folder is made");
            wheel(&folder, package, version, &[]);
            let file = format!("{package}-{version}-py3-none-any.whl");
            fs::write(
                folder.join("index.html"),
                format!("<a href=\"{file}\">{file}</a>"),
            )
            .expect("a page is written");
        }
        format!("file://{}/{{}}", root.display())
    }

    /// A build backend that packs all modules of a folder: no test needs the internet.
    pub fn bring_build_backend(&self) {
        const BACKEND: &str = r#"
import os, re, zipfile
def _meta():
    text = open('pyproject.toml').read()
    get = lambda key: re.search(key + ' = "([^"]*)"', text).group(1)
    needs = re.search(r'dependencies = \[(.*)\]', text).group(1)
    lines = ''.join(f'Requires-Dist: {need.strip().strip(chr(34))}\n' for need in needs.split(',') if need.strip())
    return get('name'), get('version'), lines
def _wheel(folder, fill):
    name, version, needs = _meta()
    info = f'{name}-{version}.dist-info'
    file = f'{name}-{version}-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(folder, file), 'w') as w:
        fill(w, name)
        w.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}')
        w.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        w.writestr(f'{info}/RECORD', '')
    return file
def _modules(w, name):
    for module in os.listdir('.'):
        if module.endswith('.py'): w.write(module)
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, _modules)
def build_editable(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, lambda w, name: w.writestr(f'{name}.pth', os.getcwd()))
"#;
        static MADE: OnceLock<Vec<u8>> = OnceLock::new();
        let file = self.index().join("backend-1.0-py3-none-any.whl");
        let make = || {
            wheel(&self.index(), "backend", "1.0", &[]);
            // Of two entries of one name, whichever is unpacked last would count.
            let script = "import sys, zipfile\n\
                with zipfile.ZipFile(sys.argv[1]) as r: entries = {name: r.read(name) for name in r.namelist()}\n\
                entries['backend/__init__.py'] = sys.argv[2]\n\
                with zipfile.ZipFile(sys.argv[1], 'w') as w:\n\
                \x20 for name, data in entries.items(): w.writestr(name, data)";
            let mut command = Command::new("python3");
            command
                .args(["-W", "ignore", "-c", script])
                .arg(&file)
                .arg(BACKEND);
            assert!(command.status().expect("python3 runs").success());
            fs::read(&file).expect("the backend's wheel")
        };
        fs::write(&file, MADE.get_or_init(make)).expect("the backend's wheel is written");
    }

    /// A source distribution whose build looks at another package without asking for it, as horovod's looks at PyTorch.
    pub fn bring_source(&self, name: &str, looks_at: &str) {
        const WRITE: &str = r#"
import io, sys, tarfile
path, name, other = sys.argv[1:]
maker = r'''
import os, zipfile, OTHER
def build_wheel(folder, config_settings=None, metadata_directory=None):
    info, file = 'NAME-1.0.dist-info', 'NAME-1.0-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(folder, file), 'w') as w:
        w.writestr('NAME.py', f'V = "built beside OTHER {OTHER.V}"')
        w.writestr(f'{info}/METADATA', 'Metadata-Version: 2.1\nName: NAME\nVersion: 1.0\n')
        w.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        w.writestr(f'{info}/RECORD', '')
    return file
'''.replace('NAME', name).replace('OTHER', other)
files = {
    'PKG-INFO': f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n',
    'pyproject.toml': '[build-system]\nrequires = []\nbuild-backend = "maker"\nbackend-path = ["."]\n',
    'maker.py': maker,
}
with tarfile.open(f'{path}/{name}-1.0.tar.gz', 'w:gz') as source:
    for file, text in files.items():
        entry = tarfile.TarInfo(f'{name}-1.0/{file}')
        entry.size = len(text.encode())
        source.addfile(entry, io.BytesIO(text.encode()))
"#;
        let mut command = Command::new("python3");
        command
            .args(["-c", WRITE])
            .arg(self.index())
            .args([name, looks_at]);
        assert!(command.status().expect("python3 runs").success());
    }

    /// Puts the pip of this machine's Python into the index.
    pub fn bring_pip(&self) {
        let wheel = bundled_pip();
        let name = wheel.file_name().expect("a file");
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
        let manager = self.manager;
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
