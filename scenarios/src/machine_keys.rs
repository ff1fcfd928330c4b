//! The keys of a machine file.

use crate::keys::Type::{AboveZero, Either, Flag, List, Map, Name, Quantity, Text, Whole};
use crate::keys::{Choice, Key, RowKey, Rows, Table, Type};
use crate::peers::PEERS;
use crate::price::PRICE;
use crate::reader::{format_names, names};
use crate::units::{FLOPS, RATE, SIZE, TIME};
use policy::machine::{Backing, Class};

/// How a block in a tier counts for the controller.
pub(crate) const CLASSES: &[(&str, Class)] =
    &[("fast", Class::Fast), ("staged", Class::Staged), ("cold", Class::Cold)];
/// What a memory is made of.
pub(crate) const BACKINGS: &[(&str, Backing)] = &[
    ("device", Backing::Device),
    ("pinned", Backing::Pinned),
    ("pageable", Backing::Pageable),
    ("numa", Backing::Numa),
    ("file", Backing::File),
];

/// The last NUMA node that Linux numbers.
pub(crate) const MOST_NODES: u64 = 1023;
/// The last accelerator of a machine: more than any has.
pub(crate) const MOST_DEVICES: u64 = 255;

/// A machine file.
pub(crate) static MACHINE: Table = Table {
    name: "machine",
    about: "A machine: its memories, the links between them, and the accelerator that computes",
    open: false,
    keys: &[
        Key::required("name", Text, "my-machine", "What it is called"),
        Key::required(
            "tiers",
            Type::Rows(&TIERS),
            "{ hbm: { class: fast, ... }, dram: { class: staged, ... } }",
            "The memories, under names of your choice; exactly one is of class fast",
        ),
        Key::required(
            "links",
            Type::Rows(&LINKS),
            "{ pcie: { between: [dram, hbm], forward: 56.5 GB/s, ... } }",
            "The links between memories, under names of your choice; every tier has a path to the fast one",
        ),
        Key::required(
            "accelerator",
            Map(&ACCELERATOR),
            "{ flops: 400 TFLOP/s, read: 2500 GB/s, launch: 3 us }",
            "The processor that computes from the fast tier",
        ),
        Key::optional(
            "codecs",
            Type::Rows(&CODECS),
            "{ int8: { encode: 250 GB/s, decode: 200 GB/s } }",
            "What coding a format costs the accelerator; formats left out cannot be expanded there",
        ),
        Key::optional(
            "merge",
            AboveZero(&FLOPS),
            "30 TFLOP/s",
            "Sustained rate at which the accelerator sums the products of recipes; left out, its matrix rate",
        ),
        Key::optional(
            "host",
            Map(&HOST),
            "{ codecs: { int8: { encode: 4 GB/s, decode: 8 GB/s } } }",
            "What the host's own processor can do",
        ),
        Key::optional(
            "price",
            PRICE,
            "{ per_hour: 3.99 USD, date: 2026-11-09, source: RunPod Secure Cloud }",
            "What it costs to rent, for `plan`",
        ),
    ],
};

static TIERS: Rows =
    Rows { about: "A memory of the machine", key: RowKey::Any, value: Map(&TIER), merges: true };

pub(crate) static TIER: Table = Table {
    name: "tier",
    about: "A memory of the machine",
    open: false,
    keys: &[
        Key::required(
            "class",
            Name(|| names(CLASSES)),
            "fast",
            "fast: compute reads it directly; staged: one move away; cold: slow or far",
        ),
        Key::required("backing", Name(|| names(BACKINGS)), "device", "What the memory is made of"),
        Key::optional(
            "node",
            Whole(0, MOST_NODES),
            "1",
            "The NUMA node of a memory of the host's (a CXL expander is one without processors): where `validate` takes its pages",
        ),
        Key::optional(
            "device",
            Whole(0, MOST_DEVICES),
            "1",
            "The number of the accelerator that holds it, beside the one that computes (backing `device`): where `validate --device cuda:0` takes it",
        ),
        Key::default(
            "transient",
            Flag,
            "false",
            "Whether its owner may take it back at any time, as a peer may its own: it holds staged copies, and no home ones",
        ),
        Key::required("capacity", AboveZero(&SIZE), "80 GiB", "Bytes it holds"),
        Key::default(
            "granularity",
            AboveZero(&SIZE),
            "1 B",
            "Allocations are rounded up to a multiple of this",
        ),
        Key::required("read", AboveZero(&RATE), "2500 GB/s", "Sustained read rate"),
        Key::required("write", AboveZero(&RATE), "2500 GB/s", "Sustained write rate"),
        Key::default("stripes", Whole(1, MOST_STRIPES), "1", STRIPES),
        Key::optional(
            "endurance",
            AboveZero(&SIZE),
            "3.84 TB",
            "Bytes that may be written to it in a day for as long as it is to last; the summary says how much is",
        ),
        Key::optional(
            "compute",
            Map(&PROCESSOR),
            "{ flops: 8 TFLOP/s, read: 1100 GB/s, launch: 5 us }",
            "A processor of its own, which computes blocks where they lie; `read` of the tier is then what the memory gives inside, and what leaves it is what its links carry",
        ),
    ],
};

