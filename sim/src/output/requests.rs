//! `requests.csv`: one finished request a row, in order of arrival.

use crate::report::{e2e, tpot, ttft};
use policy::tally::RequestTimes;
use policy::{Nanos, Time};
use std::io;

const HEADER: [&str; 8] = [
    "request",
    "arrived_ms",
    "admitted_ms",
    "ttft_ms",
    "tpot_ms",
    "e2e_ms",
    "context_tokens",
    "output_tokens",
];

/// Writes the header and the rows; milliseconds to the nanosecond. A request of one token has no TPOT.
pub(super) fn write(out: impl io::Write, requests: &[RequestTimes]) -> io::Result<()> {
    let mut rows: Vec<&RequestTimes> = requests.iter().collect();
    rows.sort_by_key(|times| times.request);
    let ms = |time: f64| format!("{time:.6}");
    let since_start = |at: Time| ms(Nanos(at.0).as_millis_f64());
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(HEADER)?;
    for times in rows {
        writer.write_record([
            times.request.0.to_string(),
            since_start(times.arrived),
            since_start(times.admitted),
            ms(ttft(times)),
            tpot(times).map_or_else(String::new, ms),
            ms(e2e(times)),
            times.context.to_string(),
            times.tokens.to_string(),
        ])?;
    }
    writer.flush()
}
