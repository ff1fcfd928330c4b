//! What happened when, as Chrome trace events that Perfetto opens: a track for each link direction, one for the
//! accelerator, and a counter for each tier.

use policy::{Nanos, Time};
use serde::Serialize;

/// Spans beyond this many are not kept; the file says so.
pub const MAX_SPANS: usize = 400_000;

#[derive(Clone, Debug)]
struct Span {
    track: u32,
    name: String,
    from: Time,
    to: Time,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    tier: u32,
    at: Time,
    bytes: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    tracks: Vec<String>,
    tiers: Vec<String>,
    spans: Vec<Span>,
    levels: Vec<Level>,
    dropped: u64,
}

#[derive(Serialize)]
struct TraceEvent<'a> {
    name: &'a str,
    ph: &'static str,
    pid: u32,
    tid: u32,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<serde_json::Value>,
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

impl Timeline {
    /// A timeline with these tracks and tiers.
    pub fn new(tracks: Vec<String>, tiers: Vec<String>) -> Timeline {
        Timeline { tracks, tiers, ..Timeline::default() }
    }

    /// Adds a span to a track.
    pub fn span(&mut self, track: usize, from: Time, length: Nanos, name: impl FnOnce() -> String) {
        if self.spans.len() < MAX_SPANS {
            self.spans.push(Span { track: track as u32, name: name(), from, to: from + length });
        } else {
            self.dropped += 1;
        }
    }

    /// Notes how full a tier is.
    pub fn level(&mut self, tier: usize, at: Time, bytes: u64) {
        if self.levels.len() < MAX_SPANS {
            self.levels.push(Level { tier: tier as u32, at, bytes });
        } else {
            self.dropped += 1;
        }
    }

    /// Writes the trace-event JSON.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn write(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"events_left_out\":{}}},",
            self.dropped
        )?;
        write!(out, "\"traceEvents\":[")?;
        let mut first = true;
        let mut put = |out: &mut dyn std::io::Write, event: TraceEvent<'_>| -> std::io::Result<()> {
            let comma = if std::mem::take(&mut first) { "\n" } else { ",\n" };
            out.write_all(comma.as_bytes())?;
            serde_json::to_writer(&mut *out, &event).map_err(std::io::Error::from)
        };
        for (index, name) in self.tracks.iter().enumerate() {
            let args = Some(serde_json::json!({ "name": name }));
            put(
                out,
                TraceEvent {
                    name: "thread_name",
                    ph: "M",
                    pid: 1,
                    tid: index as u32,
                    ts: 0.0,
                    dur: None,
                    args,
                },
            )?;
        }
        for span in &self.spans {
            let dur = Some(micros(span.to.since(span.from).0));
            let ts = micros(span.from.0);
            put(out, TraceEvent { name: &span.name, ph: "X", pid: 1, tid: span.track, ts, dur, args: None })?;
        }
        for level in &self.levels {
            let name = &self.tiers[level.tier as usize];
            let args = Some(serde_json::json!({ "bytes": level.bytes }));
            put(out, TraceEvent { name, ph: "C", pid: 1, tid: 0, ts: micros(level.at.0), dur: None, args })?;
        }
        writeln!(out, "\n]}}")
    }
}
