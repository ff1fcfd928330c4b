//! Kinds of models that a `config.json` may describe and that cannot be imported, and why.

/// A kind of model that has no blocks here yet.
pub(crate) struct Refused {
    /// What it is called in messages.
    pub(crate) kind: &'static str,
    /// What it has that nothing here stands for.
    pub(crate) why: &'static str,
}

/// Model types and keys that mean a kind of model with no blocks here yet.
pub(crate) const REFUSED: &[(&str, Refused)] = &[
    ("zamba2", SHARED_ATTENTION),
    ("mamba_d_state", RECURRENT),
    ("mamba_heads", RECURRENT),
    ("d_state_default", RECURRENT),
    ("ssm_state", RECURRENT),
    ("hybrid_override_pattern", RECURRENT),
    ("patch_size", DIFFUSION),
    ("in_channels", DIFFUSION),
    ("jetmoe", TWO_ROUTERS),
    ("switch_transformers", ENCODER),
    ("nllb-moe", ENCODER),
    ("t5", ENCODER),
];
const RECURRENT: Refused = Refused {
    kind: "a model with recurrent layers",
    why: "its `model_type` does not say which kind, and only some kinds are known here",
};
const SHARED_ATTENTION: Refused =
    Refused { kind: "a model whose layers share attention blocks", why: "a layer here has its own weights" };
const DIFFUSION: Refused = Refused {
    kind: "a diffusion model",
    why: "these facts are of its transformer alone, and the matrices of every phase are needed",
};
const ENCODER: Refused = Refused {
    kind: "an encoder-decoder model",
    why: "its encoder runs once a request and its decoder once a token, and a model here is one stack of layers",
};
const TWO_ROUTERS: Refused = Refused {
    kind: "a model whose attention heads are experts too",
    why: "its layers select twice, by two routers, and a layer here has one",
};
