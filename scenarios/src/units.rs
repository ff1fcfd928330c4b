//! Quantities as they are written: an exact decimal number and a unit, which is mandatory. Integers all the way, so
//! that `24.8 GB/s` is 24,800,000,000 and not a neighbour; a result is rounded to the nearest whole byte, nanosecond
//! or operation.

use crate::diagnostics::{Wrong, suggest};
use policy::{Bandwidth, Bytes, FlopRate, Nanos};

/// A kind of quantity: the units it is written in.
pub(crate) struct Quantity {
    pub(crate) what: &'static str,
    pub(crate) example: &'static str,
    /// The units with their sizes in the smallest one.
    pub(crate) units: &'static [(&'static str, u128)],
}

pub(crate) static SIZE: Quantity = Quantity {
    what: "a size",
    example: "6 GiB",
    units: &[
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
};

pub(crate) static RATE: Quantity = Quantity {
    what: "a data rate",
    example: "24.8 GB/s",
    units: &[
        ("B/s", 1),
        ("KB/s", 1_000),
        ("MB/s", 1_000_000),
        ("GB/s", 1_000_000_000),
        ("TB/s", 1_000_000_000_000),
        ("KiB/s", 1 << 10),
        ("MiB/s", 1 << 20),
        ("GiB/s", 1 << 30),
        ("TiB/s", 1 << 40),
    ],
};

pub(crate) static TIME: Quantity = Quantity {
    what: "a time",
    example: "1.4 us",
    units: &[("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)],
};

pub(crate) static FLOPS: Quantity = Quantity {
    what: "a compute rate",
    example: "400 TFLOP/s",
    units: &[
        ("MFLOP/s", 1_000_000),
        ("GFLOP/s", 1_000_000_000),
        ("TFLOP/s", 1_000_000_000_000),
        ("PFLOP/s", 1_000_000_000_000_000),
    ],
};

pub(crate) static ARRIVALS: Quantity =
    Quantity { what: "an arrival rate", example: "4 /s", units: &[("/s", 1_000_000_000)] };

/// Requests per second, in billionths, so that it is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArrivalRate(pub u64);

impl ArrivalRate {
    /// Requests per second.
    pub fn per_second(self) -> f64 {
        self.0 as f64 * 1e-9
    }
}

/// Reads a size.
pub(crate) fn size(text: &str) -> Result<Bytes, Wrong> {
    SIZE.read(text).map(Bytes)
}

/// Reads a size that is not zero.
pub(crate) fn size_above_zero(text: &str) -> Result<Bytes, Wrong> {
    SIZE.above_zero(text).map(Bytes)
}

/// Reads a data rate that is not zero.
pub(crate) fn rate(text: &str) -> Result<Bandwidth, Wrong> {
    RATE.above_zero(text).map(Bandwidth)
}

/// Reads a data rate.
pub(crate) fn any_rate(text: &str) -> Result<Bandwidth, Wrong> {
    RATE.read(text).map(Bandwidth)
}

/// Reads a time.
pub(crate) fn time(text: &str) -> Result<Nanos, Wrong> {
    TIME.read(text).map(Nanos)
}

/// Reads a time that is not zero.
pub(crate) fn time_above_zero(text: &str) -> Result<Nanos, Wrong> {
    TIME.above_zero(text).map(Nanos)
}

/// Reads a compute rate that is not zero.
pub(crate) fn flops(text: &str) -> Result<FlopRate, Wrong> {
    FLOPS.above_zero(text).map(FlopRate)
}

/// Reads an arrival rate that is not zero.
pub(crate) fn arrivals(text: &str) -> Result<ArrivalRate, Wrong> {
    ARRIVALS.above_zero(text).map(ArrivalRate)
}

/// Reads an arrival rate.
pub(crate) fn arrival_rate(text: &str) -> Result<ArrivalRate, Wrong> {
    ARRIVALS.read(text).map(ArrivalRate)
}

/// Reads a number of slots, or says that it is none.
pub(crate) fn slots(text: &str) -> Option<Result<u32, Wrong>> {
    let (number, unit) = split(text);
    matches!(unit, "slot" | "slots").then(|| {
        let count = whole(number)?;
        match u32::try_from(count) {
            Ok(0) => Err(Wrong::new("no slots", "at least `1 slots`")),
            Ok(count) => Ok(count),
            Err(_) => Err(Wrong::new("too many slots", format!("at most {}", u32::MAX))),
        }
    })
}

/// Reads a whole number.
pub(crate) fn whole(text: &str) -> Result<u64, Wrong> {
    let digits = text.trim();
    if digits.starts_with('-') {
        return Err(Wrong::new(format!("{text} is negative"), "a whole number, 0 or more"));
    }
    digits.parse().map_err(|_| Wrong::new(format!("`{text}` is no whole number"), "a whole number such as 8"))
}

/// Reads a whole number of at least 1 that fits 32 bits.
pub(crate) fn count(text: &str) -> Result<u32, Wrong> {
    match u32::try_from(whole(text)?) {
        Ok(0) => Err(Wrong::new("zero", "at least 1")),
        Ok(count) => Ok(count),
        Err(_) => Err(Wrong::new(format!("{text} is too large"), format!("at most {}", u32::MAX))),
    }
}

/// Reads a count that is bounded.
pub(crate) fn at_most(most: u64) -> impl Fn(&str) -> Result<u32, Wrong> {
    move |text| match count(text)? {
        counted if u64::from(counted) <= most => Ok(counted),
        _ => Err(Wrong::new(format!("{text} is too large"), format!("at most {most}"))),
    }
}

/// Reads a plain number.
pub(crate) fn number(text: &str) -> Result<f64, Wrong> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    match text.parse::<f64>() {
        Ok(number) if plain && number.is_finite() => Ok(number),
        _ => Err(Wrong::new(format!("`{text}` is no plain number"), "a number without a unit, such as 0.8")),
    }
}

/// Reads a plain number between two bounds.
pub(crate) fn between(text: &str, least: f64, most: f64) -> Result<f64, Wrong> {
    let value = number(text)?;
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Wrong::new(format!("{text} is out of range"), format!("from {least} to {most}"))),
    }
}

