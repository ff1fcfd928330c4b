//! The key `accelerator.peers`: how accelerators that work together reach each other, by links of their own or by those that
//! blocks move on.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{AboveZero, List, Quantity, Text};
use crate::keys::{Key, Table};
use crate::reader::Field;
use crate::units::{RATE, TIME, rate, time};
use policy::machine::{Class, Link, Peers, Tier};
use policy::{Bandwidth, LinkId, LinkSet};

pub(crate) static PEERS: Table = Table {
    name: "peers",
    about: "The links among accelerators that compute together",
    open: false,
    keys: &[
        Key::required("latency", Quantity(&TIME), "5 us", "Time of the smallest message"),
        Key::required(
            "rate",
            AboveZero(&RATE),
            "360 GB/s",
            "Rate of large messages, each direction, both at once",
        ),
        Key::optional(
            "over",
            List(&Text),
            "[pcie]",
            "The links of the fast tier that messages take, beside the blocks that move on them; left out, links of their own",
        ),
    ],
};

/// Reads `peers`; what it says of links is checked where tiers and links are known.
pub(crate) fn peers(
    report: &mut Report,
    field: &Field<'_>,
    ground: Option<(&[Tier], &[Link])>,
) -> Option<Peers> {
    let keys = field.keys(report, &PEERS)?;
    let latency = keys.required(report, "latency", time);
    let rate = keys.required(report, "rate", rate);
    let over = match keys.get("over") {
        Some(field) => over(report, &field, rate, ground),
        None => Some(LinkSet::NONE),
    };
    Some(Peers { latency: latency?, rate: rate?, over: over?, ranks: 1, groups: 1 })
}

/// Both directions of the links that messages take.
fn over(
    report: &mut Report,
    field: &Field<'_>,
    rate: Option<Bandwidth>,
    ground: Option<(&[Tier], &[Link])>,
) -> Option<LinkSet> {
    let mut directions = Vec::new();
    for item in field.items() {
        let name = item.text(report)?;
        let Some((tiers, links)) = ground else { continue };
        let named: Vec<(LinkId, &Link)> =
            (0..).map(LinkId).zip(links).filter(|(_, link)| link.name == name).collect();
        let fast =
            |link: &Link| [link.from, link.to].iter().any(|end| tiers[end.index()].class == Class::Fast);
        // What the link carries in the direction that carries less, while the other one is busy too.
        let carried = named.iter().map(|(_, link)| link.duplex.min(link.rate.peak())).min();
        let wrong = match (carried, rate) {
            (None, _) => Wrong::new(format!("no link is called `{name}`"), "one of the machine's `links`"),
            _ if !named.iter().all(|(_, link)| fast(link)) => Wrong::new(
                format!("`{name}` does not lead to the fast tier"),
                "a link of the accelerator's own",
            ),
            (Some(carried), Some(rate)) if rate > carried => Wrong::new(
                format!("`{name}` carries {carried} beside the other direction, and messages go at {rate}"),
                "a `rate` of at most that: messages go both ways at once",
            ),
            _ => {
                directions.extend(named.iter().map(|(id, _)| *id));
                continue;
            }
        };
        item.error(report, wrong);
        return None;
    }
    Some(directions.into_iter().collect())
}
