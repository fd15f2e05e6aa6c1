//! Fault points: places behind a call at which a test lets the process die. Builds for release have none.
//!
//! ```text
//! call ──▶ done, or answered, on the other side ──▶ point!("park/parked") ──▶ what would have followed
//!                                                        └─ asked for? the process ends here, as by SIGKILL
//! ```
//!
//! Each call to Kubernetes, to the ClearML server and to an image registry has one, but for watches, which have no single
//! answer. What one call sends (a log-in before it, pages, the challenge of a registry) has one together.
//!
//! A test names a folder (`TRAINYARD_FAULTS`) and puts a file for each point into it, named as the point with a dot
//! for the slash, that holds how many times the process has still to die there. The list of points is read from these
//! sources (`tests/it/faults.rs`), and one that is never reached fails the test.

/// Ends the process here if a test asks for it.
macro_rules! point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::controller::fault::reached($name);
    };
}
pub(super) use point;

#[cfg(debug_assertions)]
pub(super) use in_tests::reached;

#[cfg(debug_assertions)]
mod in_tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use crate::config::env;

    /// Two loops may reach a point at once; one of them dies of it.
    static ONE: Mutex<()> = Mutex::new(());
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();

    /// Notes that a point was reached, and dies if that is still to be done there.
    pub(in crate::controller) fn reached(name: &str) {
        let Some(folder) = FOLDER.get_or_init(env::fault_folder) else {
            return;
        };
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(folder, name) {
            // Nothing is flushed, dropped or told, as by SIGKILL.
            std::process::abort();
        }
    }

    /// Whether the process has to die at this point; counts down.
    fn is_due(folder: &Path, name: &str) -> bool {
        let file = folder.join(name.replace('/', "."));
        let left: u32 = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        left > 0 && fs::write(&file, (left - 1).to_string()).is_ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_due_as_often_as_its_file_says() {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("park.parked"), "2").unwrap();
            let due = || is_due(folder.path(), "park/parked");
            assert_eq!((due(), due(), due()), (true, true, false));
            assert!(!is_due(folder.path(), "take/removed"));
        }
    }
}
