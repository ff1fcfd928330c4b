//! Recurrent layers in a decoder's config: which layers are, what they are made of, and the state that they keep.

use crate::diagnostics::Wrong;
use crate::reader::name_of;
use crate::shape::Config;
use policy::model::{Matrix, RecurrentState};

/// The widest state of a channel, and the longest convolution.
const WIDEST: u64 = 1 << 12;
/// The most heads and groups.
const MOST_HEADS: u64 = 1 << 12;
/// The most ranks of the step's projection, and channels.
const MOST_CHANNELS: u64 = 1 << 17;
/// Channels of Mamba-1 that share a column scale: it has no heads, so as many as a head of Mamba-2 has.
const CHANNELS_OF_A_SCALE: u64 = 64;
/// Tokens of a chunk of the prompt kernels, at whose end the state is at hand: of the selective scan, of the chunked scan
/// of Mamba-2 (`chunk_size` of its configs), and of the delta rule (flash-linear-attention's kernels).
const SELECTIVE_CHUNK: u32 = 2048;
const SCALAR_CHUNK: u32 = 256;
const DELTA_CHUNK: u32 = 64;

/// Which recurrent layers a family has, and how its config says so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recurrence {
    None,
    /// Mamba-1 but for every eighth layer.
    Jamba,
    /// Mamba-1 and nothing else.
    Mamba,
    /// Mamba-2 and nothing else.
    Mamba2,
    /// A letter for each layer: Mamba-2, attention, or a feed-forward.
    NemotronH,
    /// Mamba-2 where the list of layers says so.
    Granite,
    /// Gated delta nets but for every fourth layer.
    Qwen3Next,
    /// Kimi delta attention where a list says so.
    KimiLinear,
}

impl Recurrence {
    /// Whether there is nothing but recurrent layers.
    pub(crate) fn alone(self) -> bool {
        matches!(self, Recurrence::Mamba | Recurrence::Mamba2)
    }
}

/// Whether a layer mixes its tokens, and whether a feed-forward follows: mostly both.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) mixer: bool,
    pub(crate) feed_forward: bool,
}

/// The recurrent layers of a model, all alike.
pub(crate) struct Recurrent {
    /// Which layers are recurrent.
    pub(crate) layers: Vec<bool>,
    hidden: u64,
    /// Tokens that the convolution sees.
    convolution: u64,
    rule: Rule,
}

/// How the state goes on from token to token.
enum Rule {
    /// Mamba-1 (arXiv 2312.00752): a decay for each channel and number.
    Selective {
        inner: u64,
        state: u64,
        /// Rank of the projection of the step size.
        rank: u64,
        /// Jamba's norms of what selects.
        norms: bool,
    },
    /// Mamba-2 (arXiv 2405.21060): a decay for each head.
    Scalar { heads: u64, head: u64, state: u64, groups: u64 },
    /// Gated delta nets (arXiv 2412.06464): a decay for each head, and what is overwritten is taken out first.
    Delta { key_heads: u64, key: u64, value_heads: u64, value: u64 },
    /// Kimi delta attention (arXiv 2510.26692): the same with a decay for each key channel.
    Channel { heads: u64, head: u64 },
}

impl Recurrent {
    /// Mamba-1 by the keys of a Jamba config; `None` where one is wrong.
    pub(crate) fn jamba(config: &mut Config<'_, '_>, layers: u64, hidden: u64) -> Option<Recurrent> {
        let attends = config.periodic("attn_layer_period", "attn_layer_offset", layers);
        let state = config.required("mamba_d_state", WIDEST);
        let convolution = config.required("mamba_d_conv", WIDEST);
        let expand = config.required("mamba_expand", WIDEST);
        let rank = config.required("mamba_dt_rank", MOST_CHANNELS);
        Some(Recurrent {
            layers: attends?.into_iter().map(|attends| !attends).collect(),
            hidden,
            convolution: convolution?,
            rule: Rule::Selective { inner: expand? * hidden, state: state?, rank: rank?, norms: true },
        })
    }

    /// Mamba-1 by the keys of a Mamba config: every layer.
    pub(crate) fn mamba(config: &mut Config<'_, '_>, layers: u64, hidden: u64) -> Option<Recurrent> {
        let inner = config.required("intermediate_size", MOST_CHANNELS);
        let state = config.required("state_size", WIDEST);
        let convolution = config.required("conv_kernel", WIDEST);
        let rank = config.required("time_step_rank", MOST_CHANNELS);
        Some(Recurrent {
            layers: vec![true; layers as usize],
            hidden,
            convolution: convolution?,
            rule: Rule::Selective { inner: inner?, state: state?, rank: rank?, norms: false },
        })
    }

