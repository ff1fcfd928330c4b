//! The keys of `workload.requests.conversations`: sessions that begin like others and go on turn by turn.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{AboveZero, Fraction, Number, Quantity, Whole};
use crate::keys::{Key, Table};
use crate::reader::{Field, Keys};
use crate::requests::{BATCH, LENGTH, LIMIT, MOST_TOKENS, length};
use crate::served::Length;
use crate::units::{ARRIVALS, ArrivalRate, TIME, arrivals, at_most, between, fraction, time};
use policy::Nanos;

/// Sessions, turns of a session, and numbers of blocks of all prompts together.
const MOST_SESSIONS: u64 = 1_000_000;
const MOST_TURNS: u64 = 1_000;
const MOST_NUMBERS: u64 = 1 << 28;
/// Sessions that begin like others and go on turn by turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversations {
    /// How many.
    pub sessions: u32,
    /// How many begin in a second.
    pub rate: ArrivalRate,
    /// Turns of each.
    pub turns: u32,
    /// The mean of the exponential time from one turn to the next.
    pub think: Nanos,
    /// Prefixes that sessions share.
    pub prefixes: u32,
    /// Tokens of each.
    pub prefix_tokens: u32,
    /// Which session has which.
    pub order: PrefixOrder,
    /// Probability that a turn goes on from an earlier one than the last, 0 to 1.
    pub branch: f64,
    /// Tokens that a turn adds to the prompt.
    pub message: Length,
    /// Tokens that are put out.
    pub answer: Length,
    /// Tokens of a numbered block.
    pub block: u32,
}

/// Which session has which shared prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PrefixOrder {
    /// One after the other, and again from the first.
    InTurn,
    /// Drawn, the first ones most often.
    Zipf {
        /// The exponent, 0 to 4: 0 is uniform.
        skew: f64,
    },
}

/// The keys of `conversations`.
pub(crate) static CONVERSATIONS: Table = Table {
    name: "conversations",
    about: "Sessions that share prefixes; each turn's prompt has all that was said before",
    open: false,
    keys: &[
        Key::required("sessions", Whole(1, MOST_SESSIONS), "100", "Sessions in all"),
        Key::required("rate", AboveZero(&ARRIVALS), "1 /s", "The mean rate at which sessions begin"),
        Key::default("turns", Whole(1, MOST_TURNS), "1", "Turns of a session"),
        Key::default(
            "think",
            Quantity(&TIME),
            "20 s",
            "The mean of the exponential time from one turn of a session to its next",
        ),
        Key::default("prefixes", Whole(1, MOST_SESSIONS), "1", "Prefixes that sessions share"),
        Key::default("prefix_tokens", Whole(1, MOST_TOKENS), "1024", "Tokens of a shared prefix"),
        Key::optional(
            "skew",
            Number(0.0, 4.0),
            "1",
            "Draw a session's prefix from a Zipf popularity with this exponent; left out, they come in turn",
        ),
        Key::default(
            "branch",
            Fraction,
            "0 %",
            "Probability that a turn goes on from an earlier one than the last",
        ),
        Key::default("message", LENGTH, "128", "Tokens that a turn adds to the prompt"),
        Key::default("answer", LENGTH, "128", "Tokens that are put out"),
        Key::default("block", Whole(1, 1 << 16), "64", "Tokens of a numbered block of prompts"),
        BATCH,
        LIMIT,
    ],
};

/// Reads `conversations`.
pub(crate) fn conversations(
    report: &mut Report,
    field: &Field<'_>,
    keys: &Keys<'_>,
) -> Option<Conversations> {
    let sessions = keys.required(report, "sessions", at_most(MOST_SESSIONS));
    let rate = keys.required(report, "rate", arrivals);
    let turns = keys.or_default(report, "turns", at_most(MOST_TURNS));
    let think = keys.or_default(report, "think", time);
    let prefixes = keys.or_default(report, "prefixes", at_most(MOST_SESSIONS));
    let prefix_tokens = keys.or_default(report, "prefix_tokens", at_most(MOST_TOKENS));
    let skew = keys.optional(report, "skew", |text| between(text, 0.0, 4.0));
    let branch = keys.or_default(report, "branch", fraction);
    let message = length_or_default(report, keys, "message");
    let answer = length_or_default(report, keys, "answer");
    let block = keys.or_default(report, "block", at_most(1 << 16));
    let conversations = Conversations {
        sessions: sessions?,
        rate: rate?,
        turns: turns?,
        think: think?,
        prefixes: prefixes?,
        prefix_tokens: prefix_tokens?,
        order: skew?.map_or(PrefixOrder::InTurn, |skew| PrefixOrder::Zipf { skew }),
        branch: branch?,
        message: message?,
        answer: answer?,
        block: block?,
    };
    let Conversations { sessions, turns, prefixes, prefix_tokens, message, answer, block, .. } =
        conversations;
    // Every prompt is kept with the numbers of its blocks: the longest turn of each session, at most.
    let turn = u64::from(message.long()) + u64::from(answer.long());
    let longest = u64::from(prefix_tokens) + u64::from(turns) * turn;
    let prompts = u64::from(sessions) * u64::from(turns);
    let numbers = prompts.saturating_mul(longest.div_ceil(block.into()));
    if numbers > MOST_NUMBERS || u64::from(prefixes) * u64::from(prefix_tokens / block) > MOST_NUMBERS {
        let message = format!("prompts of {numbers} blocks in all");
        let hint = format!("at most {MOST_NUMBERS}: fewer sessions or turns, shorter ones, or larger blocks");
        field.key_error(report, Wrong::new(message, hint));
        return None;
    }
    Some(conversations)
}

/// A length, or the table's default.
fn length_or_default(report: &mut Report, keys: &Keys<'_>, key: &str) -> Option<Length> {
    match keys.get(key) {
        Some(field) => length(report, &field),
        None => keys.or_default(report, key, at_most(MOST_TOKENS)).map(Length::Fixed),
    }
}
