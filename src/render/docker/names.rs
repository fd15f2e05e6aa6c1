//! `--add-host` and `--dns-search`: names of hosts, and where short ones are looked for.

use serde_json::{Value, json};

use super::{Reader, Refusal};
use crate::render::fields::items;
use crate::render::overlay::SEARCHES;
use crate::render::wishes::Wishes;

/// The longest name of a host or a domain (RFC 1123).
const LONGEST_NAME: usize = 253;

/// How many characters all search domains of a pod may have together, with a blank between each two of them.
const LONGEST_SEARCHES: usize = 2048;

/// `name:address` or `name=address`.
pub(super) fn add_host(
    value: &str,
    reader: &Reader<'_>,
    wishes: &mut Wishes,
) -> Result<(), Refusal> {
    let (name, address) = value
        .split_once([':', '='])
        .ok_or("its value is not of the form name:address")?;
    let address: core::net::IpAddr = address
        .trim_matches(['[', ']'])
        .parse()
        .map_err(|_| "its value names no address")?;
    if !is_dns_name(name) {
        return Err("its value is no name of a host".into());
    }
    let known = |alias: &Value| alias["ip"] == json!(address.to_string());
    if items(reader.pod, &["hostAliases"]).iter().any(known) {
        return Err("the template has other names for this address".into());
    }
    match wishes.host_aliases.iter_mut().find(|alias| known(alias)) {
        Some(alias) => {
            if let Some(names) = alias["hostnames"].as_array_mut() {
                names.push(json!(name));
            }
        }
        None => wishes
            .host_aliases
            .push(json!({ "ip": address.to_string(), "hostnames": [name] })),
    }
    Ok(())
}

/// A domain, as long as the API server takes it beside the others.
pub(super) fn search(value: &str, reader: &Reader<'_>, wishes: &mut Wishes) -> Result<(), Refusal> {
    if !is_dns_name(value) {
        return Err("its value is no domain".into());
    }
    let of_template = items(reader.pod, &["dnsConfig", "searches"]);
    let known: Vec<&str> = of_template
        .iter()
        .filter_map(Value::as_str)
        .chain(wishes.searches.iter().map(String::as_str))
        .collect();
    if known.contains(&value) {
        return Ok(());
    }
    let before: usize = known.iter().map(|domain| domain.len() + 1).sum();
    if known.len() >= SEARCHES || before + value.len() > LONGEST_SEARCHES {
        return Err(format!(
            "a pod takes at most {SEARCHES} search domains, of {LONGEST_SEARCHES} characters together, the template's among them"
        ));
    }
    wishes.searches.push(value.to_owned());
    Ok(())
}

pub(super) fn dns_label(text: &str) -> Option<&str> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    good.then_some(text)
}

/// Labels with dots between them.
pub(super) fn is_dns_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME && text.split('.').all(|part| dns_label(part).is_some())
}
