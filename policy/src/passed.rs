//! Layers that a platform went through by itself, because nothing was to be decided for them: all that they chose was in fast
//! memory in full precision, and nothing moved. The controller gives leave for that ([`Command::Compute`]) and hears of it
//! afterwards, in order and with the times, so that it knows what it would have known.
//!
//! [`Command::Compute`]: crate::event::Command::Compute

use crate::event::Routed;
use crate::id::LayerId;
use crate::units::Time;

/// What became of layers, in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    marks: Vec<Mark>,
    /// The choices of all layers, one after the other.
    routed: Vec<Routed>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    at: Time,
    layer: LayerId,
    /// Where the layer's choice ends; `None` where its blocks have been computed.
    chosen: Option<usize>,
}

impl Passed {
    /// The layer's mixer is done, and its router has made a choice.
    pub fn routed(&mut self, at: Time, layer: LayerId, choice: &[Routed]) {
        self.routed.extend_from_slice(choice);
        self.marks.push(Mark { at, layer, chosen: Some(self.routed.len()) });
    }

    /// The layer's blocks have been computed.
    pub fn done(&mut self, at: Time, layer: LayerId) {
        self.marks.push(Mark { at, layer, chosen: None });
    }

    /// When the last of it was, if there is anything.
    pub fn last(&self) -> Option<Time> {
        self.marks.last().map(|mark| mark.at)
    }

    /// Every layer that was routed, with its choice, and every one that was done, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Time, LayerId, Option<&[Routed]>)> {
        let mut from = 0;
        self.marks.iter().map(move |mark| {
            let chosen = mark.chosen.map(|until| {
                let range = std::mem::replace(&mut from, until)..until;
                self.routed.get(range).unwrap_or_default()
            });
            (mark.at, mark.layer, chosen)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlockId;

    #[test]
    fn what_went_in_comes_out_in_order() {
        let expert = |block| Routed { block: BlockId(block), tokens: 1, gate_squared: 0.5 };
        let mut passed = Passed::default();
        assert_eq!(passed.last(), None);
        passed.routed(Time(10), LayerId(0), &[expert(3), expert(5)]);
        passed.done(Time(20), LayerId(0));
        passed.routed(Time(30), LayerId(1), &[]);
        let seen: Vec<_> = passed.iter().collect();
        assert_eq!(seen[0], (Time(10), LayerId(0), Some(&[expert(3), expert(5)][..])));
        assert_eq!(seen[1..], [(Time(20), LayerId(0), None), (Time(30), LayerId(1), Some(&[][..]))]);
        assert_eq!(passed.last(), Some(Time(30)));
    }
}
