//! `16 GiB..80 GiB`: the values of a range, as they would be written one by one. Exact, in the units that it is written in.

use crate::units::{ARRIVALS, Decimal, FLOPS, Quantity, RATE, SIZE, TIME, split};
use thiserror::Error;

/// The most values of a range.
const MOST: u128 = 4096;
/// A range whose step is not given goes in whole units where it has so many of them, else in [`PARTS`] parts.
const UNITS: std::ops::RangeInclusive<u128> = 4..=1024;
const PARTS: u128 = 32;
/// Decimal places of numbers without a scale of their own.
const PLACES: u32 = 6;

static QUANTITIES: [&Quantity; 5] = [&SIZE, &RATE, &TIME, &FLOPS, &ARRIVALS];
/// Units that count, or stand for a plain number.
const PLAIN: [&str; 4] = ["", "slots", "slot", "%"];

/// A range that has no values.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RangeError {
    /// An end, or the step, is no number with a unit.
    #[error("`{0}` is no number with its unit; write a range as 16GiB..80GiB, 1..8 or 10 ms..50 ms")]
    Number(String),
    /// Two of its parts are of different kinds.
    #[error("`{0}` and `{1}` have units of different kinds; write both ends with theirs, as in 16GiB..80GiB")]
    Units(String, String),
    /// The upper end is below the lower one.
    #[error("the range {0}..{1} is empty: its first end is the larger one; write {1}..{0}")]
    Empty(String, String),
    /// Its step is zero.
    #[error("a step of `{0}` goes nowhere; give one above zero, or leave it out")]
    Step(String),
    /// It has too many values.
    #[error("{low}..{high} has {values} values in steps of {step}: at most {MOST}; give a larger step")]
    Values {
        /// The lower end.
        low: String,
        /// The upper end.
        high: String,
        /// The step.
        step: String,
        /// How many there would be.
        values: u128,
    },
}

/// Whether a text is a range rather than a value: two dots between what begin like numbers.
pub fn is_range(text: &str) -> bool {
    let begins = |end: &str| {
        end.trim_start().starts_with(|letter: char| letter.is_ascii_digit() || matches!(letter, '-' | '.'))
    };
    text.split_once("..").is_some_and(|(low, high)| begins(low) && begins(high))
}

/// The values of a range from the lower end up, the upper end always among them.
///
/// # Errors
/// See [`RangeError`].
pub fn values(text: &str, step: Option<&str>) -> Result<Vec<String>, RangeError> {
    let (low_text, high_text) = text.split_once("..").unwrap_or((text, text));
    let (low_text, high_text) = (low_text.trim(), high_text.trim());
    let low = Amount::read(low_text)?;
    let high = Amount::read(high_text)?.like(&low, low_text, high_text)?;
    if high < low.of {
        return Err(RangeError::Empty(low_text.to_owned(), high_text.to_owned()));
    }
    let (by, step_text) = match step {
        Some(text) => (Amount::read(text)?.like(&low, low_text, text)?, text.to_owned()),
        None => {
            let by = low.natural_step(high - low.of);
            (by, low.write(by))
        }
    };
    if by == 0 {
        return Err(RangeError::Step(step_text));
    }
    let steps = (high - low.of) / by;
    let beyond = u128::from((high - low.of) % by != 0);
    let count = steps.saturating_add(1 + beyond);
    if count > MOST {
        let (low, high) = (low_text.to_owned(), high_text.to_owned());
        return Err(RangeError::Values { low, high, step: step_text, values: count });
    }
    let regular = (0..=steps).map(|place| low.of + place * by);
    Ok(regular.chain((beyond > 0).then_some(high)).map(|amount| low.write(amount)).collect())
}

/// Values of one kind, the least first; `None` where they are not all numbers of one kind.
pub fn sorted(values: &[&str]) -> Option<Vec<String>> {
    let first = Amount::read(values.first()?).ok()?;
    let amount = |text: &&str| Amount::read(text).ok()?.like(&first, "", text).ok();
    let amounts = values.iter().map(amount).collect::<Option<Vec<u128>>>()?;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&place| amounts[place]);
    Some(order.into_iter().map(|place| values[place].to_owned()).collect())
}

