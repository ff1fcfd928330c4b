//! Accelerators that have experts of their own, as the controller of one of them sees the others go and come back.
//!
//! A loss is noticed where all meet, at the end of the step that runs: what that step gave is thrown away, since a part of it is
//! missing, and survivors serve on. The requests that the lost one attended to are computed again at survivors, whose caches
//! take more memory then. The controller of the lost one has nothing more to decide, as no expert is asked of it and no memory
//! is left to it; it only keeps step with the others, so that it can serve again at once when its accelerator is back.

use super::{ControlError, Orchestrator};
use crate::directory::{Claim, Herald, News, Note, Outdated};
use crate::event::Command;
use crate::id::MoveId;
use crate::parallel::ExpertShare;
use crate::refused::Refused;
use crate::serving::Abandoned;
use crate::units::{Bytes, Time};

/// An accelerator that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which one, from 0.
    pub rank: u32,
    /// When the others noticed.
    pub at: Time,
    /// When it took part again, if it did.
    pub back: Option<Time>,
    /// What had to be computed again.
    pub abandoned: Abandoned,
}

/// What a controller knows of the others. The default is one that is alone.
#[derive(Debug, Default)]
pub(crate) struct Group {
    share: ExpertShare,
    /// How often each has come back, and whether it is lost now.
    members: Vec<Member>,
    /// Those that are lost, each time that was heard since the running step began: not noticed yet.
    heard: Vec<Vec<u32>>,
    /// Whether somebody was lost while the running step was computed.
    spoilt: bool,
    /// Who speaks for this one, where there is a directory.
    herald: Option<Herald>,
    /// Moves that were under way when this one was lost: what comes of them comes to nothing.
    severed: Vec<MoveId>,
    /// Requests of a batch, and what the caches of an equal share of them take: set aside from the beginning.
    batch: usize,
    caches: Bytes,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    epoch: u32,
    lost: bool,
}

impl Group {
    /// All are there.
    pub(crate) fn new(share: ExpertShare, herald: Option<Herald>, batch: usize, caches: Bytes) -> Group {
        let members = vec![Member::default(); share.of as usize];
        Group { share, members, herald, batch, caches, ..Group::default() }
    }

    fn lost(&self) -> usize {
        self.members.iter().filter(|member| member.lost).count()
    }

    /// Whether its own accelerator is lost.
    pub(crate) fn is_out(&self) -> bool {
        self.members.get(self.share.rank as usize).is_some_and(|own| own.lost)
    }

    /// What caches take here of requests that the lost would attend to, beyond what was set aside.
    pub(crate) fn taken_over(&self) -> Bytes {
        let (all, lost) = (self.members.len(), self.lost());
        if lost == 0 || lost == all {
            return Bytes::ZERO;
        }
        let (before, now) = (self.batch.div_ceil(all), self.batch.div_ceil(all - lost));
        let each = self.caches.0 as f64 / before.max(1) as f64;
        Bytes((each * (now - before) as f64).ceil() as u64)
    }
}

impl Orchestrator {
    /// Of all accelerators these are lost from now on, and no others.
    pub(crate) fn accelerators_lost(&mut self, lost: Vec<u32>) -> Result<(), ControlError> {
        let group = &mut self.group;
        let was_lost = |rank: &u32| match group.heard.last() {
            Some(before) => before.contains(rank),
            None => group.members.get(*rank as usize).is_some_and(|member| member.lost),
        };
        group.spoilt |= self.stepping && !lost.iter().all(was_lost);
        group.heard.push(lost);
        if self.stepping { Ok(()) } else { self.regroup().and_then(|()| self.start_step()) }
    }

    /// Whether what the step that has just ended gave is to be thrown away.
    pub(crate) fn take_spoilt(&mut self) -> bool {
        std::mem::take(&mut self.group.spoilt)
    }

    /// No step is running: whoever is lost now is served without, whoever is back takes part again.
    pub(crate) fn regroup(&mut self) -> Result<(), ControlError> {
        for lost in std::mem::take(&mut self.group.heard) {
            self.notice(&lost)?;
        }
        Ok(())
    }

    fn notice(&mut self, lost: &[u32]) -> Result<(), ControlError> {
        let at = self.context.signals.now;
        for rank in 0..self.group.members.len() as u32 {
            let now = lost.contains(&rank);
            let member = &mut self.group.members[rank as usize];
            if std::mem::replace(&mut member.lost, now) == now {
                continue;
            }
            let epoch = member.epoch;
            member.epoch += u32::from(!now);
            let own = rank == self.group.share.rank;
            match now {
                true => {
                    let abandoned = self.serving.lose(rank);
                    self.tally.losses.push(Loss { rank, at, back: None, abandoned });
                    if own {
                        self.lose_memory()?;
                    }
                    self.commands.push(Command::Tell(Note { device: rank, epoch, news: News::Lost }));
                }
                false => {
                    self.serving.regain(rank);
                    let lost = self.tally.losses.iter_mut().rev().find(|loss| loss.rank == rank);
                    lost.into_iter().for_each(|loss| loss.back = Some(at));
                    if own {
                        self.come_back();
                    }
                }
            }
        }
        Ok(self.keep_to_room()?)
    }

    /// Everything that is in fast memory is gone, or on its way there.
    fn lose_memory(&mut self) -> Result<(), Refused> {
        let fast = self.context.costs.fast;
        let moves = self.context.ledger.flights().filter(|(_, flight)| flight.involves(fast));
        for id in moves.map(|(id, _)| id).collect::<Vec<_>>() {
            if !self.abandoned.contains(&id) {
                self.cancel(id)?;
            }
            if self.context.ledger.flight(id).is_some() {
                self.group.severed.push(id);
            }
        }
        self.group.herald.iter_mut().for_each(Herald::lose);
        Ok(())
    }

    fn come_back(&mut self) {
        let (context, commands) = (&self.context, &mut self.commands);
        if let Some(herald) = &mut self.group.herald {
            herald.begin(&context.ledger, &context.home, |note| commands.push(Command::Tell(note)));
        }
    }

    /// Whether a move was under way when the accelerator that it comes from or goes to was lost.
    pub(crate) fn is_severed(&mut self, id: MoveId) -> bool {
        let severed = self.group.severed.iter().position(|&other| other == id);
        severed.map(|place| self.group.severed.swap_remove(place)).is_some()
    }

    /// Says what has changed in the ledger.
    pub(crate) fn tell(&mut self) {
        let (context, commands) = (&mut self.context, &mut self.commands);
        if let Some(herald) = &mut self.group.herald {
            herald.tell(&mut context.ledger, &context.home, |note| commands.push(Command::Tell(note)));
        }
    }

    /// Whether an entry of the directory still stands.
    ///
    /// # Errors
    /// See [`Herald::confirm`]; where nobody speaks for this accelerator, nothing was said of it.
    pub fn confirm(&self, claim: Claim) -> Result<(), Outdated> {
        let Claim { device, block, .. } = claim;
        self.group.herald.as_ref().map_or(Err(Outdated { device, block }), |herald| herald.confirm(claim))
    }
}
