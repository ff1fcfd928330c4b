//! `hotset policies`: every policy there is.

use crate::failure::Failure;
use crate::output::{self, Format};
use policy::policies::script::{BLOCK_SIGNALS, FUNCTIONS, WAY_SIGNALS};
use policy::registry::{Entry, Param, registry};
use serde::Serialize;

/// List the policies, what they serve and their parameters
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print what a script defines and what it may look at
    #[arg(long)]
    script: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One policy, as it is printed.
#[derive(Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    serves: Vec<&'static str>,
    clairvoyant: bool,
    fitted: bool,
    params: Vec<ListedParam>,
}

/// One parameter, as it is printed.
#[derive(Serialize)]
struct ListedParam {
    name: &'static str,
    about: &'static str,
    default: f64,
    min: f64,
    max: f64,
    scale: &'static str,
}

impl From<&Entry> for Listed {
    fn from(entry: &Entry) -> Listed {
        let served = [("replay", entry.replay.is_some()), ("simulate", entry.simulate.is_some())];
        Listed {
            name: entry.name,
            about: entry.about,
            serves: served.into_iter().filter(|&(_, serves)| serves).map(|(command, _)| command).collect(),
            clairvoyant: entry.clairvoyant,
            fitted: entry.fitted,
            params: entry.params.iter().map(ListedParam::from).collect(),
        }
    }
}

impl From<&Param> for ListedParam {
    fn from(&Param { name, about, default, min, max, scale }: &Param) -> ListedParam {
        ListedParam { name, about, default, min, max, scale: scale.name() }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.script {
        return script(args.format);
    }
    let listed: Vec<Listed> = registry().iter().map(Listed::from).collect();
    match args.format {
        Format::Json => output::print_json(&listed),
        Format::Table => output::print(&tables(&listed)),
    }
}

/// A word of the script language.
#[derive(Serialize)]
struct Word {
    kind: &'static str,
    name: &'static str,
    about: &'static str,
}

fn script(format: Format) -> Result<(), Failure> {
    let kinds: [(&str, &[(&str, &str)]); 3] =
        [("function", &FUNCTIONS), ("block", &BLOCK_SIGNALS), ("way", &WAY_SIGNALS)];
    let words = kinds
        .iter()
        .flat_map(|&(kind, words)| words.iter().map(move |&(name, about)| Word { kind, name, about }));
    if let Format::Json = format {
        return output::print_json(&words.collect::<Vec<_>>());
    }
    let row = |word: Word| [word.kind, word.name, word.about].map(String::from);
    output::print(&output::words(["of", "word", "what it says"].map(String::from), words.map(row)))
}

fn tables(listed: &[Listed]) -> String {
    let row = |policy: &Listed| {
        let knows = match (policy.clairvoyant, policy.fitted) {
            (true, _) => "the future",
            (false, true) => "a fitted trace",
            (false, false) => "the past",
        };
        [policy.name.into(), policy.serves.join(", "), knows.into(), policy.about.into()]
    };
    let policies = output::words(
        ["policy", "serves", "knows", "what it does"].map(String::from),
        listed.iter().map(row),
    );
    let param = |policy: &Listed, param: &ListedParam| {
        let ListedParam { name, about, default, min, max, scale } = *param;
        let range = format!("{min} to {max}");
        [format!("{}.{name}", policy.name), default.to_string(), range, scale.into(), about.into()]
    };
    let params = listed.iter().flat_map(|policy| policy.params.iter().map(move |each| param(policy, each)));
    let params =
        output::words(["parameter", "default", "range", "scale", "what it does"].map(String::from), params);
    format!("{policies}\n{params}")
}
