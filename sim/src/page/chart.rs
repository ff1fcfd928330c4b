//! A chart as it is meant: what its axes count, and its lines, bars or points. [`super::draw`] makes pictures of it.

use super::draw::{self, DrawError, Picture, Size};
use super::figure::Unit;
use serde::Serialize;

/// A colour with a meaning, one for each theme. Eight that people with any kind of colour vision tell apart (Okabe and Ito,
/// Color Universal Design, 2008), lighter on dark, and what is not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    /// Bluish green.
    Green,
    /// Blue.
    Blue,
    /// Sky blue.
    Sky,
    /// Orange.
    Orange,
    /// Vermilion.
    Red,
    /// Reddish purple.
    Purple,
    /// Yellow.
    Yellow,
    /// What is left over.
    Grey,
    /// Text on axes.
    Ink,
    /// Lines of the grid.
    Grid,
    /// Limits and marks, which are dashed.
    Rule,
}

/// Colour, name, light theme, dark theme.
const COLOURS: [(Colour, &str, &str, &str); 11] = [
    (Colour::Green, "green", "#009e73", "#19b88b"),
    (Colour::Blue, "blue", "#0072b2", "#4a9fdc"),
    (Colour::Sky, "sky", "#56b4e9", "#8fd0f5"),
    (Colour::Orange, "orange", "#e69f00", "#f0b429"),
    (Colour::Red, "red", "#d55e00", "#ee7a2e"),
    (Colour::Purple, "purple", "#b8629a", "#d98fbd"),
    (Colour::Yellow, "yellow", "#d6c520", "#f0e442"),
    (Colour::Grey, "grey", "#b9c0ca", "#566170"),
    (Colour::Ink, "soft", "#5c6878", "#a3aebd"),
    (Colour::Grid, "line", "#e2e5ea", "#2f3844"),
    (Colour::Rule, "rule", "#5c6878", "#a3aebd"),
];

impl Colour {
    pub(super) fn all() -> impl Iterator<Item = Colour> {
        COLOURS.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Colour, &'static str, &'static str, &'static str) {
        &COLOURS[self as usize]
    }

    pub(super) fn name(self) -> String {
        format!("--{}", self.row().1)
    }

    pub(super) fn light(self) -> &'static str {
        self.row().2
    }

    pub(super) fn dark(self) -> &'static str {
        self.row().3
    }

    /// What a style sheet calls it.
    pub(super) fn css(self) -> String {
        format!("var({})", self.name())
    }
}

/// A level rule this many times as high as the largest value would leave that no room.
const FAR: f64 = 3.0;

/// What is drawn of each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line through the middles of its bands.
    Lines,
    /// Areas on top of each other.
    Stack,
    /// A bar for each band.
    Bars,
    /// A point for each band, joined in order.
    Points,
}

/// A part of the horizontal axis: from, to. A point is one of no width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band(pub f64, pub f64);

/// One line of a chart: a value for each band.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its colour.
    pub colour: Colour,
    /// Its values in the order of the bands; `None` where there is none.
    pub values: Vec<Option<f64>>,
}

/// A straight line at one value, with its name. A level one far above all values is named and not drawn.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What is there.
    pub name: String,
    /// The value on the vertical axis; on the horizontal one, if `upright`.
    pub at: f64,
    /// Whether it stands.
    pub upright: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// More of that.
    pub about: String,
    /// What is drawn.
    pub kind: Kind,
    /// The horizontal axis: what it is called, what it counts.
    pub x: (&'static str, Unit),
    /// What the vertical axis counts.
    pub y: Unit,
    /// Where values are on the horizontal axis, in order.
    pub bands: Vec<Band>,
    /// The lines.
    pub lines: Vec<Line>,
    /// Limits and marks.
    pub rules: Vec<Rule>,
}

/// A chart as the template shows it.
#[derive(Serialize)]
pub(super) struct Drawn {
    id: usize,
    title: String,
    about: String,
    /// Colour and name of each line; nothing where there is but one.
    legend: Vec<(String, String)>,
    wide: Option<Picture>,
    narrow: Option<Picture>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    rules: Vec<String>,
}

impl Chart {
    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.values.iter().flatten().next().is_none())
    }

    /// Without the lines that are nothing but zero, if others are left.
    pub fn without_zeros(mut self) -> Chart {
        let some = |line: &Line| line.values.iter().flatten().any(|&value| value != 0.0);
        if self.lines.iter().any(some) {
            self.lines.retain(some);
        }
        self
    }

    /// The largest value, sums of stacks included.
    fn most(&self) -> f64 {
        let at = |index: usize| self.lines.iter().filter_map(move |line| *line.values.get(index)?);
        let of_band = |index: usize| match self.kind {
            Kind::Stack => at(index).sum(),
            _ => at(index).fold(0.0, f64::max),
        };
        (0..self.bands.len()).map(of_band).fold(0.0, f64::max)
    }

    /// The upper end of the vertical axis.
    pub(super) fn top(&self) -> f64 {
        let most = self.most();
        // Of everything no more is there; upright rules have their names above all bars; anything else has some air.
        if self.kind == Kind::Stack && self.y == Unit::Share && most > 0.9 {
            return most.max(1.0);
        }
        let level = self.rules.iter().filter(|rule| !rule.upright && rule.at <= FAR * most);
        let most = level.map(|rule| rule.at).fold(most, f64::max);
        let air = if self.rules.iter().any(|rule| rule.upright) { 1.3 } else { 1.06 };
        if most > 0.0 { air * most } else { 1.0 }
    }

    /// Where a band is, in words.
    pub(super) fn place(&self, Band(from, to): Band) -> String {
        let (_, unit) = self.x;
        if from == to {
            return unit.write(from);
        }
        format!("{} to {}", unit.write(from), unit.write(to))
    }

    pub(super) fn drawn(&self, id: usize) -> Result<Drawn, DrawError> {
        let draw = |size: Size| (!self.is_empty()).then(|| draw::draw(self, size)).transpose();
        let row = |(index, &band): (usize, &Band)| {
            let value = |line: &Line| line.values.get(index).copied().flatten();
            let values = self.lines.iter().map(|line| value(line).map_or(String::new(), |v| self.y.write(v)));
            std::iter::once(self.place(band)).chain(values).collect()
        };
        let name = |line: &Line| line.name.clone();
        let legend = self.lines.iter().map(|line| (line.colour.css(), line.name.clone()));
        let (top, right) = (self.top(), self.bands.last().map_or(0.0, |band| band.1));
        // An upright rule that can be seen has its name beside it.
        let rule = |rule: &Rule| match rule.upright {
            true if rule.at <= right => None,
            true => Some(format!("{} {}, far to the right", rule.name, self.x.1.write(rule.at))),
            false if rule.at > top => Some(format!("{} {}, far above", rule.name, self.y.write(rule.at))),
            false => Some(format!("{} {}", rule.name, self.y.write(rule.at))),
        };
        Ok(Drawn {
            id,
            title: self.title.clone(),
            about: self.about.clone(),
            legend: if self.lines.len() > 1 { legend.collect() } else { Vec::new() },
            wide: draw(Size::WIDE)?,
            narrow: draw(Size::NARROW)?,
            header: std::iter::once(self.x.0.to_owned()).chain(self.lines.iter().map(name)).collect(),
            rows: self.bands.iter().enumerate().map(row).collect(),
            rules: self.rules.iter().filter_map(rule).collect(),
        })
    }
}
