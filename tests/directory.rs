//! The directory of copies against the ledgers that it speaks of: whatever is delayed, repeated or out of order, and whoever is lost.

use crate::small::{Small, fast};
use policy::directory::{Directory, Herald, News, Note};
use policy::event::{Form, MoveClass};
use policy::flight::Flight;
use policy::ledger::Ledger;
use policy::{BlockId, TierId};
use proptest::prelude::*;
use sim::Case;

const DEVICES: u32 = 4;

/// An accelerator: its ledger, who speaks for it, and whether it is lost.
struct Device {
    ledger: Ledger,
    herald: Herald,
    epoch: u32,
    lost: bool,
}

/// Several of them, what they have said that has not come yet, and what has.
struct Walk {
    case: Case,
    devices: Vec<Device>,
    directory: Directory,
    said: Vec<Note>,
    /// For each accelerator, the first epoch that is not known to be over, and the last that is known to have begun.
    known: Vec<(u32, u32)>,
}

impl Walk {
    fn new() -> Walk {
        let case = Small { slots: 12, layers: 2, ..Small::default() }.case();
        let blocks = case.model.blocks.len();
        let native = case.model.blocks[0].native;
        let device = |index| {
            let mut ledger =
                Ledger::new(case.model.clone(), &case.machine, &[native], &case.budgets, &case.home, &[])
                    .unwrap();
            let herald = Herald::new(index, &mut ledger, blocks);
            Device { ledger, herald, epoch: 0, lost: false }
        };
        let devices = (0..DEVICES).map(device).collect();
        let directory = Directory::new(DEVICES, blocks);
        Walk { devices, directory, said: Vec::new(), known: vec![(0, 0); DEVICES as usize], case }
    }

    fn forms(&self) -> [Form; 2] {
        let format = self.case.model.blocks[0].native;
        [self.case.home.first(), fast(&self.case.machine)].map(|tier| Form { tier, format })
    }

    fn tier(&self) -> TierId {
        fast(&self.case.machine)
    }

    /// One accelerator fetches a block, gives it up, or does what it can of the two.
    fn touch(&mut self, index: u32, block: BlockId, in_part: bool) {
        let ([home, to], bytes) = (self.forms(), self.case.model.largest_block());
        let Device { ledger, herald, lost, .. } = &mut self.devices[index as usize];
        if *lost {
            return;
        }
        if let Some((id, flight)) = ledger.flight_of(block).map(|(id, flight)| (id, *flight)) {
            if in_part { drop(ledger.cancel(id)) } else { drop(ledger.arrive(id, flight.total)) }
        } else if ledger.has(block, to) {
            ledger.drop_copy(block, to).unwrap();
        } else if let Ok(id) = ledger.begin(Flight::new(block, home.into(), to, MoveClass::Demand, bytes))
            && !in_part
        {
            ledger.arrive(id, bytes).unwrap();
        }
        herald.tell(ledger, &self.case.home, |note| self.said.push(note));
    }

    /// An accelerator is lost, or comes back.
    fn turn(&mut self, index: u32) {
        let [_, to] = self.forms();
        let Device { ledger, herald, epoch, lost } = &mut self.devices[index as usize];
        *lost = !*lost;
        if *lost {
            self.said.push(Note { device: index, epoch: *epoch, news: News::Lost });
            herald.lose();
            let flights: Vec<_> = ledger.flights().map(|(id, _)| id).collect();
            flights.into_iter().for_each(|id| _ = ledger.cancel(id).unwrap());
            let blocks = (0..self.case.model.blocks.len() as u32).map(BlockId);
            blocks.filter(|&block| ledger.has(block, to)).collect::<Vec<_>>().into_iter().for_each(|block| {
                ledger.drop_copy(block, to).unwrap();
            });
            herald.tell(ledger, &self.case.home, |note| panic!("a word of the dead: {note:?}"));
        } else {
            *epoch += 1;
            herald.begin(ledger, &self.case.home, |note| self.said.push(note));
        }
    }

    /// A note comes.
    fn deliver(&mut self, note: Note) {
        let (over, begun) = &mut self.known[note.device as usize];
        match note.news {
            News::Lost => *over = (*over).max(note.epoch + 1),
            _ => *begun = (*begun).max(note.epoch),
        }
        self.directory.take(note);
    }

    /// Somebody looks a block up and asks for the copies that are named.
    fn look_up(&self, block: BlockId) {
        for (index, device) in (0..).zip(&self.devices) {
            let (over, begun) = self.known[index as usize];
            let claim = self.directory.claim(index, block, self.tier());
            assert!(begun >= over || claim.is_none(), "a copy at {index}, which is known to be lost");
            let Some(claim) = claim else { continue };
            let [home, copy] = self.forms();
            match device.herald.confirm(claim) {
                Ok(()) => assert!(!device.lost && device.ledger.has(block, copy), "confirmed, and not there"),
                // Whoever asked reads the home copy: that is never lost.
                Err(_) => assert!(self.devices.iter().all(|device| device.ledger.has(block, home))),
            }
        }
    }

    /// All has come: what the directory says is what the ledgers of those who are there say.
    fn agrees(&self) {
        let [home, _] = self.forms();
        for (index, device) in (0..).zip(&self.devices) {
            assert_eq!(self.directory.is_lost(index), device.lost);
            for block in (0..self.case.model.blocks.len() as u32).map(BlockId) {
                let own: Vec<Form> = device.ledger.copies(block).filter(|form| *form != home).collect();
                assert_eq!(self.directory.copies(index, block), own, "{block:?} at {index}");
            }
        }
    }
}

/// One thing that happens: where, what, to which block, and which of the notes under way comes next, if any does, and stays under way too.
type Happening = (u32, u8, u32, (usize, bool, bool));

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let note = (any::<usize>(), any::<bool>(), any::<bool>());
    prop::collection::vec((0..DEVICES, any::<u8>(), 0u32..16, note), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn the_directory_ends_as_the_union_of_the_live_ledgers(happenings in happenings()) {
        let mut walk = Walk::new();
        for &(device, what, block, (next, comes, again)) in &happenings {
            match what {
                0..10 => walk.turn(device),
                _ => walk.touch(device, BlockId(block), what % 4 == 0),
            }
            if comes && !walk.said.is_empty() {
                let next = next % walk.said.len();
                let note = if again { walk.said[next].clone() } else { walk.said.swap_remove(next) };
                walk.deliver(note);
            }
            walk.look_up(BlockId(block));
        }
        // The rest, the last first, and everything that is left a second time.
        let rest: Vec<Note> = walk.said.drain(..).rev().collect();
        rest.iter().cloned().for_each(|note| walk.deliver(note));
        rest.into_iter().for_each(|note| walk.deliver(note));
        walk.agrees();
    }
}