    /// Mamba-2 by its heads, their width, the state, the groups and the convolution, each under the key that the family has.
    pub(crate) fn scalar(
        config: &mut Config<'_, '_>,
        layers: Vec<bool>,
        hidden: u64,
        [heads, head, state, groups, convolution]: [&'static str; 5],
    ) -> Option<Recurrent> {
        let heads = config.required(heads, MOST_HEADS);
        let head = config.required(head, WIDEST);
        let state = config.required(state, WIDEST);
        let groups = config.required(groups, MOST_HEADS);
        let convolution = config.required(convolution, WIDEST);
        let rule = Rule::Scalar { heads: heads?, head: head?, state: state?, groups: groups? };
        Some(Recurrent { layers, hidden, convolution: convolution?, rule })
    }

    /// Gated delta nets by the keys of a Qwen3-Next config.
    pub(crate) fn qwen3_next(config: &mut Config<'_, '_>, layers: u64, hidden: u64) -> Option<Recurrent> {
        let period = config.required("full_attention_interval", 4096);
        let key_heads = config.required("linear_num_key_heads", MOST_HEADS);
        let key = config.required("linear_key_head_dim", WIDEST);
        let value_heads = config.required("linear_num_value_heads", MOST_HEADS);
        let value = config.required("linear_value_head_dim", WIDEST);
        let convolution = config.required("linear_conv_kernel_dim", WIDEST);
        let period = period?;
        let rule = Rule::Delta { key_heads: key_heads?, key: key?, value_heads: value_heads?, value: value? };
        let layers = (1..=layers).map(|layer| !layer.is_multiple_of(period)).collect();
        Some(Recurrent { layers, hidden, convolution: convolution?, rule })
    }

    /// Kimi delta attention by the keys of a Kimi-Linear config's `linear_attn_config`, which counts layers from one.
    pub(crate) fn kimi_linear(config: &mut Config<'_, '_>, layers: u64, hidden: u64) -> Option<Recurrent> {
        let mut nested = config.below("linear_attn_config")?;
        let listed = nested.numbers("kda_layers");
        let heads = nested.required("num_heads", MOST_HEADS);
        let head = nested.required("head_dim", WIDEST);
        let convolution = nested.required("short_conv_kernel_size", WIDEST);
        let listed = listed?;
        Some(Recurrent {
            layers: (1..=layers).map(|layer| listed.contains(&layer)).collect(),
            hidden,
            convolution: convolution?,
            rule: Rule::Channel { heads: heads?, head: head? },
        })
    }

    /// The projections in, out, and of what decays and selects.
    pub(crate) fn matrices(&self) -> Vec<Matrix> {
        let matrix = |rows, columns| Matrix { rows, columns };
        let hidden = self.hidden;
        match self.rule {
            Rule::Selective { inner, state, rank, .. } => vec![
                matrix(2 * inner, hidden),
                matrix(rank + 2 * state, inner),
                matrix(inner, rank),
                matrix(hidden, inner),
            ],
            Rule::Scalar { heads, head, state, groups } => {
                let inner = heads * head;
                vec![matrix(2 * inner + 2 * groups * state + heads, hidden), matrix(hidden, inner)]
            }
            Rule::Delta { key_heads, key, value_heads, value } => {
                let (keys, values) = (key_heads * key, value_heads * value);
                vec![
                    matrix(2 * keys + 2 * values, hidden),
                    matrix(2 * value_heads, hidden),
                    matrix(hidden, values),
                ]
            }
            Rule::Channel { heads, head } => {
                let inner = heads * head;
                let projection = matrix(inner, hidden);
                // The decay and the output's gate are of low rank: a head's width.
                let (down, up) = (matrix(head, hidden), matrix(inner, head));
                let query_key_value = [projection; 3];
                let others = [down, up, down, up, matrix(heads, hidden), matrix(hidden, inner)];
                [&query_key_value[..], &others[..]].concat()
            }
        }
    }

    /// Channels that the convolution goes over.
    fn channels(&self) -> u64 {
        match self.rule {
            Rule::Selective { inner, .. } => inner,
            Rule::Scalar { heads, head, state, groups } => heads * head + 2 * groups * state,
            Rule::Delta { key_heads, key, value_heads, value } => 2 * key_heads * key + value_heads * value,
            Rule::Channel { heads, head } => 3 * heads * head,
        }
    }

    /// Weights that are no matrix of a linear layer: the convolution, decays, biases of the step, what passes by, norms.
    pub(crate) fn vectors(&self) -> u64 {
        let (taps, channels) = (self.convolution, self.channels());
        match self.rule {
            Rule::Selective { inner, state, rank, norms } => {
                let norms = if norms { rank + 2 * state } else { 0 };
                channels * (taps + 1) + inner * (state + 2) + norms
            }
            Rule::Scalar { heads, head, .. } => channels * (taps + 1) + 3 * heads + heads * head,
            Rule::Delta { value_heads, value, .. } => channels * taps + 2 * value_heads + value,
            Rule::Channel { heads, head } => channels * taps + heads + heads * head + head,
        }
    }

    /// Operations of the convolution and the recurrence for a token of a prompt. Mamba-1: nine for each number of the state, as
    /// VMamba's counter has it. Mamba-2: the chunked algorithm, two products within the chunk and two with the state. Delta
    /// rules: three products with the state, and its decay.
    pub(crate) fn scan(&self) -> u64 {
        let convolution = 2 * self.convolution * self.channels();
        convolution
            + match self.rule {
                Rule::Selective { inner, state, .. } => 9 * inner * state,
                Rule::Scalar { heads, head, state, groups } => {
                    let (chunk, inner) = (u64::from(SCALAR_CHUNK), heads * head);
                    2 * chunk * state * groups + 2 * chunk * inner + 4 * state * inner
                }
                Rule::Delta { key, value_heads, value, .. } => 7 * value_heads * key * value,
                Rule::Channel { heads, head } => 7 * heads * head * head,
            }
    }

    /// What a request keeps in a layer.
    pub(crate) fn kept(&self) -> RecurrentState {
        let (numbers, columns, chunk) = match self.rule {
            Rule::Selective { inner, state, .. } => {
                (inner * state, inner.div_ceil(CHANNELS_OF_A_SCALE) * state, SELECTIVE_CHUNK)
            }
            Rule::Scalar { heads, head, state, .. } => (heads * head * state, heads * state, SCALAR_CHUNK),
            Rule::Delta { key, value_heads, value, .. } => {
                (value_heads * value * key, value_heads * key, DELTA_CHUNK)
            }
            Rule::Channel { heads, head } => (heads * head * head, heads * head, DELTA_CHUNK),
        };
        RecurrentState { numbers, columns, convolution: self.channels() * (self.convolution - 1), chunk }
    }
}

impl Config<'_, '_> {
    /// The recurrent layers of a family, if it has any.
    pub(crate) fn recurrent(
        &mut self,
        recurrence: Recurrence,
        layers: u64,
        hidden: u64,
    ) -> Option<Option<Recurrent>> {
        let recurrent = match recurrence {
            Recurrence::None => return Some(None),
            Recurrence::Jamba => Recurrent::jamba(self, layers, hidden),
            Recurrence::Mamba => Recurrent::mamba(self, layers, hidden),
            Recurrence::Mamba2 => {
                let keys = ["num_heads", "head_dim", "state_size", "n_groups", "conv_kernel"];
                Recurrent::scalar(self, vec![true; layers as usize], hidden, keys)
            }
            Recurrence::NemotronH => {
                let keys = ["mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel"];
                let recurrent = self.pattern(layers)?.iter().map(|&letter| letter == b'M').collect();
                Recurrent::scalar(self, recurrent, hidden, keys)
            }
            Recurrence::Granite => {
                let keys =
                    ["mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_d_conv"];
                let recurrent = self.listed_layers(layers)?;
                Recurrent::scalar(self, recurrent, hidden, keys)
            }
            Recurrence::Qwen3Next => Recurrent::qwen3_next(self, layers, hidden),
            Recurrence::KimiLinear => Recurrent::kimi_linear(self, layers, hidden),
        };
        recurrent.map(Some)
    }