/// What is striped, for a tier.
const STRIPES: &str = "Devices like this one over which every block is spread: drives in RAID 0, interleaved expanders. What else is said is of one";
/// More drives than a server has.
pub(crate) const MOST_STRIPES: u64 = 64;

static LINKS: Rows = Rows {
    about: "A link between two memories, both directions",
    key: RowKey::Any,
    value: Map(&LINK),
    merges: true,
};

pub(crate) static LINK: Table = Table {
    name: "link",
    about: "A link between two memories; forward is from the first of `between` to the second",
    open: false,
    keys: &[
        Key::required("between", List(&Text), "[dram, hbm]", "The two tiers it joins"),
        Key::required(
            "forward",
            LINK_RATE,
            "56.5 GB/s",
            "Rate with the other direction idle, first tier to second",
        ),
        Key::required(
            "backward",
            LINK_RATE,
            "57.4 GB/s",
            "Rate with the other direction idle, second tier to first",
        ),
        Key::required("latency", Quantity(&TIME), "1.4 us", "Time before the first byte arrives"),
        Key::required("submit", Quantity(&TIME), "1.4 us", "Cost of handing one copy to the engine"),
        Key::default(
            "stripes",
            Whole(1, MOST_STRIPES),
            "1",
            "Links like this one, each of which carries its part of every copy: one to each stripe of a tier. What else is said is of one",
        ),
        Key::default(
            "half_size",
            Quantity(&SIZE),
            "0 B",
            "Size of a copy at which it reaches half the rate; only where the rate is one number",
        ),
        Key::required(
            "engines",
            Whole(1, u32::MAX as u64),
            "1",
            "Copies under way at once in a direction: copy engines, or the queue depth of storage",
        ),
        Key::required(
            "duplex",
            Map(&DUPLEX),
            "{ forward: 25 GB/s, backward: 55 GB/s }",
            "The most each direction carries while the other is busy",
        ),
    ],
};

const LINK_RATE: Type = Either(&AboveZero(&RATE), &Type::Rows(&MEASURED));

static MEASURED: Rows = Rows {
    about: "Measured rates by the size of the copy, in growing order: `{ 64 KiB: 4.8 GB/s, 16 MiB: 23.9 GB/s }`",
    key: RowKey::AboveZero(&SIZE),
    value: AboveZero(&RATE),
    merges: false,
};

pub(crate) static DUPLEX: Table = Table {
    name: "duplex",
    about: "The rates with both directions busy",
    open: false,
    keys: &[
        Key::required("forward", AboveZero(&RATE), "25 GB/s", "First tier to second"),
        Key::required("backward", AboveZero(&RATE), "25 GB/s", "Second tier to first"),
    ],
};

const FLOP_RATE: Key = Key::required("flops", AboveZero(&FLOPS), "400 TFLOP/s", "Sustained matrix rate");
const READ: Key = Key::required(
    "read",
    AboveZero(&RATE),
    "2500 GB/s",
    "Sustained rate at which kernels read weights; `read` of the memory is at least this",
);
const LAUNCH: Key = Key::required(
    "launch",
    Quantity(&TIME),
    "3 us",
    "Fixed cost of one kernel: its launch, and beside other memories the activations' way there and back",
);
const BY_FORMAT: Key = Key::optional(
    "kernels",
    Type::Rows(&KERNELS),
    "{ int8: { 1: 2200 GB/s, 16: 1900 GB/s } }",
    "Matrix products as measured; formats that are left out take `read` and `flops`",
);

/// The host's processor, or a memory's.
pub(crate) static PROCESSOR: Table = Table {
    name: "processor",
    about: "A processor that computes",
    open: false,
    keys: &[FLOP_RATE, READ, LAUNCH, BY_FORMAT],
};

pub(crate) static ACCELERATOR: Table = Table {
    name: "accelerator",
    about: "The processor that computes from the fast tier",
    open: false,
    keys: &[
        FLOP_RATE,
        READ,
        LAUNCH,
        BY_FORMAT,
        Key::optional(
            "peak",
            Map(&PEAK),
            "{ flops: 989 TFLOP/s, read: 3350 GB/s }",
            "What it could do at most, as its data sheet says: reports hold every time against it",
        ),
        Key::optional(
            "peers",
            Map(&PEERS),
            "{ latency: 5 us, rate: 360 GB/s }",
            "How fast an accelerator sends to another one, where the machine has several: what sums over them take",
        ),
        Key::optional(
            "times",
            Type::Rows(&TIMES),
            "{ mixtral-8x7b: { expert: { points: { 1: 129 us, 512: 287 us } } } }",
            "Operators of a model as measured, by the model's name or `any`; what is left out takes `kernels`, `read` and `flops`",
        ),
    ],
};