/// Reads a fraction from 0 to 1, or the same in per cent.
pub(crate) fn fraction(text: &str) -> Result<f64, Wrong> {
    let (digits, scale) = match text.trim().strip_suffix('%') {
        Some(digits) => (digits.trim(), 100.0),
        None => (text.trim(), 1.0),
    };
    let hint = "a fraction from 0 to 1 such as 0.02, or a percentage such as `2 %`";
    let value = number(digits).map_err(|wrong| Wrong::new(wrong.message, hint))? / scale;
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(Wrong::new(format!("{text} is not between 0 and 1"), hint)),
    }
}

impl Quantity {
    fn above_zero(&self, text: &str) -> Result<u64, Wrong> {
        match self.read(text)? {
            0 => Err(Wrong::new(
                format!("{} of zero", self.what),
                format!("more than zero, such as `{}`", self.example),
            )),
            amount => Ok(amount),
        }
    }

    fn read(&self, text: &str) -> Result<u64, Wrong> {
        let (number, unit) = split(text);
        let decimal = Decimal::read(number).map_err(|why| self.wrong(&format!("`{text}` {why}")))?;
        let Some(&(_, scale)) = self.units.iter().find(|(name, _)| *name == unit) else {
            return Err(self.unknown_unit(text, number, unit));
        };
        decimal.times(scale).map_err(|why| self.wrong(&format!("`{text}` {why}")))
    }

    fn unknown_unit(&self, text: &str, number: &str, unit: &str) -> Wrong {
        if unit.is_empty() {
            return self.wrong(&format!("`{text}` has no unit"));
        }
        let names = self.units.iter().map(|(name, _)| *name);
        let message = format!("`{unit}` is no unit of {}", self.what);
        match suggest(unit, names.clone()) {
            Some(name) => Wrong::new(message, format!("did you mean `{number} {name}`?")),
            None => Wrong::new(message, format!("one of: {}", names.collect::<Vec<_>>().join(", "))),
        }
    }

    fn wrong(&self, message: &str) -> Wrong {
        Wrong::new(message, format!("{} with its unit, such as `{}`", self.what, self.example))
    }
}

