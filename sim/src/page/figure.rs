//! Numbers as people read them.

/// What a chart's axis counts. A value's axis shows it in the multiple that suits the largest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, shown in microseconds to hours.
    Seconds,
    /// A share of one, shown in per cent.
    Share,
    /// Bytes, shown in powers of 1024.
    Bytes,
    /// A number of things, or of things a second, which the text names.
    Of(&'static str),
}

/// How the values of an axis are shown: divided, with so many decimals, before a suffix.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) divisor: f64,
    pub(super) suffix: &'static str,
    /// What the numbers mean where the suffix does not say it.
    pub(super) of: &'static str,
}

impl Unit {
    /// The scale for values up to `most`.
    pub(super) fn scale(self, most: f64) -> Scale {
        let steps: &[(f64, &str)] = match self {
            Unit::Seconds => &[(1e-6, "µs"), (1e-3, "ms"), (1.0, "s"), (60.0, "min"), (3600.0, "h")],
            Unit::Share => &[(1e-2, "%")],
            Unit::Bytes => &[
                (1.0, "B"),
                (1024.0, "KiB"),
                (1_048_576.0, "MiB"),
                (1_073_741_824.0, "GiB"),
                (1_099_511_627_776.0, "TiB"),
            ],
            Unit::Of(_) => &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")],
        };
        // A unit is left for the next when its numbers would have four digits; seconds last for ten minutes.
        let least = |suffix: &str| match suffix {
            "min" => 10.0,
            "h" => 3.0,
            _ => 1.0,
        };
        let suits = |&&(divisor, suffix): &&(f64, &str)| most >= divisor * least(suffix);
        let (divisor, suffix) = steps.iter().rev().find(suits).copied().unwrap_or(steps[0]);
        Scale { divisor, suffix, of: if let Unit::Of(what) = self { what } else { "" } }
    }

    /// A value with its unit, by itself.
    pub(super) fn write(self, value: f64) -> String {
        let Scale { divisor, suffix, of } = match self {
            Unit::Of(_) => Scale { divisor: 1.0, ..self.scale(0.0) },
            _ => self.scale(value.abs()),
        };
        let words: Vec<&str> = [suffix, of].into_iter().filter(|word| !word.is_empty()).collect();
        let number = significant(value / divisor);
        if words.is_empty() { number } else { format!("{number}\u{a0}{}", words.join("\u{a0}")) }
    }
}

impl Scale {
    /// A tick of an axis whose ticks are so far apart.
    pub(super) fn tick(&self, value: f64, apart: f64) -> String {
        let apart = (apart / self.divisor).abs();
        let whole = |decimals: &usize| {
            let apart = apart * libm::pow(10.0, *decimals as f64);
            apart >= 0.99 && (apart - apart.round()).abs() < 1e-6 * apart
        };
        let decimals = (0..9).find(whole).unwrap_or(0);
        let number = format!("{:.decimals$}", value / self.divisor);
        let number =
            if number.trim_start_matches(['-', '0', '.']).is_empty() { "0".to_owned() } else { number };
        match self.suffix {
            "" => number,
            "k" | "M" | "G" if number == "0" => number,
            "k" | "M" | "G" | "%" => format!("{number}{}", self.suffix),
            suffix => format!("{number}\u{a0}{suffix}"),
        }
    }
}

/// Three figures, without an exponent.
pub fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..1.0 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

/// Seconds, or milliseconds where that is less than one.
pub fn seconds(time: f64) -> String {
    if time < 1.0 {
        format!("{}\u{a0}ms", significant(time * 1e3))
    } else {
        format!("{}\u{a0}s", significant(time))
    }
}

/// A share of one in per cent.
pub fn percent(share: f64) -> String {
    format!("{}\u{a0}%", significant(100.0 * share))
}

/// Groups of three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A share of one as the width of a bar, in per cent.
pub(super) fn width(share: f64) -> String {
    format!("{:.3}", 100.0 * share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!([0, 12, 999, 1_000, 1_234_567].map(count), ["0", "12", "999", "1,000", "1,234,567"]);
        let written = [0.0, 0.01234, 1.234, 12.34, 123.4, 12_345.6].map(significant);
        assert_eq!(written, ["0", "0.012", "1.23", "12.3", "123", "12,346"]);
    }

    #[test]
    fn ticks_have_a_unit_and_as_many_decimals_as_tell_them_apart() {
        let tick = |unit: Unit, most: f64, value: f64, apart: f64| unit.scale(most).tick(value, apart);
        assert_eq!(tick(Unit::Seconds, 0.05, 0.02, 0.01), "20\u{a0}ms");
        assert_eq!(tick(Unit::Seconds, 0.05, 0.0025, 0.0025), "2.5\u{a0}ms");
        assert_eq!(tick(Unit::Seconds, 100.0, 50.0, 50.0), "50\u{a0}s");
        assert_eq!(tick(Unit::Seconds, 7200.0, 3600.0, 1200.0), "60\u{a0}min");
        assert_eq!(tick(Unit::Share, 1.0, 0.5, 0.25), "50%");
        assert_eq!(tick(Unit::Share, 0.012, 0.005, 0.005), "0.5%");
        assert_eq!(tick(Unit::Bytes, 3e9, 2_147_483_648.0, 1_073_741_824.0), "2\u{a0}GiB");
        assert_eq!(tick(Unit::Of("tok/s"), 25_000.0, 20_000.0, 5_000.0), "20k");
        assert_eq!(tick(Unit::Of("tok/s"), 25_000.0, 0.0, 5_000.0), "0");
    }

    #[test]
    fn a_value_by_itself_has_all_of_its_unit() {
        assert_eq!(Unit::Of("tok/s").write(12_345.0), "12,345\u{a0}tok/s");
        assert_eq!(Unit::Seconds.write(0.0123), "12.3\u{a0}ms");
        assert_eq!(Unit::Share.write(0.5), "50.0\u{a0}%");
        assert_eq!(Unit::Bytes.write(0.0), "0\u{a0}B");
    }
}
