//! Files that go with what named them: artifacts, models and samples of a task that is reset or deleted, and samples that
//! are old.
//!
//! ```text
//! reset, delete, old metrics ──▶ a row per file, in the same transaction ──▶ some time later: file away for good, then row away
//! ```
//!
//! The rows survive a crash. A file that was written after its row (the task ran again) stays, also below a folder that
//! was noted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use url::Url;

use super::super::call::Call;
use super::super::wire::Refusal;
use super::super::{App, disk};
use super::paths::{decoded, safe};
use super::{PREFIX, is_nowhere, settle};

/// Files taken away at one go.
const AT_ONCE: i64 = 500;

/// Notes the files of a task's addresses that lie on this server, in the task's own folder (§2.8).
pub(crate) fn doom(call: &Call, task: &str, urls: &[String]) -> Result<(), Refusal> {
    note(call, own_paths(call, task, urls))
}

/// The same of debug samples of a task that stays: what lies elsewhere in its folder may be an artifact as well.
pub(crate) fn doom_samples(call: &Call, task: &str, urls: &[String]) -> Result<(), Refusal> {
    note(
        call,
        own_paths(call, task, urls).filter(|path| is_sample(path, task)),
    )
}

fn own_paths(call: &Call, task: &str, urls: &[String]) -> impl Iterator<Item = String> {
    let port = call.app.files_port;
    urls.iter().filter_map(move |url| own_path(url, task, port))
}

fn note(call: &Call, paths: impl Iterator<Item = String>) -> Result<(), Refusal> {
    for path in paths {
        call.db
            .prepare_cached("INSERT OR REPLACE INTO doomed_files (path, at) VALUES (?1, ?2)")?
            .execute((path, call.at.as_millisecond()))?;
    }
    Ok(())
}

/// The path below the folder of files, if the address is one of a file in the task's folder. Clients reach this server
/// under several names, so the host says nothing; the task's id in the path does. `port` is that of files alone.
fn own_path(url: &str, task: &str, port: Option<u16>) -> Option<String> {
    let url = Url::parse(url).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    let path = if port.is_some() && url.port_or_known_default() == port {
        url.path().trim_start_matches('/')
    } else {
        url.path().split_once(&format!("{PREFIX}/"))?.1
    };
    let path = decoded(path).ok()?;
    let folder = format!(".{task}");
    path.split('/')
        .rev()
        .skip(1)
        .any(|part| part.ends_with(&folder))
        .then_some(path)
}

/// Whether a path lies where the SDK puts debug samples: below `metrics` in the task's folder.
fn is_sample(path: &str, task: &str) -> bool {
    let folder = format!(".{task}");
    let mut parts = path.split('/');
    parts.any(|part| part.ends_with(&folder)) && parts.next() == Some("metrics")
}

/// Takes away what was noted at least `linger` ago.
pub(crate) async fn sweep(app: &Arc<App>, linger: Duration) {
    let linger = i64::try_from(linger.as_millis()).unwrap_or(i64::MAX);
    let until = jiff::Timestamp::now()
        .as_millisecond()
        .saturating_sub(linger);
    let due = app.store.read(move |db| {
        // In no order: those that cannot be deleted keep no others from going.
        let sql = "SELECT path, at FROM doomed_files WHERE at <= ?1 ORDER BY random() LIMIT ?2";
        let mut statement = db.prepare_cached(sql)?;
        let due = statement
            .query_map([until, AT_ONCE], |row| {
                Ok(json!([row.get::<_, String>(0)?, row.get::<_, i64>(1)?]))
            })?
            .collect::<Result<Vec<Value>, _>>()?;
        Ok(due.into())
    });
    let due = match due.await {
        Ok(Value::Array(due)) => due,
        Ok(_) => return,
        Err(refusal) => {
            tracing::warn!(
                error = refusal.text,
                "files that are to go could not be read"
            );
            return;
        }
    };
    let mut gone = Vec::new();
    let mut changed = BTreeSet::new();
    let mut stuck = Vec::new();
    for row in due {
        let (Some(name), Some(at)) = (row[0].as_str(), row[1].as_i64()) else {
            continue;
        };
        let Ok(path) = safe(&app.files, name) else {
            gone.push(row);
            continue;
        };
        changed.insert(disk::folder_of(&path).to_owned());
        let removed = tokio::task::spawn_blocking(move || remove_old(&path, at)).await;
        match removed.map_err(std::io::Error::other).flatten() {
            Ok(()) => gone.push(row),
            Err(error) if is_nowhere(&error) => gone.push(row),
            Err(error) => stuck.push(format!("{name}: {error}")),
        }
    }
    if let Some(first) = stuck.first() {
        tracing::warn!(first, files = stuck.len(), "files could not be deleted");
    }
    if gone.is_empty() {
        return;
    }
    if let Err(error) = settle(changed).await {
        tracing::warn!(%error, "the deletion of files could not be written to the disk");
        return;
    }
    let forgotten = app.store.write(move |db| {
        let mut statement =
            db.prepare_cached("DELETE FROM doomed_files WHERE path = ?1 AND at = ?2")?;
        for row in &gone {
            statement.execute((row[0].as_str(), row[1].as_i64()))?;
        }
        Ok(Value::Null)
    });
    if let Err(refusal) = forgotten.await {
        tracing::warn!(error = refusal.text, "deleted files could not be noted");
    }
}

