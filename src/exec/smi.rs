//! Asks nvidia-smi for the GPUs where the driver's library cannot be opened: the static program, an image without glibc.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::python::find_program;
use crate::stats::gpu::{self, TABLE_QUERY, Table};

/// A driver that does not answer by then is given up for this time.
const LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Largest table: some hundred bytes for each GPU.
const MAX_TABLE: u64 = 64 << 10;

/// The table of nvidia-smi, if the image has that program.
pub fn table(path: &str) -> Option<Table> {
    let program = find_program("nvidia-smi", path)?;
    Some(Box::new(move || ask(&program, &TABLE_QUERY)))
}

/// The newest CUDA version that the driver runs, asked of its library, else of nvidia-smi.
pub fn cuda(path: &str) -> Option<u32> {
    gpu::driver_cuda().or_else(|| gpu::parse_cuda(&ask(&find_program("nvidia-smi", path)?, &[])?))
}

fn ask(program: &PathBuf, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let until = Instant::now() + LIMIT;
    // The table fits into the pipe, so it can be read once the program has ended.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(POLL),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child
        .stdout
        .take()?
        .take(MAX_TABLE)
        .read_to_string(&mut text)
        .ok()?;
    status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::stats::gpu::parse_table;

    #[test]
    fn a_program_of_that_name_is_asked_and_its_failure_is_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("nvidia-smi");
        let path = folder.path().to_str().unwrap().to_owned();
        assert!(table(&path).is_none());
        let write = |script: &str| {
            // Written beside and renamed: a file that is open for writing cannot be run.
            let new = folder.path().join("new");
            std::fs::write(&new, script).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&new, &program).unwrap();
        };
        write(
            "#!/bin/sh\ncase \"$1\" in --query-gpu=index*) echo '1, 50, 1, 1, 2, 40, 70' ;; esac\n",
        );
        let mut ask = table(&path).unwrap();
        assert_eq!(parse_table(&ask().unwrap())[0].index, 1);
        write("#!/bin/sh\nexit 9\n");
        assert_eq!(ask(), None);
    }
}
