//! `series.csv`: a window of the run a row.

use crate::series::Window;
use policy::state::STATES;
use policy::tally::CAUSES;
use policy::veto::REASONS;
use policy::{Machine, Nanos, Sketch};
use std::io;

/// Writes a header and the windows; an empty field is a figure without a sample.
pub(super) fn write(out: impl io::Write, machine: &Machine, windows: &[Window]) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    for (index, window) in windows.iter().enumerate() {
        let columns = columns(machine, window);
        if index == 0 {
            writer.write_record(columns.iter().map(|column| &column.0))?;
        }
        writer.write_record(columns.iter().map(|column| &column.1))?;
    }
    writer.flush()
}

/// The names and values of a window's columns, the same names for every window of a machine.
fn columns(machine: &Machine, window: &Window) -> Vec<(String, String)> {
    let mut columns = Columns(Vec::new());
    let counts = &window.counts;
    columns.figure("from_s", Nanos(window.from.0).as_secs_f64());
    columns.figure("to_s", Nanos(window.to.0).as_secs_f64());
    for (name, count) in [
        ("requests_arrived", counts.arrived),
        ("requests_completed", counts.completed),
        ("output_tokens", counts.output_tokens),
        ("prompt_tokens", counts.prompt_tokens),
        ("recomputed_tokens", counts.recomputed_tokens),
    ] {
        columns.put(name, count.to_string());
    }
    columns.figure("output_throughput_tok_s", window.rate(counts.output_tokens));
    columns.figure("mean_batch", window.batch);
    columns.figure("mean_waiting", window.waiting);
    columns.times("ttft", &window.ttft);
    columns.times("itl", &window.itl);
    columns.figure("compute_utilization", window.share(window.compute));
    for (&(_, cause), time) in CAUSES.iter().zip(window.stall) {
        columns.figure(&format!("stall_ms_{cause}"), time.as_millis_f64());
    }
    columns.figure("hit_rate", window.hit_rate());
    columns.figure("drift_mean", window.drift_mean);
    columns.figure("drift_max", window.drift_mean.map(|_| window.drift_max));
    columns.put("kv_bytes", window.cache.map_or(String::new(), |bytes| bytes.0.to_string()));
    for (state, bytes) in STATES.iter().zip(window.states) {
        columns.figure(&format!("mean_bytes_{}", state.code()), bytes.round());
    }
    for (link, share) in machine.links.iter().zip(&window.links) {
        let [from, to] = [link.from, link.to].map(|tier| machine.tier(tier).name.as_str());
        let name = format!("{} {from} to {to}", link.name);
        columns.put(&format!("bytes {name}"), share.bytes.0.to_string());
        columns.figure(&format!("utilization {name}"), window.share(share.busy));
    }
    for (reason, count) in REASONS.iter().zip(window.vetoes) {
        columns.put(&format!("vetoes_{}", reason.name()), count.to_string());
    }
    columns.0
}

struct Columns(Vec<(String, String)>);

impl Columns {
    fn put(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), value));
    }

    fn figure(&mut self, name: &str, value: impl Into<Option<f64>>) {
        let text = value.into().map_or(String::new(), |value| format!("{value:.9}"));
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        self.put(name, text.to_owned());
    }

    fn times(&mut self, name: &str, times: &Sketch) {
        let percentiles = times.percentiles([50.0, 99.0]);
        let of = |index: usize| percentiles.map(|found| found[index] / 1e6);
        self.figure(&format!("mean_{name}_ms"), times.mean().map(|mean| mean / 1e6));
        self.figure(&format!("p50_{name}_ms"), of(0));
        self.figure(&format!("p99_{name}_ms"), of(1));
    }
}
