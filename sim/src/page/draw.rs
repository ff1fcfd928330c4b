//! Charts as SVG, drawn by `plotters`. It draws in stand-ins for colours, which become the page's own, so that a picture
//! follows the theme.

use super::chart::{Band, Chart, Colour, Kind, Line};
use super::figure::{Scale, Unit};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;
use std::io;
use std::ops::Range;
use thiserror::Error;

/// A chart that cannot be drawn.
#[derive(Debug, Error)]
#[error("a chart cannot be drawn: {0}")]
pub struct DrawError(#[from] DrawingAreaErrorKind<io::Error>);

/// How large a picture is, in pixels of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    width: u32,
    height: u32,
    /// The most ticks of the horizontal axis.
    ticks: usize,
    /// Whether values are shown below a pointer.
    hover: bool,
}

impl Size {
    /// For a desk.
    pub(super) const WIDE: Size = Size { width: 620, height: 250, ticks: 10, hover: true };
    /// For a phone, where there is no pointer.
    pub(super) const NARROW: Size = Size { width: 340, height: 220, ticks: 6, hover: false };
}

/// `plotters` draws at whole pixels: these are so many to one of the page's.
const FINE: u32 = 4;
const FINE_I: i32 = FINE as i32;
/// `plotters` counts the size of a font otherwise than a page does.
const FONT: u32 = 12 * FINE * 124 / 100;
/// From an axis to its labels.
const AWAY: u32 = 6 * FINE;
const FOOT: u32 = 26 * FINE;

/// A drawn chart.
#[derive(Serialize)]
pub(super) struct Picture {
    /// What `viewBox` says.
    width: u32,
    height: u32,
    /// What is inside of the `svg` element.
    inner: String,
    /// Where the pointer shows what, and how high that is.
    stops: Vec<Stop>,
    top: i32,
    bottom: i32,
    font: u32,
}

/// Where the pointer shows the values of a band.
#[derive(Serialize)]
struct Stop {
    x: i32,
    width: i32,
    middle: i32,
    text: String,
}

type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// The stand-in for a colour: one that nothing else has.
fn stand_in(colour: Colour) -> RGBColor {
    RGBColor(1, 2, colour as u8)
}

/// The content of the SVG that `plotters` made, in the page's colours.
fn themed(svg: &str) -> String {
    let inner =
        svg.split_once("<svg").and_then(|(_, rest)| rest.split_once('>')).map_or("", |(_, rest)| rest);
    let inner = inner.rsplit_once("</svg>").map_or(inner, |(inner, _)| inner);
    Colour::all().fold(inner.trim().to_owned(), |text, colour| {
        let RGBColor(red, green, blue) = stand_in(colour);
        text.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), &colour.css())
    })
}

/// An axis: its range, its ticks and how they are written.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    scale: Scale,
    apart: f64,
}

impl Axis {
    /// Ticks are round in what is shown, not in what is meant: 2 GiB, not 2e9 bytes.
    fn new(range: Range<f64>, most: usize, unit: Unit, whole: bool) -> Axis {
        let scale = unit.scale(range.end.abs());
        let shown = RangedCoordf64::from(range.start / scale.divisor..range.end / scale.divisor);
        let mut ticks: Vec<f64> =
            shown.key_points(most).into_iter().map(|tick| tick * scale.divisor).collect();
        ticks.retain(|tick| !whole || (tick - tick.round()).abs() < 1e-9);
        let apart = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        Axis { range, ticks, scale, apart: if apart.is_finite() { apart } else { 0.0 } }
    }

    /// The room that its labels take beside the plot.
    fn label_room(&self) -> u32 {
        let longest = self.ticks.iter().map(|&tick| self.format_ext(&tick).chars().count()).max();
        FONT * 58 / 100 * longest.unwrap_or(0) as u32 + 2 * AWAY + 3 * FINE
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range.clone()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Nothing between the ticks.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.scale.tick(*value, self.apart)
    }
}