/// The number and the unit, blanks apart.
pub(crate) fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | ',')))
        .unwrap_or(text.len());
    (text[..end].trim(), text[end..].trim())
}

/// `digits / 10^places`.
pub(crate) struct Decimal {
    digits: u128,
    places: u32,
}

impl Decimal {
    pub(crate) fn read(text: &str) -> Result<Decimal, &'static str> {
        const PLACES: usize = 18;
        if text.starts_with('-') {
            return Err("is negative");
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
            return Err("does not start with a decimal number");
        }
        if fraction.len() > PLACES {
            return Err("has more than 18 decimal places");
        }
        let digits = format!("{whole}{fraction}").parse().map_err(|_| "is too large")?;
        Ok(Decimal { digits, places: fraction.len() as u32 })
    }

    pub(crate) fn times(&self, scale: u128) -> Result<u64, &'static str> {
        let divisor = 10u128.pow(self.places);
        let scaled = self.digits.checked_mul(scale).and_then(|scaled| scaled.checked_add(divisor / 2));
        let rounded = scaled.ok_or("is too large")? / divisor;
        if rounded == 0 && self.digits != 0 {
            return Err("is less than half of the smallest unit");
        }
        u64::try_from(rounded).map_err(|_| "is too large")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_quantities_are_exact() {
        assert_eq!(rate("24.8 GB/s").unwrap(), Bandwidth(24_800_000_000));
        assert_eq!(size("6 GiB").unwrap(), Bytes(6 << 30));
        assert_eq!(size("13.2MB").unwrap(), Bytes(13_200_000));
        assert_eq!(size("1.1 GiB").unwrap(), Bytes(1_181_116_006));
        assert_eq!(time("1.4 us").unwrap(), Nanos(1_400));
        assert_eq!(flops("400 TFLOP/s").unwrap(), FlopRate(400_000_000_000_000));
        assert_eq!(arrivals("0.25 /s").unwrap(), ArrivalRate(250_000_000));
        assert_eq!(slots("192 slots"), Some(Ok(192)));
        assert_eq!(fraction("2 %").unwrap(), fraction("0.02").unwrap());
    }

    #[test]
    fn what_is_wrong_and_what_would_be_right() {
        let says = |text: &str, message: &str, hint: &str| {
            let wrong = size(text).unwrap_err();
            assert_eq!((wrong.message.as_str(), wrong.hint.as_deref()), (message, Some(hint)));
        };
        let example = "a size with its unit, such as `6 GiB`";
        says("6", "`6` has no unit", example);
        says("-6 GiB", "`-6 GiB` is negative", example);
        says("6 gib", "`gib` is no unit of a size", "did you mean `6 GiB`?");
        says("lots", "`lots` does not start with a decimal number", example);
        says("0.3 B", "`0.3 B` is less than half of the smallest unit", example);
        says("99999999999 TiB", "`99999999999 TiB` is too large", example);
        says(&"9".repeat(60), &format!("`{}` is too large", "9".repeat(60)), example);
        says("1,5 GiB", "`1,5 GiB` does not start with a decimal number", example);
        assert_eq!(size_above_zero("0 B").unwrap_err().message, "a size of zero");
        assert_eq!(fraction("3").unwrap_err().message, "3 is not between 0 and 1");
        assert_eq!(slots("0 slots").unwrap().unwrap_err().message, "no slots");
        assert!(number("nan").is_err() && number("inf").is_err() && number("1e999").is_err());
    }

    proptest! {
        #[test]
        fn every_byte_count_reads_back(bytes: u64) {
            prop_assert_eq!(size(&format!("{bytes} B")), Ok(Bytes(bytes)));
            prop_assert_eq!(size(&format!("{}.{:09} GB", bytes / 1_000_000_000, bytes % 1_000_000_000)), Ok(Bytes(bytes)));
            prop_assert_eq!(time(&format!("{}.{:06} ms", bytes / 1_000_000, bytes % 1_000_000)), Ok(Nanos(bytes)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            for read in [size, size_above_zero] {
                prop_assert!(read(&text).is_ok_and(|_| text.trim().ends_with('B')) || read(&text).is_err());
            }
            let _ = (fraction(&text), slots(&text), whole(&text), number(&text));
        }
    }
}
