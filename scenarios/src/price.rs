//! What a machine costs to rent: an amount an hour with its currency, and when and where that was asked for.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{Map, Text};
use crate::keys::{Key, Table, Type};
use crate::reader::{Field, text};
use crate::units::Decimal;

/// The `price` of a machine.
pub(crate) const PRICE: Type = Map(&KEYS);

static KEYS: Table = Table {
    name: "price",
    about: "What the machine costs to rent",
    open: false,
    keys: &[
        Key::required("per_hour", Text, "3.99 USD", "An hour of it, with the currency's three letters"),
        Key::required("date", Text, "2026-11-09", "When that was the price: year-month-day"),
        Key::required(
            "source",
            Text,
            "RunPod Secure Cloud",
            "Who asks it, or that it is the author's choice",
        ),
    ],
};

/// Decimal places that are kept.
const PLACES: u32 = 6;
/// More than any machine costs an hour.
const MOST: u64 = 1_000_000;

/// What a machine costs to rent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Millionths of the currency's unit an hour.
    pub micros_per_hour: u64,
    /// The currency: three capital letters, as ISO 4217 has them.
    pub currency: String,
    /// When that was the price: year-month-day.
    pub date: String,
    /// Who asks it.
    pub source: String,
}

/// Reads a price.
pub(crate) fn price(report: &mut Report, field: &Field<'_>) -> Option<Price> {
    let keys = field.keys(report, &KEYS)?;
    let amount = keys.required(report, "per_hour", amount);
    let date = keys.required(report, "date", date);
    let source = keys.required(report, "source", |written| match written.trim() {
        "" => Err(Wrong::new("no source", "say who asks this price")),
        _ => text(written),
    });
    let (micros_per_hour, currency) = amount?;
    Some(Price { micros_per_hour, currency, date: date?, source: source? })
}

fn amount(text: &str) -> Result<(u64, String), Wrong> {
    let wrong = |why: String| Wrong::new(why, "an amount and a currency, such as `3.99 USD`");
    let (number, currency) =
        text.trim().split_once(' ').ok_or_else(|| wrong(format!("`{text}` has no currency")))?;
    let currency = currency.trim();
    if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_uppercase()) {
        return Err(wrong(format!("`{currency}` is no currency")));
    }
    let micros = Decimal::read(number)
        .and_then(|amount| amount.times(10_u128.pow(PLACES)))
        .map_err(|why| wrong(format!("`{text}` {why}")))?;
    match micros {
        0 => Err(wrong("a price of zero".to_owned())),
        micros if micros > MOST * 10_u64.pow(PLACES) => Err(wrong(format!("{text} an hour is too much"))),
        micros => Ok((micros, currency.to_owned())),
    }
}

fn date(text: &str) -> Result<String, Wrong> {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, digits: usize| {
        let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u32>().ok().filter(|_| plain)
    };
    let read = match parts.as_slice() {
        [year, month, day] => number(year, 4).zip(number(month, 2)).zip(number(day, 2)),
        _ => None,
    };
    match read {
        Some(((_, month), day)) if (1..=12).contains(&month) && (1..=31).contains(&day) => {
            Ok(text.to_owned())
        }
        _ => Err(Wrong::new(format!("`{text}` is no date"), "year-month-day, such as `2026-11-09`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_exact_and_has_a_currency() {
        assert_eq!(amount("3.99 USD").unwrap(), (3_990_000, "USD".to_owned()));
        assert_eq!(amount("2 EUR").unwrap(), (2_000_000, "EUR".to_owned()));
        for wrong in ["3.99", "3.99 dollars", "-1 USD", "0 USD", "x USD", "1000001 USD", "", " USD"] {
            assert!(amount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_date_has_ten_characters() {
        assert!(date("2026-11-09").is_ok());
        for wrong in ["2026", "2026-13-01", "2026-00-01", "2026-1-1", "09-11-2026", "2026-11-+9", "today"] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }
}
