//! Uploads as no client writes them: odd names, odd heads of their parts, odd content types.

use std::path::Path;

use proptest::prelude::*;

/// One part of an upload; `None` leaves the words out.
#[derive(Debug, Clone)]
pub(super) struct Part {
    name: Option<Vec<u8>>,
    file_name: Option<Vec<u8>>,
    /// What stands before the names.
    disposition: &'static str,
    quoted: bool,
    more_headers: usize,
    contents: Vec<u8>,
}

impl Part {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(b"--edge\r\n");
        to.extend_from_slice(self.disposition.as_bytes());
        for (key, name) in [("name", &self.name), ("filename", &self.file_name)] {
            let Some(name) = name else { continue };
            let quote = if self.quoted { "\"" } else { "" };
            let key = format!("; {key}=");
            for piece in [
                key.as_bytes(),
                quote.as_bytes(),
                name.as_slice(),
                quote.as_bytes(),
            ] {
                to.extend_from_slice(piece);
            }
        }
        for n in 0..self.more_headers {
            to.extend_from_slice(format!("\r\nX-{n}: {n}").as_bytes());
        }
        to.extend_from_slice(b"\r\n\r\n");
        to.extend_from_slice(&self.contents);
        to.extend_from_slice(b"\r\n");
    }
}

/// `outside` is a folder that nothing may be written to.
fn file_name(outside: &Path) -> impl Strategy<Value = Vec<u8>> + Clone + use<> {
    let outside = outside.display();
    let mut odd: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "../escape",
        "../../escape",
        "../../../escape",
        "../keys.json",
        "a/../../escape",
        "a/./b",
        "./a",
        "..\\escape",
        "a\\..\\..\\escape",
        "%2e%2e/escape",
        "%2e%2e%2f%2e%2e%2fescape",
        "..%2fescape",
        "%00",
        "a%20b",
        "a\0b",
        "a\nb",
        "a\r\nX-More: b",
        "a\"b",
        "a\\\"b",
        "a;b=c",
        "delete_many",
        "p",
        "p/q",
        "p/q/r",
        "p//q",
        "p/",
        "é\u{202e}/\u{1F980}",
        "~/x",
        "$(touch escape)",
        "CON",
        ".hidden",
        "x.",
        " ",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    odd.extend([
        format!("{outside}/escape").into_bytes(),
        format!("//{outside}/escape").into_bytes(),
        format!("file://{outside}/escape").into_bytes(),
        "x".repeat(255).into_bytes(),
        "x".repeat(256).into_bytes(),
        "x".repeat(100_000).into_bytes(),
        "y/".repeat(100).into_bytes(),
        "y/".repeat(3000).into_bytes(),
        vec![0xff, 0xfe, b'/', b'x'],
        vec![b'x', 0xc3],
    ]);
    prop_oneof![
        4 => prop::sample::select(odd),
        3 => "[a-c]{1,2}(/[a-c]{1,2}){0,3}".prop_map(String::into_bytes),
        1 => ".{0,30}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

pub(super) fn part(outside: &Path) -> impl Strategy<Value = Part> + use<> {
    let name = file_name(outside);
    let disposition = prop_oneof![
        8 => Just("Content-Disposition: form-data"),
        1 => prop::sample::select(vec![
            "content-disposition:form-data",
            "Content-Disposition: attachment",
            "Content-Disposition:",
            "Content-Disposition",
            "Content-Type: text/plain",
            "",
            "\r\n",
            ": form-data",
        ]),
    ];
    let contents = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::sample::select(vec!["\r\n--edge", "--edge--", "\r\n--edg", "\r\n", "\r"])
            .prop_map(|text| text.as_bytes().to_vec()),
        (0..100_000_usize).prop_map(|length| vec![b'x'; length]),
    ];
    (
        prop::option::weighted(0.9, name.clone()),
        prop::option::weighted(0.9, name),
        disposition,
        prop::bool::weighted(0.9),
        prop_oneof![9 => 0..3_usize, 1 => 0..50_usize],
        contents,
    )
        .prop_map(
            |(name, file_name, disposition, quoted, more_headers, contents)| Part {
                name,
                file_name,
                disposition,
                quoted,
                more_headers,
                contents,
            },
        )
}

pub(super) fn content_type() -> impl Strategy<Value = Vec<u8>> {
    let long = format!("multipart/form-data; boundary={}", "x".repeat(5000));
    let odd = [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=edge; boundary=other",
        "multipart/form-data;;;",
        "multipart/mixed; boundary=edge",
        "multipart/form-data; boundary=é",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
        "/",
        long.as_str(),
    ]
    .map(|kind| kind.as_bytes().to_vec());
    let usual = [
        "multipart/form-data; boundary=edge",
        "multipart/form-data; boundary=\"edge\"",
    ]
    .map(|kind| kind.as_bytes().to_vec());
    prop_oneof![
        8 => prop::sample::select(usual.to_vec()),
        2 => prop::sample::select(odd.to_vec()),
        1 => Just(vec![0xff, 0xfe]),
    ]
}
