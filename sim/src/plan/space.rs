//! What may vary: axes with their values, and the points of their grid.

use scenarios::range;
use std::num::NonZero;
use thiserror::Error;

/// The axis that is no path of a scenario: machines behind a dispatcher.
pub const COUNT: &str = "count";
/// The most values of all axes together.
const MOST_VALUES: usize = 10_000;

/// Something that may vary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What it was called: a tier, `count`, or a path of the scenario.
    pub name: String,
    /// The path of the scenario that is set; `None` for the number of machines.
    pub path: Option<String>,
    /// Its values, as they would be written; the least first where it grows.
    pub values: Vec<String>,
    /// Whether more of it is never worse, but perhaps dearer: memory, rates of the machine, machines.
    pub grows: bool,
}

/// Axes that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AxisError {
    /// A range is none.
    #[error("--vary {axis}: {source}")]
    Range {
        /// The axis.
        axis: String,
        /// Why.
        source: range::RangeError,
    },
    /// A value is missing between commas.
    #[error("--vary {axis}= has no value {place}: write {axis}=A,B,C or {axis}=LOW..HIGH")]
    Empty {
        /// The axis.
        axis: String,
        /// Which one, from 1.
        place: usize,
    },
    /// A step for what is no range.
    #[error("--step {axis}: {axis} has no range; write --vary {axis}=LOW..HIGH, or leave the step out")]
    Step {
        /// The axis.
        axis: String,
    },
    /// An axis is given twice, or under two names.
    #[error("--vary {axis}: `{with}` is varied already; put all its values into one")]
    Twice {
        /// The axis.
        axis: String,
        /// What it is called the first time.
        with: String,
    },
    /// A number of machines that is none.
    #[error("--vary count: `{0}` is no number of machines; write count=1..8 or count=1,2,4")]
    Count(String),
    /// Too many values.
    #[error("the axes have more than {MOST_VALUES} values together; give larger steps")]
    Values,
}

impl Axis {
    /// The axis of `--vary name=values`, with the step of its range if one is given. A plain name that is no key of a
    /// scenario, as `hbm`, is that of a tier, and means the cap on it.
    ///
    /// # Errors
    /// See [`AxisError`].
    pub fn new(name: &str, text: &str, step: Option<&str>) -> Result<Axis, AxisError> {
        let key = name.contains(['.', '[']) || scenarios::is_key(name);
        let path = (name != COUNT).then(|| if key { name.to_owned() } else { format!("memory.{name}") });
        let memory =
            path.as_ref().is_none_or(|path| path.starts_with("memory.") || path.starts_with("machine."));
        let (values, grows) = match range::is_range(text) {
            true => {
                let failed = |source| AxisError::Range { axis: name.to_owned(), source };
                (range::values(text, step).map_err(failed)?, memory)
            }
            false => {
                let listed = listed(name, text)?;
                let sorted = range::sorted(&listed).filter(|_| memory);
                if step.is_some() {
                    return Err(AxisError::Step { axis: name.to_owned() });
                }
                let grows = sorted.is_some();
                (sorted.unwrap_or_else(|| listed.iter().map(|&value| value.to_owned()).collect()), grows)
            }
        };
        let axis = Axis { name: name.to_owned(), path, values, grows };
        match axis.path {
            None => axis.checked_count(),
            Some(_) => Ok(axis),
        }
    }

    fn checked_count(self) -> Result<Axis, AxisError> {
        let wrong = |value: &&String| value.parse::<NonZero<u32>>().is_err();
        match self.values.iter().find(wrong) {
            Some(value) => Err(AxisError::Count(value.clone())),
            None => Ok(self),
        }
    }
}

/// The values of `a,b,c`, each once.
fn listed<'t>(axis: &str, text: &'t str) -> Result<Vec<&'t str>, AxisError> {
    let mut values = scenarios::alternatives(text);
    if let Some(place) = values.iter().position(|value| value.is_empty()) {
        return Err(AxisError::Empty { axis: axis.to_owned(), place: place + 1 });
    }
    let mut seen = std::collections::BTreeSet::new();
    values.retain(|value| seen.insert(*value));
    Ok(values)
}

/// A point of the grid: for each axis, the place of its value.
pub type Point = Vec<usize>;

