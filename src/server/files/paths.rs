//! Paths, ranges and content types of the file service. Pure.

use std::path::{Path, PathBuf};

use http::StatusCode;

use super::Failure;

/// The longest path.
const LONGEST: usize = 2048;

/// A relative path below the folder of files, from what a client wrote; nothing that leads out of it.
pub(super) fn safe(folder: &Path, path: &str) -> Result<PathBuf, Failure> {
    let bad = |why: &str| (StatusCode::BAD_REQUEST, format!("the path {path:?} {why}"));
    if path.len() > LONGEST {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("the path is longer than {LONGEST} characters"),
        ));
    }
    let mut safe = folder.to_owned();
    let mut parts = 0;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if part == "." || part == ".." || part.contains(['\0', '\\']) {
            return Err(bad("has a part that is not allowed"));
        }
        if part.len() > 255 {
            return Err(bad("has a part that is longer than 255 bytes"));
        }
        safe.push(part);
        parts += 1;
    }
    if parts == 0 {
        Err(bad("is empty"))
    } else {
        Ok(safe)
    }
}

/// A path of an address: `%20` is a space.
pub(super) fn decoded(path: &str) -> Result<String, Failure> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        // `from_str_radix` would take a sign, too.
        let escaped = after
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let (b'%', Some(byte)) = (first, byte) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| (StatusCode::BAD_REQUEST, "the path is not UTF-8".to_owned()))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    All,
    /// From, and up to but not including.
    Part(u64, u64),
    Outside,
}

/// One range of bytes; several, or something else, is answered with the whole file, as HTTP allows.
pub(super) fn range(text: &str, size: u64) -> Range {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Range::All;
    };
    let part = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, size),
        (Err(_), Ok(last)) if first.trim().is_empty() => (size.saturating_sub(last), size),
        _ => return Range::All,
    };
    if part.0 < part.1 {
        Range::Part(part.0, part.1)
    } else {
        Range::Outside
    }
}

pub(super) fn kind_of(path: &Path) -> &'static str {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "mp4" => "video/mp4",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "json" => "application/json",
        "txt" | "log" | "csv" | "yaml" | "yml" | "py" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let folder = Path::new("/data/files");
        for bad in ["../x", "a/../../x", "a/./b", "a\\b", "a\0b", "", "///"] {
            assert!(safe(folder, bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            safe(folder, "/a//b c/d.txt").unwrap(),
            folder.join("a/b c/d.txt")
        );
        assert!(safe(folder, &decoded("%2e%2e/x").unwrap()).is_err());
        assert_eq!(decoded("a%20b%zz").unwrap(), "a b%zz");
        assert_eq!(decoded("a%+5b%2").unwrap(), "a%+5b%2");
    }

    #[test]
    fn a_range_is_cut_to_the_file() {
        assert_eq!(range("bytes=0-3", 10), Range::Part(0, 4));
        assert_eq!(range("bytes=4-", 10), Range::Part(4, 10));
        assert_eq!(range("bytes=-3", 10), Range::Part(7, 10));
        assert_eq!(range("bytes=8-99", 10), Range::Part(8, 10));
        assert_eq!(range("bytes=10-", 10), Range::Outside);
        assert_eq!(range("bytes=0-1,3-4", 10), Range::All);
        assert_eq!(range("lines=1-2", 10), Range::All);
    }
}
