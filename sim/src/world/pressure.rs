//! What others take of memories and links meanwhile, what fails, and what comes back.

use super::{Tick, World};
use crate::queue::Rank;
use policy::Time;
use policy::event::EventKind;
use scenarios::{Pressure, Taken};

impl World {
    /// The same, with others taking memory and links meanwhile.
    pub fn pressed(mut self, pressure: &[Pressure]) -> World {
        self.pressure = pressure.iter().rev().cloned().collect();
        self.expect_pressure();
        self
    }

    fn expect_pressure(&mut self) {
        if let Some(&Pressure { at, .. }) = self.pressure.last() {
            self.queue.push(Time(at.0), Rank::Admission, Tick::Pressure);
        }
    }

    /// Others take what they were expected to take now; what of it the controller is told.
    pub(super) fn take(&mut self) -> Option<EventKind> {
        let Pressure { taken, .. } = self.pressure.pop()?;
        self.expect_pressure();
        match taken {
            Taken::Memory(tier, reserved) => {
                self.lost.retain(|&lost| lost != tier);
                Some(EventKind::MemoryPressure { tier, reserved })
            }
            Taken::Tier(tier) => {
                self.lose(tier);
                Some(EventKind::TierLost { tier })
            }
            Taken::Accelerators(lost) => Some(EventKind::AcceleratorsLost { lost }),
            Taken::Link(links, rate) => {
                self.fabric.take(self.now, links, rate);
                None
            }
        }
    }
}