/// An amount in the smallest unit of its kind.
struct Amount {
    of: u128,
    /// Its kind; `None` for what counts or is plain.
    quantity: Option<&'static Quantity>,
    unit: String,
    /// Its unit's size, in the smallest unit.
    scale: u128,
}

impl Amount {
    fn read(text: &str) -> Result<Amount, RangeError> {
        let wrong = || RangeError::Number(text.to_owned());
        let (number, unit) = split(text);
        let quantity =
            QUANTITIES.iter().find(|quantity| quantity.units.iter().any(|(name, _)| *name == unit));
        let scale = match quantity {
            Some(quantity) => quantity.units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale),
            None => PLAIN.contains(&unit).then_some(10_u128.pow(PLACES)),
        };
        let scale = scale.ok_or_else(wrong)?;
        let of = Decimal::read(number).and_then(|number| number.times(scale)).map_err(|_| wrong())?;
        Ok(Amount { of: of.into(), quantity: quantity.copied(), unit: unit.to_owned(), scale })
    }

    /// This amount, if it is of the other's kind.
    fn like(self, other: &Amount, other_text: &str, text: &str) -> Result<u128, RangeError> {
        let kind = |amount: &Amount| amount.quantity.map(|quantity| quantity.what);
        let plural = |unit: &str| if unit == "slot" { "slots".to_owned() } else { unit.to_owned() };
        let alike = match (kind(&self), kind(other)) {
            (None, None) => plural(&self.unit) == plural(&other.unit),
            (one, another) => one == another,
        };
        match alike {
            true => Ok(self.of),
            false => Err(RangeError::Units(other_text.to_owned(), text.to_owned())),
        }
    }

    /// The step of a range that begins here.
    fn natural_step(&self, span: u128) -> u128 {
        match UNITS.contains(&(span / self.scale)) || self.counts() {
            true => self.scale.max(span / UNITS.end() / self.scale * self.scale),
            false => (span / PARTS).max(1),
        }
    }

    /// Whether only whole numbers make sense.
    fn counts(&self) -> bool {
        self.unit.starts_with("slot")
            || self.unit.is_empty() && self.of.is_multiple_of(self.scale) && self.of > 0
    }

    /// An amount of the same kind, in the largest unit of which it is a whole number, else with decimal places.
    fn write(&self, amount: u128) -> String {
        let named = |number: String, unit: &str| match unit {
            "" => number,
            "%" => format!("{number}%"),
            unit => format!("{number} {unit}"),
        };
        let units = self.quantity.map_or(&[][..], |quantity| quantity.units);
        let binary = self.unit.contains("iB");
        // Of the smallest unit on, those that the range was written in.
        let fitting = units.iter().filter(|(name, _)| name.contains("iB") == binary || units[0].0 == *name);
        let whole = fitting.rev().find(|(_, scale)| amount.is_multiple_of(*scale) && *scale <= self.scale);
        match (whole, units.first()) {
            (Some((unit, scale)), _) => named((amount / scale).to_string(), unit),
            (None, Some((unit, scale))) => named(decimal(amount, *scale), unit),
            (None, None) => named(decimal(amount, self.scale), &self.unit),
        }
    }
}