/// The grid.
#[derive(Clone, Debug)]
pub struct Space {
    axes: Vec<Axis>,
}

impl Space {
    /// The grid of these axes.
    ///
    /// # Errors
    /// Two of them are the same, or they have too many values.
    pub fn new(axes: Vec<Axis>) -> Result<Space, AxisError> {
        for (place, axis) in axes.iter().enumerate() {
            if let Some(other) = axes[..place].iter().find(|other| other.path == axis.path) {
                return Err(AxisError::Twice { axis: axis.name.clone(), with: other.name.clone() });
            }
        }
        match axes.iter().map(|axis| axis.values.len()).sum::<usize>() {
            sum if sum > MOST_VALUES => Err(AxisError::Values),
            _ => Ok(Space { axes }),
        }
    }

    /// The axes.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// How many points there are; stops at the largest number.
    pub fn len(&self) -> usize {
        self.axes.iter().map(|axis| axis.values.len()).fold(1, usize::saturating_mul)
    }

    /// How many points there are without the axes that grow: what bisection cannot tell from each other.
    pub fn branches(&self) -> usize {
        let others = self.axes.iter().filter(|axis| !axis.grows);
        others.map(|axis| axis.values.len()).fold(1, usize::saturating_mul)
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every point, the last axis running fastest.
    pub fn points(&self) -> Vec<Point> {
        let longer = |points: Vec<Point>, axis: &Axis| {
            let with = |point: &Point, place| point.iter().copied().chain([place]).collect();
            points
                .iter()
                .flat_map(|point| (0..axis.values.len()).map(move |place| with(point, place)))
                .collect()
        };
        self.axes.iter().fold(vec![vec![]], longer)
    }

    /// The axes with their values at a point.
    pub fn at<'s>(&'s self, point: &'s [usize]) -> impl Iterator<Item = (&'s Axis, &'s str)> {
        self.axes.iter().zip(point).map(|(axis, &place)| (axis, axis.values[place].as_str()))
    }

    /// What a point sets in the scenario.
    pub fn overrides(&self, point: &[usize]) -> Vec<(String, String)> {
        let set = self.at(point).filter_map(|(axis, value)| Some((axis.path.clone()?, value.to_owned())));
        set.collect()
    }

    /// The machines of a point.
    pub fn replicas(&self, point: &[usize]) -> NonZero<u32> {
        let count = self.at(point).find(|(axis, _)| axis.path.is_none());
        count.and_then(|(_, value)| value.parse().ok()).unwrap_or(NonZero::<u32>::MIN)
    }

    /// Whether one point has nowhere more than another, and is the same where there is no more and less: what it can, the
    /// other can too.
    pub fn within(&self, one: &[usize], other: &[usize]) -> bool {
        let places = one.iter().zip(other);
        self.axes.iter().zip(places).all(|(axis, (a, b))| if axis.grows { a <= b } else { a == b })
    }

    /// The points one step below on each axis that grows, with that axis's place.
    pub fn below<'s>(&'s self, point: &'s [usize]) -> impl Iterator<Item = (usize, Point)> + 's {
        let steps = self.axes.iter().enumerate().filter(|(_, axis)| axis.grows);
        steps.filter_map(|(place, _)| {
            let mut less = point.to_vec();
            less[place] = less[place].checked_sub(1)?;
            Some((place, less))
        })
    }

    /// The points that another one can do all that they can, itself among them; at most so many, those nearest to it.
    pub(super) fn lattice_below(&self, point: &[usize], most: usize) -> Vec<Point> {
        let growing = self.axes.iter().filter(|axis| axis.grows).count().max(1) as f64;
        // As many steps down on each axis as fit together.
        let steps = (libm::pow(most as f64, 1.0 / growing) as usize).max(1);
        let longer = |points: Vec<Point>, (axis, &place): (&Axis, &usize)| {
            let least = if axis.grows { (place + 1).saturating_sub(steps) } else { place };
            let with = |point: &Point, at| point.iter().copied().chain([at]).collect();
            points.iter().flat_map(|point| (least..=place).map(move |at| with(point, at))).collect()
        };
        self.axes.iter().zip(point).fold(vec![vec![]], longer)
    }
}
