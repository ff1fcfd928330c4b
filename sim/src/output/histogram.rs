//! A histogram as the geometry of a drawing, for the template to draw.

use policy::Sketch;
use serde::Serialize;

/// The size of the drawing, in its own units, and the plot within it.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 8.0;
const RIGHT: f64 = 952.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 210.0;
const HEIGHT: f64 = 236.0;

const BINS: usize = 64;
/// Gaps beyond this percentile are counted in the note, so that a few of them do not squeeze the rest.
const SHOWN: f64 = 99.5;

/// A histogram of times.
#[derive(Serialize)]
pub(super) struct Histogram {
    width: f64,
    height: f64,
    bottom: f64,
    left: f64,
    right: f64,
    bins: Vec<Bin>,
    ticks: Vec<Tick>,
    marks: Vec<Mark>,
    /// What the drawing leaves out, if anything.
    note: Option<String>,
}

#[derive(Serialize)]
struct Bin {
    x: String,
    y: String,
    width: String,
    height: String,
    label: String,
}

#[derive(Serialize)]
struct Tick {
    x: String,
    label: String,
}

/// A percentile.
#[derive(Serialize)]
struct Mark {
    x: String,
    top: f64,
    anchor: &'static str,
    text_x: String,
    label: String,
}

impl Histogram {
    /// The histogram of these times; `None` without any.
    pub(super) fn new(times: &Sketch) -> Option<Histogram> {
        let (least, most) = times.range()?;
        let [median, p99, shown] = times.percentiles([50.0, 99.0, SHOWN])?.map(|nanos| nanos / 1e6);
        let most = most.as_millis_f64();
        let axis = Axis::new(least.as_millis_f64(), shown);
        let mut counts = [0_u64; BINS];
        let mut beyond = times.count();
        for (time, count) in times.buckets().map(|(time, count)| (time.as_millis_f64(), count)) {
            if time <= axis.to {
                counts[(((time - axis.from) / axis.bin()) as usize).min(BINS - 1)] += count;
                beyond -= count;
            }
        }
        let largest = counts.iter().copied().max().unwrap_or(1).max(1);
        let filled = counts.iter().enumerate().filter(|&(_, &count)| count > 0);
        let note = (beyond > 0).then(|| {
            let (gaps, are) = if beyond == 1 { ("gap", "is") } else { ("gaps", "are") };
            format!(
                "{beyond} {gaps} beyond {} ms {are} not drawn; the longest is {most:.2} ms.",
                axis.label(axis.to)
            )
        });
        Some(Histogram {
            width: WIDTH,
            height: HEIGHT,
            bottom: BOTTOM,
            left: LEFT,
            right: RIGHT,
            bins: filled.map(|(index, &count)| bin(&axis, index, count, largest)).collect(),
            ticks: axis.ticks(),
            marks: vec![mark(&axis, 50.0, median, TOP - 26.0), mark(&axis, 99.0, p99, TOP - 8.0)],
            note,
        })
    }
}

fn bin(axis: &Axis, index: usize, count: u64, largest: u64) -> Bin {
    let (from, to) = (axis.from + index as f64 * axis.bin(), axis.from + (index + 1) as f64 * axis.bin());
    let height = (BOTTOM - TOP) * count as f64 / largest as f64;
    Bin {
        x: number(axis.x(from) + 0.5),
        y: number(BOTTOM - height),
        width: number(axis.x(to) - axis.x(from) - 1.0),
        height: number(height),
        label: format!("{from:.3} to {to:.3} ms: {count}"),
    }
}

fn mark(axis: &Axis, percent: f64, time: f64, top: f64) -> Mark {
    let x = axis.x(time.min(axis.to));
    let (anchor, text_x) = if x < 0.85 * WIDTH { ("start", x + 5.0) } else { ("end", x - 5.0) };
    let label = format!("p{percent} {time:.2} ms");
    Mark { x: number(x), top, anchor, text_x: number(text_x), label }
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// An axis from one round number to another.
struct Axis {
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    fn new(least: f64, most: f64) -> Axis {
        let step = round_step((most - least).max(least.abs() * 1e-3).max(1e-6) / 8.0);
        let from = (least / step).floor() * step;
        let to = ((most / step).ceil() * step).max(from + step);
        Axis { from, to, step }
    }

    fn bin(&self) -> f64 {
        (self.to - self.from) / BINS as f64
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (value - self.from) / (self.to - self.from)
    }

    fn label(&self, value: f64) -> String {
        let decimals = (-libm::log10(self.step).floor()).clamp(0.0, 6.0) as usize;
        format!("{value:.decimals$}")
    }

    fn ticks(&self) -> Vec<Tick> {
        let last = ((self.to - self.from) / self.step).round() as u32;
        let at = |index: u32| self.from + f64::from(index) * self.step;
        (0..=last).map(|index| Tick { x: number(self.x(at(index))), label: self.label(at(index)) }).collect()
    }
}

/// The least of 1, 2 and 5 times a power of ten that is no smaller than `least`.
fn round_step(least: f64) -> f64 {
    let power = libm::pow(10.0, libm::log10(least).floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&step| step >= least)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Nanos;

    fn sketch(times: &[Nanos]) -> Sketch {
        let mut sketch = Sketch::default();
        times.iter().for_each(|&time| sketch.record(time, 1));
        sketch
    }

    #[test]
    fn steps_are_round() {
        for (least, step) in [(0.9, 1.0), (1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (0.06, 0.1), (70.0, 100.0)] {
            assert!((round_step(least) - step).abs() < 1e-9 * step, "{least}: {}", round_step(least));
        }
    }

    #[test]
    fn no_time_no_histogram_and_one_time_one_bin() {
        assert!(Histogram::new(&sketch(&[])).is_none());
        let one = Histogram::new(&sketch(&[Nanos(2_500_000); 3])).unwrap();
        assert_eq!(one.bins.len(), 1);
        assert!(one.bins[0].label.ends_with(" ms: 3"), "{}", one.bins[0].label);
        assert_eq!(one.note, None);
    }

    #[test]
    fn every_time_is_in_a_bin_or_in_the_note() {
        let times: Vec<Nanos> = (0..1000).map(|n| Nanos(1_000_000 + n * 1_000)).collect();
        let with_tail: Vec<Nanos> = times.iter().copied().chain([Nanos(900_000_000)]).collect();
        let drawn = |histogram: &Histogram| -> usize {
            let count = |bin: &Bin| bin.label.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
            histogram.bins.iter().filter_map(count).sum()
        };
        let histogram = Histogram::new(&sketch(&with_tail)).unwrap();
        assert_eq!(drawn(&histogram), 1000);
        assert_eq!(
            histogram.note.as_deref(),
            Some("1 gap beyond 2.0 ms is not drawn; the longest is 900.00 ms.")
        );
    }

    #[test]
    fn nothing_is_drawn_outside() {
        let times: Vec<Nanos> = (0..500).map(|n| Nanos(17 + n * n * 3_331)).collect();
        let histogram = Histogram::new(&sketch(&times)).unwrap();
        for bin in &histogram.bins {
            let (x, width) = (bin.x.parse::<f64>().unwrap(), bin.width.parse::<f64>().unwrap());
            assert!(x >= LEFT && x + width <= RIGHT && width > 0.0, "{x} {width}");
        }
        for x in histogram.ticks.iter().map(|tick| &tick.x).chain(histogram.marks.iter().map(|mark| &mark.x))
        {
            assert!((LEFT..=RIGHT).contains(&x.parse().unwrap()), "{x}");
        }
    }
}
