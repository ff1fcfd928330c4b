//! The parameters that are searched, as places between 0 and 1 on their scales.

use policy::registry::{Entry, Param, Scale};
use thiserror::Error;

/// Digits of a value: more would not be a difference that anyone could explain.
const DIGITS: i32 = 3;

/// Some of a policy's parameters, by their place in its registry entry.
#[derive(Clone, Debug)]
pub struct Space {
    entry: &'static Entry,
    searched: Vec<usize>,
}

/// Parameters that cannot be searched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpaceError {
    /// The policy has no parameter of this name.
    #[error("{policy} has no parameter `{name}`; it has {}", .known.join(", "))]
    Unknown {
        /// The policy.
        policy: &'static str,
        /// What was given.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// There is nothing to search.
    #[error("{policy} has no parameter to search; `hotset policies` lists those of every policy")]
    Nothing {
        /// The policy.
        policy: &'static str,
    },
}

impl Space {
    /// The parameters called `names`; all but the switches where none is named.
    ///
    /// # Errors
    /// A name is not known, or nothing is left to search.
    pub fn new(entry: &'static Entry, names: &[String]) -> Result<Space, SpaceError> {
        let params = entry.params;
        let unknown = names.iter().find(|name| params.iter().all(|param| param.name != name.as_str()));
        if let Some(name) = unknown.filter(|_| !params.is_empty()) {
            let known = params.iter().map(|param| param.name).collect();
            return Err(SpaceError::Unknown { policy: entry.name, name: name.clone(), known });
        }
        let asked = |param: &Param| match names {
            [] => param.scale != Scale::Switch,
            names => names.iter().any(|name| name == param.name),
        };
        let searched: Vec<usize> =
            (0..params.len()).filter(|&i| asked(&params[i]) && params[i].min < params[i].max).collect();
        match searched.is_empty() {
            true => Err(SpaceError::Nothing { policy: entry.name }),
            false => Ok(Space { entry, searched }),
        }
    }

    /// The policy.
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// How many parameters are searched.
    pub fn dimensions(&self) -> usize {
        self.searched.len()
    }

    /// The parameters searched, each with its value among those of a policy.
    pub fn of<'p>(&'p self, params: &'p [f64]) -> impl Iterator<Item = (&'static Param, f64)> + 'p {
        self.searched.iter().map(|&place| (&self.entry.params[place], params[place]))
    }

    /// Where values stand on their scales: from 0, less than 1.
    pub fn point(&self, params: &[f64]) -> Vec<f64> {
        self.of(params).map(|(param, value)| place(param, value).clamp(0.0, 1.0 - f64::EPSILON)).collect()
    }

    /// The parameters of a point; those that are not searched are as in `rest`.
    pub fn params(&self, point: &[f64], rest: &[f64]) -> Vec<f64> {
        let mut params = rest.to_vec();
        for (&index, &place) in self.searched.iter().zip(point) {
            params[index] = value(&self.entry.params[index], place);
        }
        params
    }
}

fn place(param: &Param, value: f64) -> f64 {
    let walked = |value: f64| if param.scale == Scale::Log { logarithm(param, value) } else { value };
    let (min, max) = match param.scale {
        // A half on either side, so that the outer ones are as likely as the others.
        Scale::Integer | Scale::Switch => (param.min - 0.5, param.max + 0.5),
        Scale::Linear | Scale::Log => (walked(param.min), walked(param.max)),
    };
    (walked(value) - min) / (max - min)
}

fn value(param: &Param, place: f64) -> f64 {
    let between = |min: f64, max: f64| min + place * (max - min);
    let value = match param.scale {
        Scale::Integer | Scale::Switch => between(param.min - 0.5, param.max + 0.5).round(),
        Scale::Linear => rounded(between(param.min, param.max)),
        Scale::Log => {
            let walked = between(logarithm(param, param.min), logarithm(param, param.max));
            rounded(if param.min > 0.0 { libm::exp(walked) } else { libm::expm1(walked) })
        }
    };
    value.clamp(param.min, param.max)
}

fn logarithm(param: &Param, value: f64) -> f64 {
    if param.min > 0.0 { libm::log(value) } else { libm::log1p(value) }
}

/// A number to so many digits, as a decimal would have it.
fn rounded(value: f64) -> f64 {
    format!("{value:.*e}", DIGITS as usize - 1).parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::registry::lookup;
    use proptest::prelude::*;

    fn param(scale: Scale, min: f64, max: f64) -> Param {
        Param { name: "x", about: "", default: min, min, max, scale }
    }

    #[test]
    fn scales_are_walked_evenly() {
        assert_eq!(value(&param(Scale::Log, 1.0, 1e4), 0.5), 100.0);
        assert_eq!(value(&param(Scale::Linear, -1.0, 1.0), 0.75), 0.5);
        let whole = param(Scale::Integer, 1.0, 4.0);
        let counts = (0..400).map(|i| value(&whole, (f64::from(i) + 0.5) / 400.0));
        let counts = counts.fold([0; 5], |mut counts, value| {
            counts[value as usize] += 1;
            counts
        });
        assert_eq!(counts, [0, 100, 100, 100, 100]);
        assert_eq!(rounded(0.123456), 0.123);
    }

    #[test]
    fn switches_are_left_alone_unless_named() {
        let entry = lookup("predictive").unwrap();
        let all = Space::new(entry, &[]).unwrap();
        assert!(all.dimensions() > 1 && all.dimensions() < entry.params.len());
        let named = Space::new(entry, &["pressure".to_owned()]).unwrap();
        assert_eq!(named.dimensions(), 1);
        assert!(matches!(Space::new(entry, &["x".to_owned()]), Err(SpaceError::Unknown { .. })));
        assert!(matches!(Space::new(lookup("lru").unwrap(), &[]), Err(SpaceError::Nothing { .. })));
    }

    proptest! {
        #[test]
        fn a_value_finds_its_place_again(place in 0.0..1.0_f64, min in 0.0..5.0_f64, width in 0.1..1e4_f64) {
            for scale in [Scale::Linear, Scale::Log, Scale::Integer] {
                let (min, max) = if scale == Scale::Integer { (min.floor(), (min + width).ceil()) } else { (min, min + width) };
                let param = param(scale, min, max);
                let there = value(&param, place);
                prop_assert!((min..=max).contains(&there));
                let again = value(&param, super::place(&param, there).clamp(0.0, 1.0));
                // Three digits, twice.
                prop_assert!((again - there).abs() <= 0.011 * there.abs(), "{} {}", there, again);
            }
        }
    }
}
