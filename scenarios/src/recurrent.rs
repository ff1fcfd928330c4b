//! Recurrent layers in a decoder's config: which layers are, and what they are made of.

use crate::shape::Config;
use policy::model::Matrix;

/// The widest state of a channel, and the longest convolution.
const WIDEST: u64 = 1 << 12;
/// The most ranks of the step's projection, and times an inner channel is wider than the residual stream.
const MOST_RANK: u64 = 1 << 17;

/// Selective state spaces (Mamba, arXiv 2312.00752), as Jamba has them.
pub(crate) struct Recurrent {
    /// Which layers are recurrent; the others attend.
    pub(crate) layers: Vec<bool>,
    hidden: u64,
    /// Channels.
    inner: u64,
    /// Numbers that each of them remembers.
    state: u64,
    /// Tokens that the convolution sees.
    convolution: u64,
    /// Rank of the projection of the step size.
    rank: u64,
}

impl Recurrent {
    /// Reads the keys of a Jamba config; `None` where one is wrong.
    pub(crate) fn jamba(config: &mut Config<'_, '_>, layers: u64, hidden: u64) -> Option<Recurrent> {
        let attends = config.periodic("attn_layer_period", "attn_layer_offset", layers);
        let state = config.required("mamba_d_state", WIDEST);
        let convolution = config.required("mamba_d_conv", WIDEST);
        let expand = config.required("mamba_expand", WIDEST);
        let rank = config.required("mamba_dt_rank", MOST_RANK);
        Some(Recurrent {
            layers: attends?.into_iter().map(|attends| !attends).collect(),
            hidden,
            inner: expand? * hidden,
            state: state?,
            convolution: convolution?,
            rank: rank?,
        })
    }

    /// The projections in, out, and of what selects.
    pub(crate) fn matrices(&self) -> Vec<Matrix> {
        let matrix = |rows, columns| Matrix { rows, columns };
        vec![
            matrix(2 * self.inner, self.hidden),
            matrix(self.rank + 2 * self.state, self.inner),
            matrix(self.inner, self.rank),
            matrix(self.hidden, self.inner),
        ]
    }

    /// Weights that are no matrix of a linear layer: the convolution and its biases, those of the step, the decays, what passes
    /// by, and Jamba's norms of what selects.
    pub(crate) fn vectors(&self) -> u64 {
        self.inner * (self.convolution + 1) + self.inner * (self.state + 2) + self.rank + 2 * self.state
    }

    /// Operations of the convolution and the scan for a token: nine for each number of the state, as VMamba's counter has it.
    pub(crate) fn scan(&self) -> u64 {
        self.inner * (2 * self.convolution + 9 * self.state)
    }

    /// Numbers that a request keeps in a layer: the state, and what the convolution has yet to see.
    pub(crate) fn kept(&self) -> u64 {
        self.inner * (self.state + self.convolution - 1)
    }
}
