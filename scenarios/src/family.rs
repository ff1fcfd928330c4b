//! Families of models: what the code of each says that its config leaves out.

/// Which attention projections have biases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    None,
    Qkv,
    All,
}

/// What queries and keys are normalised over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkNorm {
    None,
    Head,
    Whole,
}

/// How a family of models differs from a plain decoder: what its code says and its config leaves out.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    /// `model_type`, or the architecture where a config has no `model_type`.
    pub(crate) name: &'static str,
    /// The output head shares the embedding where the config does not say.
    pub(crate) ties: bool,
    pub(crate) bias: Bias,
    pub(crate) qk_norm: QkNorm,
    /// Experts carry biases, the router too, and each head has an attention sink.
    pub(crate) gpt_oss: bool,
    /// A sigmoid gate on the shared expert.
    pub(crate) shared_gate: bool,
    /// The router has a bias for each expert, which balances their load.
    pub(crate) router_bias: bool,
    /// Layer norms have biases.
    pub(crate) norm_bias: bool,
    /// Feed-forwards without a gate: up and down.
    pub(crate) ungated: bool,
    /// Attention has a gate as wide as its queries, which comes from the same projection.
    pub(crate) query_gate: bool,
    /// What its recurrent layers are, where it has any.
    pub(crate) recurrence: Recurrence,
    /// The type of what is not quantised, where the config does not say and there is one release only.
    pub(crate) dtype: Option<&'static str>,
}

const PLAIN: Family = Family {
    name: "",
    ties: false,
    bias: Bias::None,
    qk_norm: QkNorm::None,
    gpt_oss: false,
    shared_gate: false,
    router_bias: false,
    norm_bias: false,
    ungated: false,
    query_gate: false,
    recurrence: Recurrence::None,
    dtype: None,
};

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

/// From the modelling code of the transformers library, and of the model's own repository where it has one.
pub(crate) const FAMILIES: &[Family] = &[
    Family { name: "llama", ..PLAIN },
    Family { name: "mistral", ..PLAIN },
    Family { name: "mixtral", ..PLAIN },
    Family { name: "gpt_oss", bias: Bias::All, gpt_oss: true, dtype: Some("bf16"), ..PLAIN },
    Family { name: "qwen2", bias: Bias::Qkv, ..PLAIN },
    Family { name: "qwen2_moe", bias: Bias::Qkv, shared_gate: true, ..PLAIN },
    Family { name: "qwen3", qk_norm: QkNorm::Head, ..PLAIN },
    Family { name: "qwen3_moe", qk_norm: QkNorm::Head, ..PLAIN },
    Family { name: "olmoe", qk_norm: QkNorm::Whole, ..PLAIN },
    Family { name: "phimoe", norm_bias: true, ..PLAIN },
    Family { name: "grinmoe", norm_bias: true, ..PLAIN },
    Family { name: "granitemoe", ..PLAIN },
    Family { name: "deepseek", ..PLAIN },
    Family { name: "deepseek_v2", ..PLAIN },
    Family { name: "deepseek_v3", router_bias: true, dtype: Some("bf16"), ..PLAIN },
    Family { name: "xverse", ..PLAIN },
    Family { name: "jamba", recurrence: Recurrence::Jamba, ..PLAIN },
    Family { name: "mamba", ties: true, recurrence: Recurrence::Mamba, ..PLAIN },
    Family { name: "mamba2", ties: true, recurrence: Recurrence::Mamba2, ..PLAIN },
    Family { name: "nemotron_h", ungated: true, recurrence: Recurrence::NemotronH, ..PLAIN },
    Family { name: "granitemoehybrid", recurrence: Recurrence::Granite, ..PLAIN },
    Family {
        name: "qwen3_next",
        qk_norm: QkNorm::Head,
        shared_gate: true,
        query_gate: true,
        recurrence: Recurrence::Qwen3Next,
        ..PLAIN
    },
    Family { name: "kimi_linear", router_bias: true, recurrence: Recurrence::KimiLinear, ..PLAIN },
    Family { name: "MiniCPMForCausalLM", ties: true, ..PLAIN },
];
