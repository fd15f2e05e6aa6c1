//! What amounts of resources mean: exact numbers that can be added and compared.
//!
//! Source: Kubernetes' "Quantity" (decimal and binary suffixes, exponents). A value is kept in billionths of its
//! unit, as the API server does; what is finer is rounded up.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// An amount of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nano: i128,
}

const NANO: i128 = 1_000_000_000;

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity such as 8, 500m or 64Gi")]
pub struct BadQuantity(String);

impl Quantity {
    /// A whole number of units.
    pub const fn whole(units: i64) -> Self {
        Self {
            nano: units as i128 * NANO,
        }
    }

    /// Whether it is a whole number of units.
    pub const fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// Whole units, rounded up: bytes of an amount of memory or disk.
    pub fn units(self) -> u64 {
        u64::try_from((self.nano + NANO - 1) / NANO).unwrap_or(0)
    }

    /// Whether there is nothing of it.
    pub const fn is_zero(self) -> bool {
        self.nano == 0
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_add(other.nano),
        }
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_sub(other.nano),
        }
    }
}

impl FromStr for Quantity {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        parse_nano(text)
            .map(|nano| Self { nano })
            .ok_or_else(|| BadQuantity(text.chars().take(40).collect()))
    }
}

/// Billionths of the unit, or nothing if `text` is no quantity. Beyond the range is the end of the range.
fn parse_nano(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number_end = unsigned
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, suffix) = unsigned.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0
        || whole.len() + fraction.len() > 27
        || fraction.contains('.')
    {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiplier, ten) = scale(suffix)?;
    let exponent = ten + 9 - i32::try_from(fraction.len()).ok()?;
    let scaled = digits.saturating_mul(multiplier);
    let power = 10_i128.saturating_pow(exponent.unsigned_abs());
    let nano = if exponent >= 0 {
        scaled.saturating_mul(power)
    } else {
        scaled / power + i128::from(scaled % power != 0)
    };
    Some(if negative { -nano } else { nano })
}

/// What a suffix multiplies by: a factor, and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            if exponent.len() > 3 {
                return None;
            }
            Some((1, exponent.parse().ok()?))
        }
    }
}

impl fmt::Display for Quantity {
    /// Whole units with the largest binary suffix that leaves no rest, else thousandths, else billionths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano % NANO != 0 {
            return match self.nano % 1_000_000 {
                0 => write!(f, "{}m", self.nano / 1_000_000),
                _ => write!(f, "{}n", self.nano),
            };
        }
        let units = self.nano / NANO;
        for (suffix, power) in [("Ti", 40), ("Gi", 30), ("Mi", 20)] {
            let size = 1_i128 << power;
            if units != 0 && units % size == 0 {
                return write!(f, "{}{suffix}", units / size);
            }
        }
        write!(f, "{units}")
    }
}

/// Amounts of several resources by name: what a pod asks for, what a limit allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, Quantity>);

impl Resources {
    /// The amount of `name`; zero if it does not occur.
    pub fn get(&self, name: &str) -> Quantity {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Sets the amount of `name`.
    pub fn set(&mut self, name: &str, amount: Quantity) {
        self.0.insert(name.to_owned(), amount);
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.get(name).plus(*amount);
            self.set(name, sum);
        }
    }

    /// Raises each amount to that of `other` where it is lower.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let highest = self.get(name).max(*amount);
            self.set(name, highest);
        }
    }

    /// Names and amounts, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// As the value of an annotation, `cpu=2,nvidia.com/gpu=1`; [`Resources::from_annotation`] reads it back.
    pub fn to_annotation(&self) -> String {
        let parts: Vec<String> = self
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect();
        parts.join(",")
    }

    /// Reads what [`Resources::to_annotation`] wrote.
    pub fn from_annotation(text: &str) -> Result<Self, BadQuantity> {
        let mut resources = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, amount) = part
                .split_once('=')
                .ok_or_else(|| BadQuantity(part.chars().take(40).collect()))?;
            resources.set(name, amount.parse()?);
        }
        Ok(resources)
    }
}

impl FromIterator<(String, Quantity)> for Resources {
    fn from_iter<I: IntoIterator<Item = (String, Quantity)>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nano(text: &str) -> i128 {
        text.parse::<Quantity>().unwrap().nano
    }

    #[test]
    fn every_suffix_has_its_size() {
        assert_eq!(nano("1"), NANO);
        assert_eq!(nano("500m"), NANO / 2);
        assert_eq!(nano("1.5Gi"), 3 * (1 << 29) * NANO);
        assert_eq!(nano("2k"), 2000 * NANO);
        assert_eq!(nano("1e3"), 1000 * NANO);
        assert_eq!(nano("1E"), 1_000_000_000_000_000_000 * NANO);
        assert_eq!(nano("+.5"), NANO / 2);
        assert_eq!(nano("-1u"), -1000);
        assert_eq!(nano("12e-1"), 1_200_000_000);
    }

    #[test]
    fn finer_than_a_billionth_is_rounded_up() {
        assert_eq!(nano("0.1n"), 1);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", "m", "1.2.3", "1Q", "0x10", "1e9999", "ten", "1 Gi", "Gi",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn beyond_the_range_is_the_end_of_the_range() {
        let most = "999999999999999999Ei".parse::<Quantity>().unwrap();
        assert_eq!(most, "1e99".parse().unwrap());
        assert_eq!(most.plus(most), most);
    }

    #[test]
    fn sums_and_maxima_are_by_name() {
        let gpu = |n| Resources::from_annotation(&format!("nvidia.com/gpu={n},cpu=500m")).unwrap();
        let mut sum = gpu(1);
        sum.add(&gpu(2));
        assert_eq!(sum.to_annotation(), "cpu=1,nvidia.com/gpu=3");
        sum.raise_to(&Resources::from_annotation("cpu=4").unwrap());
        assert_eq!(sum.to_annotation(), "cpu=4,nvidia.com/gpu=3");
        assert!(sum.get("memory").is_zero());
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn what_is_shown_is_read_back(nano in -(1_i128 << 100)..(1_i128 << 60)) {
            let quantity = Quantity { nano: nano % (1 << 80) };
            prop_assert_eq!(quantity.to_string().parse::<Quantity>().unwrap(), quantity);
        }
    }
}
