//! The tiered cache of states on its seed's own configuration, and at lengths that the seed only spoke of.

use super::{Bench, Findings, Section, median_of};
use crate::failure::Failure;
use crate::output;
use half::f16;
use half::slice::HalfFloatSliceExt;
use hw::recurrent::RecurrentError;
use hw::recurrent::made;
use hw::recurrent::shape::Shape;
use hw::recurrent::ssd::Ssd;
use hw::recurrent::window::Window;
use serde::Serialize;

pub(super) const SECTION: Section = Section { name: "tiered_cache", run };

/// The seed's: states of 4096 numbers after each of 1024 tokens, the last 64 in the window.
const LENGTH: usize = 1024;
const STATE: (usize, usize) = (32, 128);
const WINDOW: usize = 64;
/// Lengths at which fast memory must be the same, and the smaller states with which a million of them fit into this machine's memory.
const LENGTHS: [usize; 3] = [4096, 65_536, 1 << 20];
const QUICK_LENGTHS: [usize; 2] = [4096, 16_384];
const SMALL: (usize, usize) = (8, 8);
const SEED: u64 = 1;

#[derive(Serialize)]
struct Report {
    length: usize,
    state_numbers: usize,
    window: usize,
    hot_states: usize,
    cold_states: usize,
    fast_bytes: usize,
    /// What all states would take in fast memory in 16 bits.
    fast_bytes_without: usize,
    times_fewer: f64,
    host_bytes: usize,
    /// Reads of states that were compared with what was computed, and those that differ in a bit.
    exact_reads: usize,
    exact_reads_that_differ: usize,
    /// Relative error of the states in the window.
    hot_error: f64,
    hot_read_us: f64,
    cold_read_us: f64,
    lengths: Vec<Length>,
}

#[derive(Serialize)]
struct Length {
    tokens: usize,
    state_numbers: usize,
    fast_bytes: usize,
    host_bytes: usize,
}

fn run(bench: &Bench) -> Result<Findings, Failure> {
    let lengths = if bench.quick { &QUICK_LENGTHS[..] } else { &LENGTHS };
    let report = measured(lengths).map_err(Failure::failed)?;
    Findings::new(text(&report), &report)
}

/// Keeps the states after each token of a made-up layer of one head, in `window`; `seen` gets each.
fn fill(
    (rows, columns): (usize, usize),
    tokens: usize,
    window: &mut Window,
    mut seen: impl FnMut(&[f16]),
) -> Result<(), RecurrentError> {
    // In parts: all of a part's states are held at once.
    const PART: usize = 1024;
    let shape = Shape::new(1, rows, columns, 1)?;
    let mut state = vec![0.0; shape.state()];
    let mut half = vec![f16::ZERO; shape.state()];
    let mut y = vec![0.0; PART * shape.width()];
    for part in 0..tokens / PART {
        let made = made::layer::<f32>(shape, PART, SEED + part as u64);
        let layer = Ssd::new(shape, &made.a, 1)?;
        let mut failed = None;
        let mut keep = |at: usize, state: &[f32]| {
            // The state before the first token is the one after the last part's.
            if at > 0 {
                half.convert_from_f32_slice(state);
                failed = window.push(&half).err().or(failed.take());
                seen(&half);
            }
        };
        layer.run(made.inputs.lend(), &mut state, &mut y, &mut keep)?;
        failed.map_or(Ok(()), Err)?;
    }
    Ok(())
}

fn measured(lengths: &[usize]) -> Result<Report, RecurrentError> {
    let numbers = STATE.0 * STATE.1;
    let mut window = Window::new(numbers, WINDOW)?;
    let mut computed: Vec<f16> = Vec::new();
    fill(STATE, LENGTH, &mut window, |state| computed.extend_from_slice(state))?;
    let (length, hot_states, cold_states) = window.counts();
    let (mut exact, mut hot) = (vec![f16::ZERO; numbers], vec![0.0f32; numbers]);
    let (mut differ, mut wrong, mut norm) = (0, 0.0, 0.0);
    for (place, kept) in computed.chunks_exact(numbers).enumerate() {
        let there = window.read_exact(place, &mut exact)?;
        differ += usize::from(!there || exact.iter().zip(kept).any(|(a, b)| a.to_bits() != b.to_bits()));
        if window.read_hot(place, &mut hot)? {
            for (found, kept) in hot.iter().zip(kept) {
                let (found, kept) = (f64::from(*found), kept.to_f64());
                wrong += (found - kept) * (found - kept);
                norm += kept * kept;
            }
        }
    }
    let hot_read = median_of(200, || window.read_hot(length - 1, &mut hot).map(|_| ()))?;
    let mut place = 0;
    let cold_read = median_of(200, || {
        place = (place + 97) % cold_states;
        window.read_exact(place, &mut exact).map(|_| ())
    })?;
    let of_length = |&tokens: &usize| {
        let mut window = Window::new(SMALL.0 * SMALL.1, WINDOW)?;
        fill(SMALL, tokens, &mut window, |_| {})?;
        let (fast_bytes, host_bytes) = window.bytes();
        Ok(Length { tokens, state_numbers: SMALL.0 * SMALL.1, fast_bytes, host_bytes })
    };
    let (fast_bytes, host_bytes) = window.bytes();
    Ok(Report {
        length,
        state_numbers: numbers,
        window: WINDOW,
        hot_states,
        cold_states,
        fast_bytes,
        fast_bytes_without: 2 * numbers * length,
        times_fewer: (2 * numbers * length) as f64 / fast_bytes as f64,
        host_bytes,
        exact_reads: length,
        exact_reads_that_differ: differ,
        hot_error: (wrong / norm).sqrt(),
        hot_read_us: hot_read * 1e6,
        cold_read_us: cold_read * 1e6,
        lengths: lengths.iter().map(of_length).collect::<Result<_, RecurrentError>>()?,
    })
}

fn text(report: &Report) -> String {
    let Report { length, state_numbers, window, hot_states, cold_states, .. } = report;
    let rows = vec![
        [
            "states".to_owned(),
            format!(
                "{length} of {state_numbers} numbers, the last {window} in eight bits (fp8_e4m3 without scales)"
            ),
        ],
        [
            "where they are".to_owned(),
            format!("{hot_states} hot, {cold_states} cold; all {length} exact in the host's memory"),
        ],
        [
            "fast memory".to_owned(),
            format!(
                "{} B, {:.1} times fewer than the {} B of all in 16 bits",
                report.fast_bytes, report.times_fewer, report.fast_bytes_without
            ),
        ],
        ["host memory".to_owned(), format!("{} B, written as states are made", report.host_bytes)],
        [
            "exact reads".to_owned(),
            format!("{} compared bit for bit, {} differ", report.exact_reads, report.exact_reads_that_differ),
        ],
        ["error in the window".to_owned(), format!("{:.2} %", report.hot_error * 100.0)],
        [
            "time of a read".to_owned(),
            format!(
                "{:.1} us from the window, {:.1} us from behind it",
                report.hot_read_us, report.cold_read_us
            ),
        ],
    ];
    let lengths = report.lengths.iter().map(|length| {
        [&length.tokens, &length.state_numbers, &length.fast_bytes, &length.host_bytes]
            .map(ToString::to_string)
    });
    let header = ["tokens", "numbers a state", "fast bytes", "host bytes"].map(String::from);
    format!("{}\n{}", output::words([String::new(), String::new()], rows), output::numbers(header, lengths))
}
