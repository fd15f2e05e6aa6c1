//! Values that people type into a binding: periods of time, amounts of a resource, references.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time as people type it: `30s`, `10m`, `1h30m`, `7d`.
///
/// The schema's pattern bounds the digits, so a value that the API server let through always parses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

/// What a [`Period`] looks like, for the schema.
const PERIOD_PATTERN: &str = "^([0-9]{1,8}(ms|s|m|h|d)){1,5}$";

/// A text that is no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time such as 30s, 10m, 1h30m or 7d")]
pub struct BadPeriod(String);

impl Period {
    /// A number of seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Whole seconds, rounded up: a shorter wait than asked for would surprise.
    pub const fn whole_seconds(self) -> u64 {
        self.0.as_secs() + if self.0.subsec_nanos() > 0 { 1 } else { 0 }
    }
}

impl FromStr for Period {
    type Err = BadPeriod;

    fn from_str(text: &str) -> Result<Self, BadPeriod> {
        let bad = || BadPeriod(text.chars().take(40).collect());
        let mut rest = text;
        let mut total = Duration::ZERO;
        for _ in 0..5 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 8 {
                return Err(bad());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            total += match &rest[..letters] {
                "ms" => Duration::from_millis(number),
                "s" => Duration::from_secs(number),
                "m" => Duration::from_secs(number * 60),
                "h" => Duration::from_secs(number * 3600),
                "d" => Duration::from_secs(number * 86400),
                _ => return Err(bad()),
            };
            rest = &rest[letters..];
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
        Err(bad())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(self.0.subsec_millis()), "ms"),
        ];
        for (number, unit) in parts {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PERIOD_PATTERN, "maxLength": 50 })
    }
}

/// An amount of a resource as people type it: `8`, `500m`, `64Gi`; a number in YAML is as good as a text.
///
/// [`super::Quantity`] is what it means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Amount(pub String);

/// What an [`Amount`] looks like, for the schema: a Kubernetes quantity without a minus sign.
const AMOUNT_PATTERN: &str = r"^\+?(([0-9]{1,18}(\.[0-9]{0,9})?)|(\.[0-9]{1,9}))(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]{1,2}))?$";

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl Visitor<'_> for NumberOrText {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as 8, \"500m\" or \"64Gi\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                Ok(Amount(text.to_owned()))
            }
        }

        deserializer.deserialize_any(NumberOrText)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": AMOUNT_PATTERN,
            "minimum": 0,
            "maxLength": 32,
        })
    }
}

/// A Secret in the binding's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// name of the Secret, in the namespace of the binding.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret in the binding's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// name of the Secret, in the namespace of the binding.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// key within the Secret. Default: the file's usual name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// One key of a ConfigMap in the binding's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigMapKeyRef {
    /// name of the ConfigMap, in the namespace of the binding.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// key within the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// One key of a ConfigMap or Secret in the binding's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileRef {
    /// kind of the object: ConfigMap or Secret. Default: ConfigMap.
    #[serde(default)]
    pub kind: FileKind,
    /// name of the object, in the namespace of the binding.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// key within the object.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where a [`FileRef`] points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FileKind {
    #[default]
    ConfigMap,
    Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_shown_as_people_type_them() {
        for (typed, seconds, shown) in [
            ("30s", 30, "30s"),
            ("10m", 600, "10m"),
            ("1h30m", 5400, "1h30m"),
            ("24h", 86400, "24h"),
            ("7d", 604_800, "168h"),
            ("0s", 0, "0s"),
        ] {
            let period: Period = typed.parse().unwrap();
            assert_eq!(period.whole_seconds(), seconds, "{typed}");
            assert_eq!(period.to_string(), shown);
        }
        assert_eq!("1500ms".parse::<Period>().unwrap().whole_seconds(), 2);
    }

    #[test]
    fn what_is_no_period_is_refused_with_an_example() {
        for typed in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "1y",
            "999999999s",
            "1s2s3s4s5s6s",
            "1 s",
            "1µs",
        ] {
            let error = typed.parse::<Period>().unwrap_err().to_string();
            assert!(error.contains("1h30m"), "{error}");
        }
    }

    #[test]
    fn the_largest_period_of_the_pattern_does_not_overflow() {
        assert!(
            "99999999d99999999d99999999d99999999d99999999d"
                .parse::<Period>()
                .is_ok()
        );
    }

    #[test]
    fn an_amount_may_be_a_number_or_a_text() {
        let amounts: Vec<Amount> = serde_json::from_str(r#"[8, "500m"]"#).unwrap();
        assert_eq!(amounts, [Amount("8".into()), Amount("500m".into())]);
    }
}
