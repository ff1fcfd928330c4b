//! What controllers say to the directory of copies, which the first accelerator keeps: it is the one that sends tokens out.

use super::World;
use policy::directory::Note;

impl World {
    /// A controller says something to the directory. What those say who are led comes with them to where all meet.
    pub(super) fn tell(&mut self, note: Note) {
        match self.led {
            true => self.said.push(note),
            false => self.note(note),
        }
    }

    /// All have come to where they meet, with what they had to say.
    pub(super) fn take_notes(&mut self) {
        for place in 0..self.others.len() {
            for note in std::mem::take(&mut self.others[place].world.said) {
                self.note(note);
            }
        }
    }

    fn note(&mut self, note: Note) {
        // Who foresees what it will have to do must know it too.
        if self.workload.foresees() {
            self.others.iter_mut().for_each(|rank| rank.world.workload.told(note.clone()));
        }
        self.workload.told(note);
    }

    /// Entries of the directory that no longer stood when they were acted on: those blocks were read from their home copies.
    pub fn outdated(&self) -> u64 {
        self.others.iter().map(|rank| rank.outdated).sum()
    }
}