/// Draws a chart that is not empty.
pub(super) fn draw(chart: &Chart, size: Size) -> Result<Picture, DrawError> {
    let (width, height) = (size.width * FINE, size.height * FINE);
    let first = chart.bands.first().map_or(0.0, |band| band.0);
    let last = chart.bands.last().map_or(1.0, |band| band.1);
    let top = chart.top();
    let across = if last > first { first..last } else { first - 0.5..first + 0.5 };
    let across = if chart.kind == Kind::Points { 0.0..1.06 * last.max(f64::MIN_POSITIVE) } else { across };
    let x = Axis::new(across, size.ticks, chart.x.1, false);
    // There is no half of what bars count.
    let y = Axis::new(0.0..top, 8, chart.y, chart.kind == Kind::Bars);
    let left = y.label_room();

    let mut svg = String::new();
    let (stops, plot_top, plot_bottom) = {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let mut plot = ChartBuilder::on(&root)
            .margin_top(if size.hover { 20 * FINE } else { 10 * FINE })
            .margin_right(22 * FINE)
            .y_label_area_size(left)
            .x_label_area_size(FOOT)
            .build_cartesian_2d(x, y)?;
        let label = ("sans-serif", FONT).into_font().color(&stand_in(Colour::Ink));
        plot.configure_mesh()
            .disable_x_mesh()
            .bold_line_style(stand_in(Colour::Grid).stroke_width(FINE))
            .axis_style(stand_in(Colour::Grid).stroke_width(FINE))
            .label_style(label)
            .set_all_tick_mark_size(AWAY)
            .draw()?;
        match chart.kind {
            Kind::Stack => stack(&mut plot, chart)?,
            Kind::Bars => bars(&mut plot, chart)?,
            Kind::Lines | Kind::Points => lines(&mut plot, chart)?,
        }
        rules(&mut plot, chart, top)?;
        root.present()?;
        let (_, down) = plot.plotting_area().get_pixel_range();
        (if size.hover { stops(&plot, chart) } else { Vec::new() }, down.start, down.end)
    };
    let (top, bottom) = (plot_top, plot_bottom);
    Ok(Picture { width, height, inner: themed(&svg), stops, top, bottom, font: 12 * FINE })
}

/// The values of a line with where they are, in stretches without a gap.
fn stretches<'a>(chart: &'a Chart, line: &'a Line) -> impl Iterator<Item = Vec<(f64, f64)>> + 'a {
    let middle = |Band(from, to): Band| (from + to) / 2.0;
    let values: Vec<Option<(f64, f64)>> =
        chart.bands.iter().zip(&line.values).map(|(&band, value)| Some((middle(band), (*value)?))).collect();
    let parts: Vec<Vec<(f64, f64)>> =
        values.split(Option::is_none).map(|part| part.iter().flatten().copied().collect()).collect();
    parts.into_iter().filter(|part| !part.is_empty())
}

fn lines(plot: &mut Plot<'_, '_>, chart: &Chart) -> Result<(), DrawError> {
    for line in &chart.lines {
        let style = stand_in(line.colour).stroke_width(2 * FINE);
        for stretch in stretches(chart, line) {
            // A point among few is seen as one.
            if chart.kind == Kind::Points || stretch.len() < 3 {
                let dot = |&at: &(f64, f64)| Circle::new(at, 3 * FINE_I, stand_in(line.colour).filled());
                plot.draw_series(stretch.iter().map(dot))?;
            }
            plot.draw_series(std::iter::once(PathElement::new(stretch, style)))?;
        }
    }
    Ok(())
}

/// Areas on top of each other, the first line's lowest, each band as wide as it is.
fn stack(plot: &mut Plot<'_, '_>, chart: &Chart) -> Result<(), DrawError> {
    let mut below = vec![0.0; chart.bands.len()];
    for line in &chart.lines {
        let value = |index: usize| line.values.get(index).copied().flatten().unwrap_or(0.0);
        let above: Vec<f64> = below.iter().enumerate().map(|(index, &base)| base + value(index)).collect();
        let edge = |heights: &[f64]| -> Vec<(f64, f64)> {
            let steps = chart.bands.iter().zip(heights);
            steps.flat_map(|(band, &height)| [(band.0, height), (band.1, height)]).collect()
        };
        let mut outline = edge(&above);
        outline.extend(edge(&below).into_iter().rev());
        plot.draw_series(std::iter::once(Polygon::new(outline, stand_in(line.colour).filled())))?;
        below = above;
    }
    Ok(())
}

fn bars(plot: &mut Plot<'_, '_>, chart: &Chart) -> Result<(), DrawError> {
    for line in &chart.lines {
        let bars = chart.bands.iter().zip(&line.values).filter_map(|(&Band(from, to), value)| {
            let air = 0.06 * (to - from);
            let value = (*value).filter(|&value| value > 0.0)?;
            Some(Rectangle::new([(from + air, 0.0), (to - air, value)], stand_in(line.colour).filled()))
        });
        plot.draw_series(bars)?;
    }
    Ok(())
}

/// Rules. An upright one has its name beside it, each below the one before.
fn rules(plot: &mut Plot<'_, '_>, chart: &Chart, top: f64) -> Result<(), DrawError> {
    let across = plot.x_range();
    let style = stand_in(Colour::Rule).stroke_width(FINE);
    let text = |anchor| ("sans-serif", FONT).into_font().color(&stand_in(Colour::Ink)).pos(anchor);
    let upright = chart.rules.iter().filter(|rule| rule.upright && rule.at <= across.end);
    for (row, rule) in (0..).zip(upright) {
        let ends = vec![(rule.at, 0.0), (rule.at, top)];
        plot.draw_series(std::iter::once(PathElement::new(ends, style)))?;
        let right = rule.at < across.start + 0.7 * (across.end - across.start);
        let (anchor, aside) = if right { (HPos::Left, 5) } else { (HPos::Right, -5) };
        let label = format!("{} {}", rule.name, chart.x.1.write(rule.at));
        let place = EmptyElement::at((rule.at, top))
            + Text::new(label, (aside * FINE_I, row * 15 * FINE_I), text(Pos::new(anchor, VPos::Top)));
        plot.draw_series(std::iter::once(place))?;
    }
    for rule in chart.rules.iter().filter(|rule| !rule.upright && rule.at <= top) {
        let ends = vec![(across.start, rule.at), (across.end, rule.at)];
        plot.draw_series(std::iter::once(PathElement::new(ends, style)))?;
    }
    Ok(())
}

