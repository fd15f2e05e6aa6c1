//! S42: an environment of 400 MB, from a near index, from the packages that the cache holds, and found as it was made.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::rig::{Ours, Place, Runner};
use super::{figure, noted, noting, times};
use crate::exec::server::{Proc, wait};
use crate::git::servers::free_port;

const PACKAGES: usize = 10;
/// Files of a package, and bytes of a file: noise, so that no less is fetched than unpacked.
const FILES: usize = 400;
const BYTES: usize = 100_000;

/// Writes the packages and their pages; the metadata lie beside them, as on PyPI.
const MAKE: &str = r#"
import os, sys, zipfile
root, packages, files, size = sys.argv[1], *map(int, sys.argv[2:])
for number in range(packages):
    name = f'large{number}'
    folder, wheel, info = f'{root}/simple/{name}', f'{name}-1.0-py3-none-any.whl', f'{name}-1.0.dist-info'
    os.makedirs(folder)
    metadata = f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n'.encode()
    content = [
        (f'{name}/__init__.py', b''),
        (f'{info}/METADATA', metadata),
        (f'{info}/WHEEL', b'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n'),
    ]
    content += [(f'{name}/part{part}', os.urandom(size)) for part in range(files)]
    record = ''.join(f'{path},,{len(data)}\n' for path, data in content) + f'{info}/RECORD,,\n'
    with zipfile.ZipFile(f'{folder}/{wheel}', 'w') as packed:
        for path, data in content:
            packed.writestr(path, data)
        packed.writestr(f'{info}/RECORD', record)
    with open(f'{folder}/{wheel}.metadata', 'wb') as file:
        file.write(metadata)
    with open(f'{folder}/index.html', 'w') as page:
        page.write(f'<a href="{wheel}" data-core-metadata="true">{wheel}</a>')
"#;

/// An index of these packages on this machine; ends with its value.
struct Index {
    _serving: Proc,
    _folder: TempDir,
    url: String,
}

impl Index {
    fn serve() -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut make = Command::new("python3");
        make.args(["-c", MAKE])
            .arg(folder.path())
            .args([PACKAGES, FILES, BYTES].map(|number| number.to_string()));
        assert!(make.status().expect("python3 runs").success());
        let port = free_port("127.0.0.1");
        let mut serve = Command::new("python3");
        serve
            .args(["-m", "http.server", &port.to_string()])
            .args(["--bind", "127.0.0.1", "--directory"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let serving = Proc::spawn(&mut serve);
        wait("the packages are served", 20, || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            _serving: serving,
            _folder: folder,
            url: format!("http://127.0.0.1:{port}/simple/"),
        }
    }
}

/// Seconds from the start of process 1 to the first line of a task that needs all of it, and then looks for it.
fn to_first_line(place: &Place, ours: &Ours<'_>) -> f64 {
    let look = format!(
        "import importlib.util, os\n\
         places = [os.path.dirname(importlib.util.find_spec(f'large{{n}}').origin) for n in range({PACKAGES})]\n\
         found = sum(os.path.getsize(os.path.join(place, file)) for place in places for file in os.listdir(place))\n\
         assert found >= {}, found\n",
        PACKAGES * FILES * BYTES
    );
    let requirements: Vec<String> = (0..PACKAGES).map(|n| format!("large{n}\n")).collect();
    let folder = tempfile::tempdir().expect("temp folder");
    let (note, source) = noting(folder.path(), &look);
    let run = ours.start(&place.task(&source, &requirements.concat()));
    let begun = run.begun;
    run.end(place, 600);
    noted(&note) - begun
}

#[test]
fn environment_of_400_megabytes() {
    let index = Index::serve();
    let (mut near, mut linked, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        // Each begins with an empty cache of its own.
        let place = Place::find().with_index(&index.url);
        let ours = Ours::new(&place);
        near.push(to_first_line(&place, &ours));
        place.forget_environments();
        linked.push(to_first_line(&place, &ours));
        warm.extend(times(3, || to_first_line(&place, &ours)));
    }
    for (name, goal, values) in [
        ("environment of 400 MB, near index", 10.0, near),
        ("environment of 400 MB, packages in the cache", 10.0, linked),
        ("warm environment of 400 MB", 2.0, warm),
    ] {
        figure(&format!("{name}, to first line"), "s", goal, &values);
    }
}
