//! PURE: which cuDNN an image holds, as settings, its header or the name of its library say it.
//!
//! No package is chosen by it, since builds of PyTorch bring their own. It is told beside the CUDA version, for whoever
//! has to know what else in the image may be loaded.

mod files;

pub(super) use self::files::look;
use crate::exec::failure::one_line;

/// Numbers of a version that are told; images write a fourth, which is that of a package.
const TOLD: usize = 3;

/// What a setting says, in words.
pub(super) fn given(text: &str, source: &str) -> String {
    match parse(text) {
        Some(version) => told(&version, source),
        None => format!("{source} names no version of cuDNN: {}", one_line(text)),
    }
}

/// The version and where it is known from, in words.
pub(super) fn told(version: &[u32], source: &str) -> String {
    if version.first() == Some(&0) {
        return format!("the image has no cuDNN ({source})");
    }
    let dotted: Vec<String> = version.iter().map(u32::to_string).collect();
    format!("the image's cuDNN is {} ({source})", dotted.join("."))
}

/// `9.5.1` and `9.5.1.17-1` as they stand, `76` for 7.6 as the agent writes it, `8907` and `90501` as a header counts; 0
/// means that there is none.
fn parse(text: &str) -> Option<Vec<u32>> {
    let version = text.trim().split(['-', '+']).next()?;
    let version = numbers(version)?;
    let [number] = version[..] else {
        return Some(version);
    };
    match number {
        0..20 => Some(version),
        20..200 => Some(vec![number / 10, number % 10]),
        1000..10_000 => Some(vec![number / 1000, number / 100 % 10, number % 100]),
        10_000..1_000_000 => Some(vec![number / 10_000, number / 100 % 100, number % 100]),
        _ => None,
    }
}

/// From `cudnn_version.h`, or the `cudnn.h` of before version 8.
fn of_header(text: &str) -> Option<Vec<u32>> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let mut words = line.trim_start().strip_prefix('#')?.split_whitespace();
            let is_it = words.next() == Some("define") && words.next() == Some(name);
            words.next().filter(|_| is_it)?.parse::<u32>().ok()
        })
    };
    let major = value("CUDNN_MAJOR")?;
    let mut version = vec![major, value("CUDNN_MINOR").unwrap_or(0)];
    version.extend(value("CUDNN_PATCHLEVEL"));
    Some(version)
}

/// From the name of a library, `libcudnn.so.9.5.1`; links to it may name the first number alone.
fn of_library(name: &str) -> Option<Vec<u32>> {
    numbers(name.strip_prefix("libcudnn.so.")?)
}

fn numbers(version: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in version.split('.') {
        numbers.push(part.parse().ok()?);
    }
    numbers.truncate(TOLD);
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_every_form() {
        for (text, expected) in [
            ("7.6", "the image's cuDNN is 7.6 (x)"),
            ("76", "the image's cuDNN is 7.6 (x)"),
            ("8", "the image's cuDNN is 8 (x)"),
            ("9.10", "the image's cuDNN is 9.10 (x)"),
            (" 9.5.1.17-1+cuda12.4 ", "the image's cuDNN is 9.5.1 (x)"),
            ("7605", "the image's cuDNN is 7.6.5 (x)"),
            ("8907", "the image's cuDNN is 8.9.7 (x)"),
            ("91002", "the image's cuDNN is 9.10.2 (x)"),
            ("0", "the image has no cuDNN (x)"),
            ("765", "x names no version of cuDNN: 765"),
            ("9.x", "x names no version of cuDNN: 9.x"),
            ("-1", "x names no version of cuDNN: -1"),
            ("no\nnumber", "x names no version of cuDNN: no number"),
        ] {
            assert_eq!(given(text, "x"), expected, "{text}");
        }
    }

    #[test]
    fn a_header_names_its_numbers_each_in_a_line() {
        let header = "#ifndef CUDNN_VERSION_H_\n#define CUDNN_MAJOR 8\n#  define CUDNN_MINOR 9\n\
                      #define CUDNN_PATCHLEVEL 7\n\n\
                      #define CUDNN_VERSION (CUDNN_MAJOR * 1000 + CUDNN_MINOR * 100 + CUDNN_PATCHLEVEL)\n";
        for (text, expected) in [
            (header, Some(vec![8, 9, 7])),
            (
                "#define CUDNN_MAJOR 7\r\n#define CUDNN_MINOR 6\r\n",
                Some(vec![7, 6]),
            ),
            ("#define CUDNN_MAJOR 9\n", Some(vec![9, 0])),
            ("#define CUDNN_MAJOR_OF_ANOTHER 9\n", None),
            ("// CUDNN_MAJOR 9\n", None),
            ("#include \"cudnn_version.h\"\n", None),
            ("#define CUDNN_MAJOR (8)\n", None),
            ("", None),
        ] {
            assert_eq!(of_header(text), expected, "{text}");
        }
    }

    #[test]
    fn a_library_names_its_version_behind_its_own_name() {
        for (name, expected) in [
            ("libcudnn.so.9.5.1", Some(vec![9, 5, 1])),
            ("libcudnn.so.9", Some(vec![9])),
            ("libcudnn.so", None),
            ("libcudnn.so.", None),
            ("libcudnn.so.9.old", None),
            ("libcudnn_ops.so.9.5.1", None),
            ("libcublas.so.12.4.5", None),
        ] {
            assert_eq!(of_library(name), expected, "{name}");
        }
    }
}