/// What the pointer shows at each band that has a value.
fn stops(plot: &Plot<'_, '_>, chart: &Chart) -> Vec<Stop> {
    let (plotted, _) = plot.plotting_area().get_pixel_range();
    let pixel = |x: f64| plot.backend_coord(&(x, 0.0)).0;
    let stop = |(index, &band): (usize, &Band)| {
        let has = |line: &Line| line.values.get(index).copied().flatten();
        // Of many areas, those that can be seen.
        let shown = |value: &f64| chart.kind != Kind::Stack || *value > 0.0;
        let write = |line: &Line| {
            has(line).filter(shown).map(|value| format!("{} {}", line.name, chart.y.write(value)))
        };
        let values: Vec<String> = chart.lines.iter().filter_map(write).collect();
        let any = chart.lines.iter().any(|line| has(line).is_some());
        let values = if values.is_empty() { "none".to_owned() } else { values.join(", ") };
        let [mut from, mut to] = [band.0, band.1].map(pixel);
        if from == to {
            (from, to) = ((from - 10 * FINE_I).max(plotted.start), (to + 10 * FINE_I).min(plotted.end));
        }
        let text = format!("{}: {}", chart.place(band), values);
        any.then_some(Stop { x: from, width: (to - from).max(1), middle: (from + to) / 2, text })
    };
    chart.bands.iter().enumerate().filter_map(stop).collect()
}

#[cfg(test)]
mod tests {
    use super::super::chart::Rule;
    use super::*;

    fn chart(kind: Kind, values: &[Option<f64>]) -> Chart {
        let line = |name: &str, colour| Line { name: name.into(), colour, values: values.to_vec() };
        Chart {
            title: "t".into(),
            about: String::new(),
            kind,
            x: ("time", Unit::Seconds),
            y: Unit::Of("things"),
            bands: (0..values.len()).map(|at| Band(at as f64, at as f64 + 1.0)).collect(),
            lines: vec![line("one", Colour::Green), line("two", Colour::Red)],
            rules: vec![Rule { name: "limit".into(), at: 3.0, upright: false }],
        }
    }

    /// Every pair of numbers of an attribute.
    fn pairs(svg: &str, attribute: &str) -> Vec<(f64, f64)> {
        let attribute = format!(" {attribute}=\"");
        let texts = svg.split(&attribute).skip(1).filter_map(|rest| rest.split('"').next());
        let pair = |pair: &str| {
            let (x, y) = pair.split_once(',')?;
            Some((x.parse().ok()?, y.parse().ok()?))
        };
        texts.flat_map(|text| text.split_whitespace().filter_map(pair).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn pictures_have_the_pages_colours_and_stay_inside() {
        for kind in [Kind::Lines, Kind::Stack, Kind::Bars, Kind::Points] {
            let chart = chart(kind, &[Some(1.0), Some(2.5), None, Some(0.0), Some(2.0)]);
            for size in [Size::WIDE, Size::NARROW] {
                let picture = draw(&chart, size).unwrap();
                assert!(picture.inner.contains("var(--green)") && picture.inner.contains("var(--red)"));
                assert!(!picture.inner.contains("#0102"), "{kind:?}: a stand-in is left");
                assert!(!picture.inner.contains("svg"), "{kind:?}");
                for (x, y) in pairs(&picture.inner, "points") {
                    assert!((0.0..=f64::from(picture.width)).contains(&x), "{kind:?}: {x}");
                    assert!((0.0..=f64::from(picture.height)).contains(&y), "{kind:?}: {y}");
                }
                assert_eq!(picture.stops.len(), if size.hover { 4 } else { 0 });
            }
        }
    }

    #[test]
    fn a_gap_divides_a_line() {
        let chart = chart(Kind::Lines, &[Some(1.0), None, Some(2.0), Some(3.0), None]);
        let stretches: Vec<_> = stretches(&chart, &chart.lines[0]).collect();
        assert_eq!(stretches, [vec![(0.5, 1.0)], vec![(2.5, 2.0), (3.5, 3.0)]]);
    }

    #[test]
    fn odd_values_are_drawn_all_the_same() {
        for values in [&[Some(0.0)][..], &[Some(1e-300), Some(1e300)], &[Some(4.0)]] {
            for kind in [Kind::Lines, Kind::Stack, Kind::Bars, Kind::Points] {
                let mut chart = chart(kind, values);
                draw(&chart, Size::WIDE).unwrap();
                chart.bands = chart.bands.iter().map(|band| Band(band.0, band.0)).collect();
                chart.rules.clear();
                draw(&chart, Size::NARROW).unwrap();
            }
        }
    }
}
