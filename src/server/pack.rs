//! Answers on their way out: gzip for clients that accept it (`protocol.md` §1.3).

use std::io::Write as _;
use std::net::IpAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, header};

/// Below this an answer is sent as it is, as the real server does.
const SMALLEST: usize = 500;

/// Whether to compress for this client. On the same machine there is no network to spare.
pub(super) fn wanted(headers: &HeaderMap, client: &str, length: usize) -> bool {
    length > SMALLEST
        && !client.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        && headers
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(accepts)
}

/// `gzip`, or `*`, that is not weighed with nought.
fn accepts(coding: &str) -> bool {
    let mut parts = coding.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q="));
    (name.eq_ignore_ascii_case("gzip") || name == "*")
        && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
}

/// The same, compressed; `None` if that fails, and the answer goes out as it is.
pub(super) fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_packed_is_what_comes_out() {
        let body = "a line of a log\n".repeat(1000);
        let packed = gzip(body.as_bytes()).unwrap();
        assert!(packed.len() < body.len() / 10);
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, body);
    }

    #[test]
    fn only_clients_that_accept_it_get_it() {
        let wants = |accepted: &'static str, client: &str, length| {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::ACCEPT_ENCODING,
                http::HeaderValue::from_static(accepted),
            );
            wanted(&headers, client, length)
        };
        assert!(wants("gzip, deflate", "10.0.0.1", 501));
        assert!(wants("deflate;q=1, *;q=0.5", "10.0.0.1", 501));
        assert!(!wants("gzip", "10.0.0.1", 500));
        assert!(!wants("gzip", "127.0.0.1", 501));
        assert!(!wants("gzip;q=0, deflate", "10.0.0.1", 501));
        assert!(!wanted(&HeaderMap::new(), "10.0.0.1", 501));
    }
}
