//! What a Hugging Face `config.json` says of a model's shape, read key by key.

use crate::diagnostics::{Report, Wrong};
use crate::reader::{Field, Fields, flag, name_of};
use crate::recurrent::{Parts, Recurrence, Recurrent};
use crate::tree::Value;
use crate::units::whole;
use crate::unsupported::{REFUSED, Refused};
use policy::FormatId;

/// The widest matrix side, vocabulary apart.
const WIDEST: u64 = 1 << 17;
/// The largest vocabulary.
const VOCABULARY: u64 = 1 << 24;

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
    name: &'static str,
    /// The output head shares the embedding where the config does not say.
    ties: bool,
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
    recurrence: Recurrence,
    /// The type of what is not quantised, where the config does not say and there is one release only.
    dtype: Option<&'static str>,
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

/// From the modelling code of the transformers library, and of the model's own repository where it has one.
const FAMILIES: &[Family] = &[
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

const DTYPES: &[(&str, &str)] = &[("bfloat16", "bf16"), ("float16", "fp16"), ("float32", "fp32")];

/// What a model's weights are published in, where its config must say.
pub(crate) fn number_type(report: &mut Report, fields: &Fields<'_>) -> Option<FormatId> {
    let field = fields.need(report, "torch_dtype", "bfloat16, the type the weights were published in")?;
    field.read(report, name_of("number type", DTYPES)).and_then(FormatId::named)
}

/// How attention projects.
pub(crate) enum Attention {
    /// Query heads share key-value heads.
    Grouped { kv_heads: u64, head_dim: u64 },
    /// Multi-head latent attention: keys and values from one low-rank vector.
    Latent { query_rank: Option<u64>, kv_rank: u64, nope: u64, rope: u64, value: u64 },
}

/// The routed part of a mixture of experts.
pub(crate) struct Experts {
    pub(crate) count: u64,
    pub(crate) selected: u64,
    pub(crate) width: u64,
    /// Width of the shared experts together.
    pub(crate) shared_width: u64,
    /// Which layers are mixtures.
    pub(crate) layers: Vec<bool>,
    pub(crate) native: FormatId,
}

/// A decoder's shape.
pub(crate) struct Shape {
    pub(crate) family: Family,
    pub(crate) layers: u64,
    pub(crate) hidden: u64,
    pub(crate) vocabulary: u64,
    pub(crate) heads: u64,
    pub(crate) attention: Attention,
    pub(crate) bias: Bias,
    /// Width of a dense feed-forward layer, where there is one.
    pub(crate) dense_width: Option<u64>,
    pub(crate) experts: Option<Experts>,
    pub(crate) windows: Vec<Option<u32>>,
    pub(crate) recurrent: Option<Recurrent>,
    /// What the layers are made of.
    pub(crate) parts: Vec<Parts>,
    /// What embeddings, norms and routers are stored in.
    pub(crate) dtype: FormatId,
    /// What the layers' other matrices are stored in.
    pub(crate) linear: FormatId,
    pub(crate) tied: bool,
    pub(crate) head_bias: bool,
}

/// What linear layers are stored in.
#[derive(Clone, Copy)]
struct Formats {
    linear: FormatId,
    experts: FormatId,
}

/// A config whose keys are being read; `null` counts as absent, as it does in Python.
pub(crate) struct Config<'t, 'r> {
    pub(crate) fields: Fields<'t>,
    pub(crate) report: &'r mut Report,
}

/// Reads a config, or reports what keeps it from being imported.
pub(crate) fn shape(report: &mut Report, field: &Field<'_>) -> Option<Shape> {
    let fields = field.fields(report, "a catalogue name, or a path to a config.json")?;
    let mut config = Config { fields, report };
    let family = config.family(field)?;
    let hidden = config.required("hidden_size", WIDEST);
    let layers = config.required("num_hidden_layers", 4096);
    let vocabulary = config.required("vocab_size", VOCABULARY);
    let heads = match family.recurrence.alone() {
        true => Some(1),
        false => config.required("num_attention_heads", 4096),
    };
    let dtype = config.dtype(family);
    let formats = config.formats(family, dtype);
    let (hidden, layers, heads) = (hidden?, layers?, heads?);
    let attention = config.attention(hidden, heads);
    let experts = config.experts(layers, formats);
    let has_dense = match &experts {
        Some(Some(experts)) => experts.layers.contains(&false),
        Some(None) => !family.recurrence.alone(),
        None => false,
    };
    let dense_width = match has_dense {
        true => config.required("intermediate_size", WIDEST).map(Some),
        false => Some(None),
    };
    let windows = config.windows(family, layers);
    let recurrent = config.recurrent(family.recurrence, layers, hidden);
    let parts = config.parts(family.recurrence, layers);
    let bias = match config.truth("attention_bias", family.bias == Bias::All)? {
        true => Bias::All,
        false if family.bias == Bias::Qkv => Bias::Qkv,
        false => Bias::None,
    };
    Some(Shape {
        family,
        layers,
        hidden,
        vocabulary: vocabulary?,
        heads,
        attention: attention?,
        bias,
        dense_width: dense_width?,
        experts: experts?,
        windows: windows?,
        recurrent: recurrent?,
        parts: parts?,
        dtype: dtype?,
        linear: formats?.linear,
        tied: config.truth("tie_word_embeddings", family.ties)?,
        head_bias: config.truth("lm_head_bias", false)?,
    })
}

impl<'t> Config<'t, '_> {
    fn get(&mut self, key: &'static str) -> Option<Field<'t>> {
        self.fields.get(key).filter(|field| !matches!(field.node.value, Value::Null))
    }

    fn size(&mut self, key: &'static str, most: u64) -> Option<Option<u64>> {
        let Some(field) = self.get(key) else { return Some(None) };
        let value = field.read(self.report, |text| match whole(text)? {
            0 => Err(Wrong::new("zero", "at least 1")),
            value if value > most => {
                Err(Wrong::new(format!("{value} is too large"), format!("at most {most}")))
            }
            value => Ok(value),
        });
        value.map(Some)
    }

    /// Reports a key that is absent, `null` or empty.
    fn missing(&mut self, key: &'static str, hint: &str) {
        if let Some(field) = self.fields.need(self.report, key, hint) {
            field.error(self.report, Wrong::new("no value", format!("write `{key}: {hint}`")));
        }
    }

    pub(crate) fn required(&mut self, key: &'static str, most: u64) -> Option<u64> {
        let value = self.size(key, most)?;
        if value.is_none() {
            self.missing(key, "a number, as the model's config.json has it");
        }
        value
    }

    /// The first of several keys that is given: families name the same thing differently.
    fn any_of(&mut self, keys: &[&'static str], most: u64) -> Option<Option<u64>> {
        for key in keys {
            if let Some(value) = self.size(key, most)? {
                return Some(Some(value));
            }
        }
        Some(None)
    }

    fn truth(&mut self, key: &'static str, default: bool) -> Option<bool> {
        self.get(key).map_or(Some(default), |field| field.read(self.report, flag))
    }

    fn family(&mut self, field: &Field<'_>) -> Option<Family> {
        let name = match (self.get("model_type"), self.get("architectures")) {
            (Some(kind), _) => kind.read(self.report, |text| Ok(text.to_owned()))?,
            (None, Some(names)) => match names.items().first() {
                Some(first) => first.read(self.report, |text| Ok(text.to_owned()))?,
                None => String::new(),
            },
            (None, None) => String::new(),
        };
        let given = |key: &str| key == name || self.fields.entries.iter().any(|entry| entry.key == key);
        let family = FAMILIES.iter().find(|family| family.name == name).copied();
        let refused = REFUSED.iter().find(|(key, _)| given(key)).filter(|_| family.is_none());
        if let Some((key, Refused { kind, why })) = refused {
            let message = format!("{kind} (`{key}`) cannot be imported: {why}");
            let hint = "take a decoder-only transformer, dense or mixture of experts";
            field.error(self.report, Wrong::new(message, hint));
            return None;
        }
        if name.is_empty() {
            self.missing("model_type", "mixtral, as the model's config.json has it");
            return None;
        }
        if family.is_none() {
            let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
            let message = format!("a model of type `{name}` cannot be imported");
            field.error(self.report, Wrong::new(message, format!("known types: {}", known.join(", "))));
        }
        family
    }

    fn dtype(&mut self, family: Family) -> Option<FormatId> {
        let Some(field) = self.get("torch_dtype").or_else(|| self.get("dtype")) else {
            if family.dtype.is_none() {
                self.missing("torch_dtype", "bfloat16, the type the weights were published in");
            }
            return family.dtype.and_then(FormatId::named);
        };
        field.read(self.report, name_of("number type", DTYPES)).and_then(FormatId::named)
    }

    fn attention(&mut self, hidden: u64, heads: u64) -> Option<Attention> {
        if let Some(kv_rank) = self.size("kv_lora_rank", WIDEST)? {
            let query_rank = self.size("q_lora_rank", WIDEST)?;
            let nope = self.required("qk_nope_head_dim", 4096);
            let rope = self.required("qk_rope_head_dim", 4096);
            let value = self.required("v_head_dim", 4096);
            return Some(Attention::Latent { query_rank, kv_rank, nope: nope?, rope: rope?, value: value? });
        }
        let kv_heads = self.size("num_key_value_heads", 4096)?.unwrap_or(heads);
        let head_dim = self.size("head_dim", 4096)?.unwrap_or((hidden / heads).max(1));
        Some(Attention::Grouped { kv_heads, head_dim })
    }

    fn experts(&mut self, layers: u64, formats: Option<Formats>) -> Option<Option<Experts>> {
        let count = self.any_of(&["num_local_experts", "num_experts", "n_routed_experts"], 1 << 16)?;
        let Some(count) = count else { return Some(None) };
        let selected_keys = ["num_experts_per_tok", "num_experts_per_token", "moe_top_k"];
        let selected = match self.any_of(&selected_keys, count)? {
            Some(selected) => Some(selected),
            None => self.required("num_experts_per_tok", count),
        };
        let width = match self.size("moe_intermediate_size", WIDEST)? {
            Some(width) => Some(width),
            None => self.required("intermediate_size", WIDEST),
        };
        let shared = self.any_of(&["n_shared_experts", "num_shared_experts"], 1 << 10)?.unwrap_or(0);
        let shared_keys = ["shared_expert_intermediate_size", "shared_intermediate_size"];
        let shared_width = match self.any_of(&shared_keys, WIDEST)? {
            Some(width) => Some(width),
            None => width.map(|width| width * shared),
        };
        let layers = self.mixture_layers(layers);
        Some(Some(Experts {
            count,
            selected: selected?,
            width: width?,
            shared_width: shared_width?,
            layers: layers?,
            native: formats?.experts,
        }))
    }

    /// What the linear layers are stored in: quantised in the release, or as everything else.
    fn formats(&mut self, family: Family, dtype: Option<FormatId>) -> Option<Formats> {
        let all = |format| Some(Formats { linear: format, experts: format });
        let mxfp4 = || Some(Formats { linear: dtype?, experts: FormatId::named("mxfp4")? });
        let fp8 = || FormatId::named("fp8_e4m3_b128").and_then(all);
        if let Some(written) = self.get("weight_dtype") {
            let known = [("fp8_e4m3 128x128 block scales", ())];
            return written.read(self.report, name_of("weight format", &known)).and_then(|()| fp8());
        }
        let Some(quantized) = self.get("quantization_config") else {
            return if family.gpt_oss { mxfp4() } else { dtype.and_then(all) };
        };
        let fields = quantized.fields(self.report, "quant_method")?;
        let method = fields.need(self.report, "quant_method", "mxfp4")?;
        match method.text(self.report)? {
            "mxfp4" => mxfp4(),
            "fp8" => {
                let hint = "[128, 128], the tile that shares a scale";
                let tile = fields.need(self.report, "weight_block_size", hint)?;
                let sides: Option<Vec<u64>> =
                    tile.items().iter().map(|side| side.read(self.report, whole)).collect();
                if sides? != [128, 128] {
                    tile.error(self.report, Wrong::new("a tile that is no format here", "[128, 128] is"));
                    return None;
                }
                fp8()
            }
            other if FormatId::named(other).is_some() => FormatId::named(other).and_then(all),
            other => {
                let message = format!("weights published in `{other}` have a layout that is no format here");
                let hint =
                    "take the config of the unquantised model, of mxfp4, of fp8 in tiles, or a GGUF file";
                method.error(self.report, Wrong::new(message, hint));
                None
            }
        }
    }

    /// Which layers are mixtures: DeepSeek's leading dense layers, Qwen's sparse step and list of dense layers.
    fn mixture_layers(&mut self, layers: u64) -> Option<Vec<bool>> {
        if self.fields.get("expert_layer_period").is_some() {
            return self.periodic("expert_layer_period", "expert_layer_offset", layers);
        }
        let dense_first = match self.get("first_k_dense_replace") {
            Some(field) => field.read(self.report, whole)?,
            None => 0,
        };
        let frequency = self.size("moe_layer_freq", layers)?.unwrap_or(1);
        let step = self.size("decoder_sparse_step", layers)?.unwrap_or(1);
        let mut mixtures: Vec<bool> = (0..layers)
            .map(|layer| layer >= dense_first && layer % frequency == 0 && (layer + 1) % step == 0)
            .collect();
        if let Some(list) = self.get("mlp_only_layers") {
            for item in list.items() {
                let layer = item.read(self.report, whole)?;
                if let Some(mixture) = mixtures.get_mut(usize::try_from(layer).unwrap_or(usize::MAX)) {
                    *mixture = false;
                }
            }
        }
        Some(mixtures)
    }

    /// Every so many layers, from an offset on: Jamba's layers that attend, and those that are mixtures.
    pub(crate) fn periodic(
        &mut self,
        period: &'static str,
        offset: &'static str,
        layers: u64,
    ) -> Option<Vec<bool>> {
        let period = self.required(period, 4096)?;
        let offset = self.get(offset).map_or(Some(0), |field| field.read(self.report, whole))?;
        Some((0..layers).map(|layer| layer % period == offset % period).collect())
    }

    /// A map within the config.
    pub(crate) fn below(&mut self, key: &'static str) -> Option<Config<'t, '_>> {
        let field = self.fields.need(self.report, key, "a map, as the model's config.json has it")?;
        let fields = field.fields(self.report, "a map, as the model's config.json has it")?;
        Some(Config { fields, report: self.report })
    }

    /// A list of numbers that must be there.
    pub(crate) fn numbers(&mut self, key: &'static str) -> Option<Vec<u64>> {
        let field =
            self.fields.need(self.report, key, "a list of numbers, as the model's config.json has it")?;
        let numbers: Vec<_> = field.items().iter().map(|item| item.read(self.report, whole)).collect();
        numbers.into_iter().collect()
    }

    /// The attention window of each layer.
    fn windows(&mut self, family: Family, layers: u64) -> Option<Vec<Option<u32>>> {
        if family.recurrence != Recurrence::None {
            return Some(vec![None; layers as usize]);
        }
        let window = self.size("sliding_window", u64::from(u32::MAX))?.map(|window| window as u32);
        let used = self.truth("use_sliding_window", true)?;
        let first = self.size("max_window_layers", 1 << 16)?.unwrap_or(0);
        let listed = self.get("layer_types");
        let count = layers as usize;
        // As a transcription writes it that has no list.
        let written = listed.as_ref().map(|listed| &listed.node.value);
        let alternates = matches!(written, Some(Value::Scalar(text)) if text == "alternating sliding/full");
        if let Some(list) = listed.filter(|_| !alternates) {
            let kinds = [("sliding_attention", true), ("full_attention", false)];
            let items: Vec<_> = list
                .items()
                .iter()
                .map(|item| item.read(self.report, name_of("layer type", &kinds)))
                .collect();
            let sliding: Vec<bool> = items.into_iter().collect::<Option<_>>()?;
            if sliding.len() != count {
                let message = format!("{} layer types for {count} layers", sliding.len());
                list.error(self.report, Wrong::new(message, "one for each layer"));
                return None;
            }
            return Some(sliding.into_iter().map(|slides| window.filter(|_| slides)).collect());
        }
        let slides = |layer: u64| match family.gpt_oss || alternates {
            true => layer.is_multiple_of(2),
            false => used && layer >= first,
        };
        Some((0..layers).map(|layer| window.filter(|_| slides(layer))).collect())
    }
}