/// `amount / scale`, where the scale is a power of ten.
fn decimal(amount: u128, scale: u128) -> String {
    let places = scale.ilog10() as usize;
    let fraction = format!("{:0places$}", amount % scale);
    let fraction = fraction.trim_end_matches('0');
    match fraction {
        "" => (amount / scale).to_string(),
        fraction => format!("{}.{fraction}", amount / scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{rate, size};
    use proptest::prelude::*;

    fn of(text: &str, step: Option<&str>) -> Vec<String> {
        values(text, step).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    #[test]
    fn values_are_written_as_a_person_would() {
        assert_eq!(of("1..4", None), ["1", "2", "3", "4"]);
        assert_eq!(of("16GiB..80GiB", Some("24 GiB")), ["16 GiB", "40 GiB", "64 GiB", "80 GiB"]);
        assert_eq!(of("512 MiB..1 GiB", Some("256 MiB")), ["512 MiB", "768 MiB", "1024 MiB"]);
        assert_eq!(of("0.5..1", Some("0.25")), ["0.5", "0.75", "1"]);
        assert_eq!(of("96 slots..192 slots", Some("48 slots")), ["96 slots", "144 slots", "192 slots"]);
        assert_eq!(of("10 %..20 %", Some("5 %")), ["10%", "15%", "20%"]);
        assert_eq!(of("1.5 /s..2 /s", Some("0.25 /s")), ["1.5 /s", "1.75 /s", "2 /s"]);
        assert_eq!(of("1 GB/s..2 GB/s", Some("500 MB/s")), ["1 GB/s", "1500 MB/s", "2 GB/s"]);
        assert_eq!(of("7 GiB..7 GiB", None), ["7 GiB"]);
        assert_eq!(of("16GiB..80GiB", None).len(), 65);
        assert_eq!(of("1 GiB..2 GiB", None).len(), 33);
        assert_eq!(of("1..100000", None).last().map(String::as_str), Some("100000"));
    }

    #[test]
    fn a_list_of_one_kind_is_put_in_order() {
        let sorted = |values: &[&str]| super::sorted(values);
        assert_eq!(sorted(&["2 GiB", "512 MiB", "1GB"]).unwrap(), ["512 MiB", "1GB", "2 GiB"]);
        assert_eq!(sorted(&["4", "2"]).unwrap(), ["2", "4"]);
        assert_eq!((sorted(&["1 GiB", "3 slots"]), sorted(&["lru"]), sorted(&[])), (None, None, None));
    }

    #[test]
    fn ranges_are_told_from_values() {
        assert!(is_range("1..8") && is_range("16GiB..80GiB"));
        assert!(!is_range("1..x"));
        assert!(!is_range("../a.yaml") && !is_range("a/../b") && !is_range("lru") && !is_range("1.5"));
    }

    #[test]
    fn ranges_that_cannot_be_say_what_would_be_right() {
        let wrong = |text: &str, step| values(text, step).unwrap_err().to_string();
        assert!(wrong("80GiB..16GiB", None).contains("write 16GiB..80GiB"));
        assert!(wrong("16GiB..80", None).contains("different kinds"));
        assert!(wrong("16GiB..80 ms", None).contains("different kinds"));
        assert!(wrong("1..8", Some("1 GiB")).contains("different kinds"));
        assert!(wrong("16 gigs..80 gigs", None).contains("`16 gigs` is no number"));
        assert!(wrong("-4..8", None).contains("`-4` is no number"));
        assert!(wrong("1..8", Some("0")).contains("goes nowhere"));
        assert!(wrong("1 B..80 GiB", Some("1 B")).contains("at most 4096"));
    }

    proptest! {
        #[test]
        fn sizes_read_back_in_order_between_their_ends(low in 0..1_u64 << 50, span in 0..1_u64 << 50, parts in 1..40_u64) {
            let step = format!("{} B", span / parts + 1);
            let sizes = of(&format!("{low} B..{} B", low + span), Some(&step));
            let sizes: Vec<u64> = sizes.iter().map(|text| size(text).unwrap().0).collect();
            prop_assert!(sizes.is_sorted_by(|a, b| a < b));
            prop_assert_eq!((sizes[0], sizes[sizes.len() - 1]), (low, low + span));
        }

        #[test]
        fn steps_of_their_own_end_where_the_range_does(low in 1..999_u64, span in 0..99_999_u64) {
            for unit in ["GB/s", "MiB/s", "KB/s"] {
                let rates = of(&format!("{low} {unit}..{} {unit}", low + span), None);
                let last = rate(&rates[rates.len() - 1]).unwrap();
                prop_assert_eq!(last, rate(&format!("{} {unit}", low + span)).unwrap());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,24}", step in prop::option::of(".{0,8}")) {
            let _ = (is_range(&text), values(&text, step.as_deref()));
        }
    }
}
