//! The static program hands over to the one for glibc where the image can run it, and goes on where it cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::pod::Pod;
use super::server::Server;

/// An image whose program for glibc is `script`; the program itself is a link to the real one.
fn image(folder: &Path, script: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_trainyard"), folder.join("trainyard")).unwrap();
    let other = folder.join("trainyard-glibc");
    fs::write(&other, script).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_program_for_glibc_takes_over_once_where_it_starts() {
    let server = Server::start();
    let task = server.script("glibc", "print('ran')\n");
    let mut pod = Pod::parked(&server, &task);
    let (folder, seen) = (pod.path("image"), pod.path("seen"));
    let real = env!("CARGO_BIN_EXE_trainyard");
    image(
        &folder,
        &format!(
            "#!/bin/sh\necho \"$TRAINYARD_LINK $*\" >> {}\nexec {real} \"$@\"\n",
            seen.display()
        ),
    );
    pod.program = folder.join("trainyard");
    assert_eq!(pod.run(), 0);
    assert_eq!(server.log(&task), "ran\n");
    assert_eq!(
        fs::read_to_string(seen).unwrap(),
        "probe --version\nglibc --in-pod task\n"
    );
}

#[test]
fn a_program_that_does_not_start_in_the_image_is_left_alone() {
    let server = Server::start();
    let task = server.script("no glibc", "print('ran')\n");
    let mut pod = Pod::parked(&server, &task);
    let folder = pod.path("image");
    image(&folder, "#!/no/such/loader\n");
    pod.program = folder.join("trainyard");
    assert_eq!(pod.run(), 0);
    assert_eq!(server.log(&task), "ran\n");
}
