//! Small files that somebody else may have written: more of them than can be meant is never read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

/// All of a file; one that is longer than `most` bytes is an error.
pub fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read(&File::open(path)?, most)
}

/// The same of a file that is nothing else: a pipe in its place would hold its reader up for ever.
pub fn plain_bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read(&open_plain(path, OpenOptions::new().read(true))?, most)
}

/// Opens a file that is nothing else, and waits for nobody at the other end of what else it may be.
pub fn open_plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        let why = "it is no regular file";
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}

fn read(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let why = format!("it is longer than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// All of a file as text.
pub fn text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(bytes(path, most)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(text(&path, 4).unwrap(), "four");
        let error = bytes(&path, 3).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than 3 bytes");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(text(&path, 4).unwrap_err().to_string(), "it is not UTF-8");
        // It never ends.
        assert!(bytes(Path::new("/dev/zero"), 1000).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (told, outcome) = std::sync::mpsc::channel();
        let asked = path.clone();
        // If it waits, it waits in a thread that the test leaves behind.
        std::thread::spawn(move || {
            let read = plain_bytes(&asked, 10).map_err(|error| error.to_string());
            let opened = open_plain(&asked, OpenOptions::new().append(true));
            let _ = told.send((read, opened.is_err()));
        });
        let outcome = outcome.recv_timeout(std::time::Duration::from_secs(20));
        let refused = Err("it is no regular file".to_owned());
        assert_eq!(outcome, Ok((refused, true)));
        assert!(plain_bytes(Path::new("/dev/zero"), 10).is_err());
        assert!(plain_bytes(folder.path(), 10).is_err());
        std::fs::write(folder.path().join("file"), "four").unwrap();
        assert_eq!(
            plain_bytes(&folder.path().join("file"), 4).unwrap(),
            b"four"
        );
    }
}
