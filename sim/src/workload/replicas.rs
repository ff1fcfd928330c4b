//! Who has which experts, as far as the workload that sends tokens to them knows.

use super::Workload;
use policy::LayerId;
use policy::directory::{Claim, Note};
use policy::event::Routed;
use policy::replicas::LayerReplicas;

impl Workload {
    /// Something is said to the directory of copies.
    pub fn told(&mut self, note: Note) {
        self.replicas.told(note);
    }

    /// How many accelerators that have experts of their own are there.
    pub fn ranks_there(&self) -> u32 {
        self.replicas.alive()
    }

    /// The entries of the directory on which a share of the experts is sent to a rank.
    pub fn relied_on(&self, layer: LayerId, rank: u32, share: &[Routed]) -> Vec<Claim> {
        let first = self.model.layer(layer).first_block.0;
        let of = |routed: &Routed| {
            let expert = routed.block.0.checked_sub(first)?;
            self.replicas.relied_on(self.routers[layer.index()]?, expert, rank)
        };
        let chosen = share.iter().filter(|_| self.share.replicas > 0);
        chosen.filter_map(of).collect()
    }

    /// What is known of a layer's replicas, for accelerators that foresee what they will have to do.
    pub fn replicas_of(&self, layer: LayerId) -> Option<&LayerReplicas> {
        self.replicas.layer(self.routers[layer.index()]?).filter(|_| self.foresees())
    }

    /// What the first of the accelerators knows of a layer's replicas is known here too.
    pub fn learn(&mut self, layer: LayerId, replicas: &LayerReplicas) {
        if let Some(router) = self.routers[layer.index()] {
            self.replicas.learn(router, replicas);
        }
    }
}