/// Takes a file away, or of a folder all files below it, unless they were written after `at`: those stay, and the folders
/// that hold them. What was taken out of those that stay is so for good.
fn remove_old(path: &Path, at: i64) -> std::io::Result<()> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_dir() {
        let written = about.modified()?.duration_since(UNIX_EPOCH);
        let newer = written.is_ok_and(|written| i128::from(at) < written.as_millis().cast_signed());
        return if newer { Ok(()) } else { fs::remove_file(path) };
    }
    for entry in fs::read_dir(path)? {
        match remove_old(&entry?.path(), at) {
            Err(error) if !is_nowhere(&error) => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => disk::sync(path),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_task_itself_are_meant() {
        let task = "0123456789abcdef0123456789abcdef";
        let path = |url: &str| own_path(&url.replace("TASK", task), task, Some(8081));
        assert_eq!(
            path("http://a:8008/files/p/my%20name.TASK/artifacts/x/x.bin").as_deref(),
            Some("p/my name.0123456789abcdef0123456789abcdef/artifacts/x/x.bin")
        );
        assert!(path("https://b/prefix/files/p/n.TASK/models/m").is_some());
        assert_eq!(
            path("http://a:8081/files/n.TASK/models/m").as_deref(),
            Some("files/n.0123456789abcdef0123456789abcdef/models/m")
        );
        for other in [
            "s3://files/p/n.TASK/models/m",
            "http://a/files/p/n.otherTASK0/models/m",
            "http://a/other/p/n.TASK/models/m",
            "http://a/files/p/n.TASK",
            "file:///files/p/n.TASK/models/m",
        ] {
            assert_eq!(path(other), None, "{other}");
        }
    }

    #[test]
    fn a_debug_sample_is_told_from_an_artifact_by_its_place() {
        for (path, expected) in [
            ("p/n.TASK/metrics/m/v/v_0.png", true),
            ("p.metrics/metrics/n.TASK/metrics/x.png", true),
            ("p/n.TASK/artifacts/x/x.png", false),
            ("p/n.TASK/artifacts/metrics/x.png", false),
            ("metrics/n.TASK/x.png", false),
            ("p/n.OTHER/metrics/x.png", false),
        ] {
            assert_eq!(is_sample(path, "TASK"), expected, "{path}");
        }
    }

    #[test]
    fn of_a_folder_only_the_files_that_are_old_go() {
        let at = 1_000_000;
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, millis: u64| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            let written = UNIX_EPOCH + Duration::from_millis(millis);
            file.set_modified(written).unwrap();
            path
        };
        let old = write("m/old", 999_999);
        let same = write("m/a/same", 1_000_000);
        let new = write("m/b/new", 1_000_001);
        let beside = write("m/b/old", 5);
        // The folders themselves are of now.
        remove_old(&folder.path().join("m"), at).unwrap();
        for gone in [&old, &same, &beside, &folder.path().join("m/a")] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        assert!(new.exists());
        remove_old(&new, at).unwrap();
        assert!(new.exists());
        remove_old(&folder.path().join("m"), at + 1).unwrap();
        assert!(!folder.path().join("m").exists());
    }
}
