//! A page about results: key figures, charts and tables in one HTML file that asks nobody for anything. It follows the
//! reader's light or dark theme, is read on a phone too, and by keyboard. The same content gives the same bytes.

mod chart;
mod draw;
mod figure;

pub use chart::{Band, Chart, Colour, Kind, Line, Rule};
pub use figure::{Unit, count, percent, seconds, significant};

use draw::DrawError;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use thiserror::Error;

const TEMPLATE: &str = include_str!("page/page.html");

/// Why a page cannot be made. Not by anything that it shows: any text and any number can be.
#[derive(Debug, Error)]
pub enum PageError {
    /// The template does not fit what it is given.
    #[error(transparent)]
    Layout(#[from] minijinja::Error),
    /// A chart cannot be drawn.
    #[error(transparent)]
    Chart(#[from] DrawError),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What it is about.
    pub title: String,
    /// What that was made of: names and values.
    pub facts: Vec<(&'static str, String)>,
    /// The figures to see first.
    pub figures: Vec<Figure>,
    /// The rest, in order.
    pub sections: Vec<Section>,
    /// What the words mean.
    pub notes: Vec<String>,
}

/// A key figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub label: &'static str,
    /// The number.
    pub value: String,
    /// Its unit.
    pub unit: &'static str,
    /// A line below it.
    pub note: String,
}

/// A part of a page.
#[derive(Clone, Debug)]
pub enum Section {
    /// A heading for what follows.
    Heading(&'static str),
    /// A chart with its numbers.
    Chart(Chart),
    /// A bar whose segments add up to all of it.
    Bar(Bar),
    /// A table.
    Table(Table),
}

/// A bar whose segments add up to all of it.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// What it shows.
    pub title: &'static str,
    /// More of that.
    pub about: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, Serialize)]
struct Segment {
    colour: String,
    name: String,
    value: String,
    /// In per cent.
    width: String,
    share: String,
}

impl Bar {
    /// A bar of the (name, colour, amount) that are more than nothing; `write` puts an amount into words.
    pub fn new(
        title: &'static str,
        about: String,
        parts: Vec<(String, Colour, f64)>,
        write: impl Fn(f64) -> String,
    ) -> Bar {
        let whole: f64 = parts.iter().map(|part| part.2).sum();
        let some = parts.into_iter().filter(|part| part.2 > 0.0);
        let segments = some.map(|(name, colour, amount)| Segment {
            colour: colour.css(),
            name,
            value: write(amount),
            width: figure::width(amount / whole),
            share: percent(amount / whole),
        });
        Bar { title, about, segments: segments.collect() }
    }
}

/// A table.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: &'static str,
    /// More of that.
    pub about: String,
    /// The names of its columns.
    pub header: Vec<&'static str>,
    /// So many columns, from the first, are words.
    pub words: usize,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
    /// What to say where there are none.
    pub empty: &'static str,
}

/// A cell of a table: text, with a meter beside it where it is a share.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    text: String,
    meter: Option<String>,
}

impl Cell {
    /// Text.
    pub fn text(text: impl ToString) -> Cell {
        Cell { text: text.to_string(), meter: None }
    }

    /// Text, and the share that it stands for.
    pub fn metered(text: impl ToString, share: f64) -> Cell {
        Cell { text: text.to_string(), meter: Some(figure::width(share)) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Laid<'a> {
    Heading(&'static str),
    Chart(Box<chart::Drawn>),
    Bar(&'a Bar),
    Table(&'a Table),
}

#[derive(Serialize)]
struct Layout<'a> {
    title: &'a str,
    facts: &'a [(&'static str, String)],
    figures: &'a [Figure],
    sections: Vec<Laid<'a>>,
    notes: &'a [String],
    colours: Vec<(String, &'static str, &'static str)>,
}

impl Page {
    /// The page as HTML.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn render(&self) -> Result<String, PageError> {
        let sections = self.sections.iter().enumerate().map(|(index, section)| {
            Ok(match section {
                Section::Heading(text) => Laid::Heading(text),
                Section::Chart(chart) => Laid::Chart(chart.drawn(index)?.into()),
                Section::Bar(bar) => Laid::Bar(bar),
                Section::Table(table) => Laid::Table(table),
            })
        });
        let layout = Layout {
            title: &self.title,
            facts: &self.facts,
            figures: &self.figures,
            sections: sections.collect::<Result<_, PageError>>()?,
            notes: &self.notes,
            colours: Colour::all().map(|colour| (colour.name(), colour.light(), colour.dark())).collect(),
        };
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_template("page.html", TEMPLATE)?;
        Ok(environment.get_template("page.html")?.render(Serde(layout))?)
    }
}
