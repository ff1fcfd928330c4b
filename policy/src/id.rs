//! Dense ids: indices into the tables of a model, a machine or a run.

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident: $repr:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            /// The id as an index into its table.
            #[inline]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// A block of the model. For a mixture of experts: `layer * experts_per_layer + expert`.
    BlockId: u32;
    /// A layer of the model.
    LayerId: u16;
    /// A tier of the machine.
    TierId: u8;
    /// One direction of a link of the machine.
    LinkId: u8;
    /// A processor beside memories of the machine that compute does not read directly.
    ProcessorId: u8;
    /// A move of bytes, unique in a run.
    MoveId: u64;
    /// A checkpoint of recurrent states, in the order in which they are made.
    CheckpointId: u64;
    /// A request, in order of arrival.
    RequestId: u32;
}
