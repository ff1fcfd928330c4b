//! `decisions.jsonl`: one decision a line, ids written as names, up to so many; a last line counts those left out.

use policy::event::Form;
use policy::record::{Action, Decision};
use policy::score::Terms;
use policy::state::State;
use policy::veto::{Reason, Verdict};
use policy::{LayerId, Machine, Model, Time};
use serde::Serialize;
use std::io::{self, Write};

/// The most decisions that are written, some 400 MB of them: a run of any length leaves a file that can be read.
const MOST: u64 = 1_000_000;

/// Writes decisions to `out` until that fails once.
pub(super) struct DecisionLog<'a, W> {
    out: W,
    left: u64,
    left_out: u64,
    written: io::Result<()>,
    machine: &'a Machine,
    model: &'a Model,
}

impl<'a, W: Write> DecisionLog<'a, W> {
    pub(super) fn new(out: W, machine: &'a Machine, model: &'a Model) -> Self {
        DecisionLog { out, left: MOST, left_out: 0, written: Ok(()), machine, model }
    }

    pub(super) fn write(&mut self, decision: &Decision) {
        if self.left == 0 {
            self.left_out += 1;
        } else if self.written.is_ok() {
            self.left -= 1;
            let line = Line::new(decision, self.machine, self.model);
            self.written = serde_json::to_writer(&mut self.out, &line)
                .map_err(io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"));
        }
    }

    /// What was written to, and whether everything could be.
    pub(super) fn into_parts(mut self) -> (W, io::Result<()>) {
        if self.written.is_ok() && self.left_out > 0 {
            self.written = writeln!(self.out, "{{\"decisions_left_out\":{}}}", self.left_out);
        }
        (self.out, self.written)
    }
}

/// A decision as it is written. What does not apply is left out.
#[derive(Serialize)]
struct Line {
    seq: u64,
    at_ns: Time,
    step: u64,
    layer: LayerId,
    /// `L3/E17`.
    block: String,
    state: State,
    action: Action,
    /// `dram/bf16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// `pass`, `reject` or `defer`.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_layer_step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<Terms>,
    /// In hexadecimal: many readers of JSON keep only 53 bits of a number.
    observed: String,
}

impl Line {
    fn new(decision: &Decision, machine: &Machine, model: &Model) -> Line {
        let form = |form: Form| format!("{}/{}", machine.tier(form.tier).name, form.format.name());
        let (verdict, reason, until_layer_step) = match decision.verdict {
            Verdict::Pass => ("pass", None, None),
            Verdict::Reject(reason) => ("reject", Some(reason), None),
            Verdict::Defer(step) => ("defer", None, Some(step)),
        };
        Line {
            seq: decision.seq,
            at_ns: decision.at,
            step: decision.step,
            layer: decision.layer,
            block: model.block_name(decision.block),
            state: decision.state,
            action: decision.action,
            from: decision.from.map(form),
            to: decision.to.map(form),
            verdict,
            reason,
            until_layer_step,
            terms: decision.terms,
            observed: format!("{:016x}", decision.observed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::BlockId;

    /// A disk with room for so many bytes.
    struct Small(usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_follows_a_line_that_could_not_be_written() {
        let case = scenarios::load("mixtral-8x7b-h100", &[], &crate::resolve::check_policy).unwrap();
        let decision = Decision {
            seq: 0,
            step: 0,
            layer: LayerId(0),
            block: BlockId(0),
            action: Action::Fetch,
            from: None,
            to: None,
            state: State::Staged,
            verdict: Verdict::Defer(7),
            terms: None,
            observed: u64::MAX,
            at: Time(5),
        };
        let mut whole = DecisionLog::new(Vec::new(), &case.machine, &case.model);
        whole.write(&decision);
        let (line, written) = whole.into_parts();
        assert!(written.is_ok());
        assert_eq!(
            String::from_utf8(line.clone()).unwrap(),
            "{\"seq\":0,\"at_ns\":5,\"step\":0,\"layer\":0,\"block\":\"L0/E0\",\"state\":\"S4\",\
             \"action\":\"fetch\",\"verdict\":\"defer\",\"until_layer_step\":7,\
             \"observed\":\"ffffffffffffffff\"}\n"
        );
        let mut capped = DecisionLog::new(Vec::new(), &case.machine, &case.model);
        capped.left = 1;
        (0..3).for_each(|_| capped.write(&decision));
        let (lines, written) = capped.into_parts();
        assert!(written.is_ok());
        assert_eq!(lines, [&line[..], b"{\"decisions_left_out\":2}\n"].concat());
        let mut log = DecisionLog::new(Small(line.len() + 10), &case.machine, &case.model);
        log.write(&decision);
        log.write(&decision);
        log.out.0 = 1 << 20;
        log.write(&decision);
        let (disk, written) = log.into_parts();
        assert_eq!(disk.0, 1 << 20);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
