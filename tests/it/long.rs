//! How large the long form of a scenario is (`CONTRIBUTING.md`).

use std::str::FromStr;

/// The number that this variable holds, or the usual one where it is not set.
pub fn size<T: FromStr>(variable: &str, usual: T) -> T {
    std::env::var(variable).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number"))
    })
}