pub(crate) static PEAK: Table = Table {
    name: "peak",
    about: "The physical limits of the accelerator; a rate that it sustains beyond them is the limit",
    open: false,
    keys: &[
        Key::required("flops", AboveZero(&FLOPS), "989 TFLOP/s", "Matrix rate, dense"),
        Key::required("read", AboveZero(&RATE), "3350 GB/s", "Memory bandwidth"),
    ],
};

static TIMES: Rows = Rows {
    about: "Operators of a model, as measured",
    key: RowKey::Any,
    value: Map(&OPERATORS),
    merges: true,
};

pub(crate) static OPERATORS: Table = Table {
    name: "operators",
    about: "Operators as measured on the accelerator, in the model's native format",
    open: false,
    keys: &[
        Key::optional(
            "mixer",
            Type::Choice(OPERATOR_TIMES),
            "{ points: { 1: 152 us, 512: 282 us } }",
            "Attention or another mixer with its projections, norms and router, by the step's tokens; attention itself is in it where a second number says how many tokens each request has in its cache",
        ),
        Key::optional(
            "expert",
            Type::Choice(OPERATOR_TIMES),
            "{ points: { 1: 129 us, 512: 287 us } }",
            "One routed expert, by the tokens that chose it",
        ),
        Key::optional(
            "experts",
            Type::Choice(OPERATOR_TIMES),
            "{ points: { 8: { 1: 50 us, 64: 71 us }, 16: { 2: 135 us, 64: 135 us } } }",
            "All blocks of a layer together, by their number and by the step's tokens",
        ),
        Key::optional(
            "head",
            Type::Choice(OPERATOR_TIMES),
            "{ points: { 1: 109 us, 512: 231 us } }",
            "The output head, by the requests that get a token",
        ),
    ],
};

/// Where the times of an operator are written; launches are in them.
pub(crate) const OPERATOR_TIMES: &[Choice] = &[
    Choice {
        name: "points",
        about: "Times by tokens, in growing numbers; or by a second number, each with times by tokens",
        takes: Type::Rows(&POINTS),
    },
    Choice { name: "csv", about: "A file of times", takes: Map(&TIMES_FILE) },
];

static POINTS: Rows = Rows {
    about: "Times by tokens: `{ 1: 152 us, 512: 282 us }`; or by a second number and then by tokens",
    key: RowKey::Count,
    value: Either(&AboveZero(&TIME), &Type::Rows(&TIMES_BY_TOKENS)),
    merges: false,
};

static TIMES_BY_TOKENS: Rows =
    Rows { about: "Times by tokens", key: RowKey::Count, value: AboveZero(&TIME), merges: false };

pub(crate) static TIMES_FILE: Table = Table {
    name: "times_file",
    about: "A CSV file with a column of tokens and one of times; others for a second number, for layers and for `tp_size`, of which 1 is taken",
    open: false,
    keys: &[
        Key::required("path", Text, "${HOTSET_DATA}/compute_profiles/layers.csv", "The file"),
        Key::optional(
            "sum",
            List(&Text),
            "[q_proj, k_proj]",
            "The layers of the file that the operator is made of, one after the other; left out, all of them",
        ),
    ],
};

static KERNELS: Rows = Rows {
    about: "Matrix products with weights in a format",
    key: RowKey::Name(format_names),
    value: Type::Rows(&BY_TOKENS),
    merges: true,
};

static BY_TOKENS: Rows = Rows {
    about: "Bytes of weights a second by the tokens that share them, in growing numbers: `{ 1: 2200 GB/s, 16: 1900 GB/s }`",
    key: RowKey::Count,
    value: AboveZero(&RATE),
    merges: false,
};

static CODECS: Rows = Rows {
    about: "What coding a format costs",
    key: RowKey::Name(format_names),
    value: Map(&CODEC),
    merges: true,
};

pub(crate) static CODEC: Table = Table {
    name: "codec",
    about: "Rates over the native bytes",
    open: false,
    keys: &[
        Key::required("encode", AboveZero(&RATE), "250 GB/s", "Native bytes consumed a second"),
        Key::required("decode", AboveZero(&RATE), "200 GB/s", "Native bytes produced a second"),
    ],
};

pub(crate) static HOST: Table = Table {
    name: "host",
    about: "What the host's own processor can do",
    open: false,
    keys: &[
        Key::optional(
            "codecs",
            Type::Rows(&CODECS),
            "{ int8: { encode: 4 GB/s, decode: 8 GB/s } }",
            "What coding a format costs the host",
        ),
        Key::optional(
            "compute",
            Map(&PROCESSOR),
            "{ flops: 2 TFLOP/s, read: 110 GB/s, launch: 20 us }",
            "How it computes blocks from the staged memories beside it, but for those with a processor of their own; left out, it does not",
        ),
    ],
};
