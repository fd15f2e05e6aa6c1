//! Why an image cannot be pulled, from the words of the container runtime and the registry.

use super::Category;

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
            "no basic auth",
        ],
        Category::ImageAccess,
        "give the template an imagePullSecret that may read the image",
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
        if words.iter().any(|word| lower.contains(word)) {
            return (*category, Some(remedy));
        }
    }
    (Category::ImagePull, None)
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
}