    /// What each layer has: a mixer and a feed-forward, or as the family says.
    pub(crate) fn parts(&mut self, recurrence: Recurrence, layers: u64) -> Option<Vec<Parts>> {
        let of = |mixer, feed_forward| Parts { mixer, feed_forward };
        if recurrence == Recurrence::NemotronH {
            let pattern = self.pattern(layers)?;
            return Some(pattern.iter().map(|&letter| of(letter != b'-', letter == b'-')).collect());
        }
        Some(vec![of(true, !recurrence.alone()); layers as usize])
    }

    /// Nemotron-H's layers, a letter each: `M` for Mamba-2, `*` for attention, `-` for a feed-forward.
    fn pattern(&mut self, layers: u64) -> Option<Vec<u8>> {
        let hint = "M-M*, a letter for each layer, as the model's config.json has it";
        let field = self.fields.need(self.report, "hybrid_override_pattern", hint)?;
        let pattern = field.text(self.report)?;
        if let Some(other) = pattern.chars().find(|letter| !"M*-".contains(*letter)) {
            let known = "`M` (Mamba-2), `*` (attention) and `-` (feed-forward)";
            field.error(self.report, Wrong::new(format!("no kind of layer is called `{other}`"), known));
            return None;
        }
        if pattern.len() as u64 != layers {
            let message = format!("{} letters for {layers} layers", pattern.len());
            field.error(self.report, Wrong::new(message, "one for each layer"));
            return None;
        }
        Some(pattern.as_bytes().to_vec())
    }

    /// Which layers Granite's list of layers has as recurrent.
    fn listed_layers(&mut self, layers: u64) -> Option<Vec<bool>> {
        let hint = "[mamba, attention], one for each layer, as the model's config.json has it";
        let list = self.fields.need(self.report, "layer_types", hint)?;
        let kinds = [("mamba", true), ("attention", false)];
        let items: Vec<_> =
            list.items().iter().map(|item| item.read(self.report, name_of("layer type", &kinds))).collect();
        let recurrent: Vec<bool> = items.into_iter().collect::<Option<_>>()?;
        if recurrent.len() as u64 != layers {
            let message = format!("{} layer types for {layers} layers", recurrent.len());
            list.error(self.report, Wrong::new(message, "one for each layer"));
            return None;
        }
        Some(recurrent)
    }
}
