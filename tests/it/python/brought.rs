//! A Python that uv brings into an image that has none. The real ones come from the internet: this machine's own stands in,
//! packed as uv expects them, and listed where `UV_PYTHON_DOWNLOADS_JSON_URL` points.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::fixture::{Image, wheel};

/// Packs Python and its library, without what no test needs, and lists the archive.
const PACK: &str = "
import importlib, json, os, platform, sys, sysconfig, tarfile
folder = sys.argv[1]
major, minor, micro = sys.version_info[:3]
name, library = f'python{major}.{minor}', sysconfig.get_path('stdlib')
left_out = {'__pycache__', 'test', 'idlelib', 'lib2to3', 'ensurepip', 'turtledemo', 'tkinter', 'dist-packages', 'site-packages'}
archive = os.path.join(folder, 'python.tar.gz')
with tarfile.open(archive, 'w:gz', compresslevel=1, dereference=True) as tar:
    tar.add(os.path.realpath(sys.executable), f'python/bin/{name}')
    for root, folders, files in os.walk(library):
        folders[:] = [one for one in folders if one not in left_out and not one.startswith('config-')]
        for file in files:
            path = os.path.join(root, file)
            if os.path.isfile(path) and not file.startswith('_sysconfigdata_'):
                tar.add(path, f'python/lib/{name}/{os.path.relpath(path, library)}')
    # How it was built, as far as it is plain, for the place that uv puts its own in place of.
    built = importlib.import_module(sysconfig._get_sysconfigdata_name()).build_time_vars
    plain = lambda value: not set(str(value)) & set('\\\\\\'\"\\n')
    moved = lambda value: value.replace(sys.base_prefix, '/install') if isinstance(value, str) else value
    built = {key: moved(value) for key, value in built.items() if plain(value)}
    data = os.path.join(folder, 'data.py')
    with open(data, 'w') as file:
        file.write('# system configuration generated and used by the sysconfig module\\n')
        file.write('build_time_vars = ' + json.dumps(built, indent=4) + '\\n')
    tar.add(data, f'python/lib/{name}/{sysconfig._get_sysconfigdata_name()}.py')
machine = platform.machine()
one = {'name': 'cpython', 'arch': {'family': machine, 'variant': None}, 'os': 'linux', 'libc': 'gnu',
       'major': major, 'minor': minor, 'patch': micro, 'prerelease': '', 'url': 'file://' + archive,
       'sha256': None, 'variant': None, 'build': None}
with open(os.path.join(folder, 'downloads.json'), 'w') as file:
    json.dump({f'cpython-{major}.{minor}.{micro}-linux-{machine}-gnu': one}, file)
";

/// Makes archive and list in this folder; the path of the list.
fn pack(folder: &Path) -> String {
    let packed = Command::new("python3")
        .args(["-c", PACK])
        .arg(folder)
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&packed.stderr);
    assert!(packed.status.success(), "{said}");
    folder.join("downloads.json").display().to_string()
}

#[tokio::test]
async fn an_image_without_python_gets_one_into_its_cache() {
    let mut image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let folder = tempfile::tempdir().unwrap();
    let list = pack(folder.path());
    for (name, value) in [
        ("PATH", "/nonexistent"),
        ("UV_PYTHON_DOWNLOADS_JSON_URL", list.as_str()),
    ] {
        let variables = &mut image.settings.variables;
        variables.insert(name.to_owned(), value.to_owned());
    }
    let made = image.make(json!("alpha")).await.unwrap();
    assert!(
        made.log.contains("the image has no Python: looking for"),
        "{}",
        made.log
    );
    assert_eq!(made.run("import alpha; print(alpha.V)"), "1.0");
    let base = made.run("import sys; print(sys.base_prefix)");
    let cache = fs::canonicalize(image.cache()).unwrap();
    assert!(
        fs::canonicalize(&base).unwrap().starts_with(&cache),
        "{base} is not in {}",
        cache.display()
    );
}
