//! Why an image cannot be pulled, from the words of the container runtime and the registry.

use super::Category;

const PULL_SECRET: &str = "give the template an imagePullSecret that may read the image";

/// Words that give a cause away, most telling first; what it means, and what to do.
const CAUSES: &[(&[&str], Category, &str)] = &[
    (
        &["toomanyrequests", "too many requests", "429"],
        Category::ImageRateLimit,
        "the registry limits how often images may be pulled; use credentials or a mirror of it",
    ),
    (
        &[
            "no match for platform",
            "no matching manifest",
            "exec format error",
        ],
        Category::ImagePlatform,
        "the image is not made for the node's processor; use one for several platforms, or choose the nodes",
    ),
    // Before what containerd says beside it, that the repository may not exist: this registry asks for a password.
    (&["no basic auth"], Category::ImageAccess, PULL_SECRET),
    (
        &[
            "not found",
            "manifest unknown",
            "does not exist",
            "name unknown",
            "repository unknown",
        ],
        Category::ImageMissing,
        "check the image's name and tag, and that the registry has them",
    ),
    (
        &[
            "unauthorized",
            "401",
            "403",
            "forbidden",
            "denied",
            "authentication required",
        ],
        Category::ImageAccess,
        PULL_SECRET,
    ),
    (
        &["x509", "certificate"],
        Category::ImagePull,
        "the node does not trust the registry's certificate; install its CA on the node",
    ),
    (
        &["no space left"],
        Category::ImagePull,
        "the node's disk is full",
    ),
    (
        &[
            "no such host",
            "connection refused",
            "i/o timeout",
            "deadline exceeded",
            "unreachable",
            "http response to https",
        ],
        Category::ImagePull,
        "the node does not reach the registry; check its address and the network",
    ),
];

/// What a failed pull with this message means, and what to do.
pub(super) fn pull_failure(message: &str) -> (Category, Option<&'static str>) {
    let lower = message.to_lowercase();
    for (words, category, remedy) in CAUSES {
        if words.iter().any(|word| has(&lower, word)) {
            return (*category, Some(remedy));
        }
    }
    (Category::ImagePull, None)
}

/// Whether a message has this word. A status code stands by itself: its digits may be part of an address or a digest.
fn has(message: &str, word: &str) -> bool {
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        message
            .split_whitespace()
            .any(|part| part.trim_matches([',', ';', ':', '.', '(', ')']) == word)
    } else {
        message.contains(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_words_of_containerd_and_registries_are_understood() {
        let prefix =
            "failed to pull and unpack image \"r/i:t\": failed to resolve reference \"r/i:t\": ";
        for (words, category) in [
            ("r/i:t: not found", Category::ImageMissing),
            (
                "pull access denied, repository does not exist or may require authorization: server message: \
              insufficient_scope: authorization failed",
                Category::ImageMissing,
            ),
            (
                "unexpected status from HEAD request to https://r/v2/i/manifests/t: 401 Unauthorized",
                Category::ImageAccess,
            ),
            (
                "failed to authorize: failed to fetch anonymous token: 403 Forbidden",
                Category::ImageAccess,
            ),
            (
                "pull access denied, repository does not exist or may require authorization: authorization failed: no \
              basic auth credentials",
                Category::ImageAccess,
            ),
            (
                "429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit",
                Category::ImageRateLimit,
            ),
            (
                "no match for platform in manifest: not found",
                Category::ImagePlatform,
            ),
            ("dial tcp: lookup r: no such host", Category::ImagePull),
            (
                "dial tcp 127.0.0.1:5001: connect: connection refused",
                Category::ImagePull,
            ),
            (
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
                Category::ImagePull,
            ),
        ] {
            let (found, remedy) = pull_failure(&format!("{prefix}{words}"));
            assert_eq!(found, category, "{words}");
            assert!(remedy.is_some(), "{words}");
        }
        assert_eq!(pull_failure("something else"), (Category::ImagePull, None));
    }

    #[test]
    fn digits_of_an_address_a_tag_or_a_digest_are_no_status_code() {
        for (message, category) in [
            (
                "failed to resolve reference \"127.0.0.1:42901/i:401\": not found",
                Category::ImageMissing,
            ),
            (
                "no match for platform in manifest sha256:4290403: not found",
                Category::ImagePlatform,
            ),
            (
                "dial tcp 10.0.4.29:4031: connect: connection refused",
                Category::ImagePull,
            ),
            (
                "failed with status code [manifests 401]: 429",
                Category::ImageRateLimit,
            ),
            ("unexpected status (403), no words", Category::ImageAccess),
        ] {
            assert_eq!(pull_failure(message).0, category, "{message}");
        }
    }
}
