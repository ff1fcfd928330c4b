//! `requests.csv`: a row for each request, in the order in which they left.

use policy::tally::RequestTimes;
use policy::{Nanos, Time};
use std::io::{self, Write};

const HEADER: &str = "request,status,priority,arrived_ms,admitted_ms,ttft_ms,tpot_ms,e2e_ms,context_tokens,output_tokens,\
                      prefix_hit_tokens,preemptions";

/// Writes rows to `out` until that fails once.
pub(super) struct RequestLog<W> {
    out: W,
    written: io::Result<()>,
}

impl<W: Write> RequestLog<W> {
    pub(super) fn new(mut out: W) -> RequestLog<W> {
        let written = writeln!(out, "{HEADER}");
        RequestLog { out, written }
    }

    /// Milliseconds to the nanosecond. A request of one token has no TPOT, a refused one no times but its arrival.
    pub(super) fn write(&mut self, times: &RequestTimes) {
        if self.written.is_err() {
            return;
        }
        let ms = |time: Nanos| format!("{:.6}", time.as_millis_f64());
        let since_start = |at: Time| ms(Nanos(at.0));
        let served = |field: String| if times.refused { String::new() } else { field };
        // Numbers and plain words: nothing to quote.
        let row = [
            times.request.0.to_string(),
            if times.refused { "refused" } else { "served" }.to_owned(),
            times.priority.to_string(),
            since_start(times.arrived),
            served(since_start(times.admitted)),
            served(ms(times.ttft())),
            served(times.tpot().map_or_else(String::new, ms)),
            served(ms(times.e2e())),
            times.context.to_string(),
            times.tokens.to_string(),
            times.prefix_tokens.to_string(),
            times.preemptions.to_string(),
        ];
        self.written = writeln!(self.out, "{}", row.join(","));
    }

    /// What was written to, and whether everything could be.
    pub(super) fn into_parts(self) -> (W, io::Result<()>) {
        (self.out, self.written)
    }
}
