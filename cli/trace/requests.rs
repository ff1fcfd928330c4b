//! What a request trace is like, as a table or as JSON.

use crate::failure::Failure;
use crate::output::{self, Format};
use traces::requests::{Lengths, RequestInfo, RequestTrace, request_info};

/// Prints the statistics.
pub(super) fn print(trace: &RequestTrace, format: Format) -> Result<(), Failure> {
    let info = request_info(trace);
    match format {
        Format::Json => output::print_json(&info),
        Format::Table => output::print(&table(&info)),
    }
}

fn table(info: &RequestInfo) -> String {
    let or_none = |text: Option<String>| text.unwrap_or("-".to_owned());
    let mut facts = vec![
        ("requests", info.requests.to_string()),
        ("duration, s", format!("{:.3}", info.duration_s)),
        ("requests a second", or_none(info.rate_per_s.map(|rate| format!("{rate:.3}")))),
        ("gaps: coefficient of variation", or_none(info.gap_cv.map(|cv| format!("{cv:.3}")))),
        (
            "gaps: 50, 90, 99 %, s",
            or_none(info.gap_s.map(|gaps| gaps.map(|gap| format!("{gap:.3}")).join(", "))),
        ),
    ];
    if info.failed > 0 {
        facts.push(("failed, not counted", info.failed.to_string()));
    }
    if let Some(share) = info.reusable_prefix {
        facts.push(("prompt tokens seen before", format!("{:.2} %", 100.0 * share)));
    }
    let facts = facts.into_iter().map(|(name, value)| [name.to_owned(), value]);
    let header = ["tokens", "all", "mean", "50 %", "90 %", "99 %", "longest"].map(String::from);
    let lengths = [lengths("prompts", &info.prompt_tokens), lengths("outputs", &info.output_tokens)];
    let facts = output::numbers(["", "value"].map(String::from), facts);
    format!("{facts}\n{}", output::numbers(header, lengths))
}

fn lengths(what: &str, lengths: &Lengths) -> [String; 7] {
    let Lengths { total, mean, p50, p90, p99, max } = lengths;
    let [total, p50, p90, p99, max] = [total, p50, p90, p99, max].map(u64::to_string);
    [what.to_owned(), total, format!("{mean:.1}"), p50, p90, p99, max]
}
