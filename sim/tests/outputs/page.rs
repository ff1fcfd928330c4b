//! The page of a run as markup: well formed, in need of nobody, and with something in every chart.

use crate::{case, files};
use roxmltree::{Document, Node, ParsingOptions};
use std::collections::BTreeSet;
use std::fs;

/// Shipped scenarios that between them have every chart, cut short.
pub(crate) const SCENARIOS: [(&str, &[(&str, &str)]); 3] = [
    ("quickstart", &[]),
    ("mixtral-8x7b-4090", &[]),
    ("azure-code-generated", &[("kv", "{ paged: { page: 16, most: 2 GiB } }")]),
];

/// The page of a run of a shipped scenario.
pub(crate) fn page_of(scenario: &str, overrides: &[(&str, &str)], title: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    files::write(&case(scenario, overrides), folder.path(), title, 98.765);
    fs::read_to_string(folder.path().join("report.html")).unwrap()
}

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"))
}

fn named<'a, 'b>(node: Node<'a, 'b>, name: &'static str) -> impl Iterator<Item = Node<'a, 'b>> {
    node.descendants().filter(move |node| node.has_tag_name(name))
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants().filter_map(|node| node.text()).collect::<Vec<_>>().concat()
}

/// The charts of a page, by name.
fn charts<'a, 'b>(page: &'a Document<'b>) -> Vec<(String, Node<'a, 'b>)> {
    let charts = named(page.root_element(), "figure");
    charts.map(|chart| (chart.attribute("aria-label").unwrap().to_owned(), chart)).collect()
}

#[test]
fn every_chart_has_points_numbers_and_a_place_in_the_order_of_keys() {
    let mut seen = BTreeSet::new();
    for (scenario, overrides) in SCENARIOS {
        let page = page_of(scenario, overrides, "a run");
        let document = parsed(&page);
        for (name, chart) in charts(&document) {
            assert_eq!(chart.attribute("tabindex"), Some("0"), "{name}");
            let pictures: Vec<_> = named(chart, "svg").collect();
            assert_eq!(pictures.len(), 2, "{name}: one for a desk, one for a phone");
            for picture in pictures {
                assert_eq!(picture.attribute("role"), Some("img"));
                assert_eq!(picture.attribute("aria-label"), Some(&*name));
                let drawn = |node: &Node<'_, '_>| {
                    let coloured = ["fill", "stroke"].map(|colour| node.attribute(colour).unwrap_or("none"));
                    let data = |colour: &&str| {
                        colour.starts_with("var(")
                            && !["var(--line)", "var(--soft)", "var(--rule)"].contains(colour)
                    };
                    coloured.iter().any(data)
                };
                assert!(picture.descendants().filter(drawn).count() > 0, "{name} of {scenario} is empty");
            }
            let rows = named(chart, "tbody").flat_map(|body| body.children().filter(Node::is_element));
            let filled = rows.filter(|row| {
                row.children().filter(Node::is_element).skip(1).any(|cell| !text(cell).is_empty())
            });
            assert!(filled.count() > 0, "{name} of {scenario} has no numbers");
            seen.insert(name);
        }
    }
    let expected = [
        "Accelerator",
        "Arrival to last token (E2E)",
        "Drift",
        "Hit rate",
        "Key-value cache",
        "Links",
        "Requests",
        "Throughput",
        "Time between tokens",
        "Time between tokens (ITL)",
        "Time per output token (TPOT)",
        "Time to first token",
        "Time to first token (TTFT)",
        "Vetoes",
        "Where blocks were",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn a_page_needs_nobody_and_says_no_more_than_the_seed_determines() {
    let page = page_of("quickstart", &[], "<script>alert('x')</script> & co");
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(page.contains("&lt;script&gt;alert(&#x27;x&#x27;)&lt;&#x2f;script&gt; &amp; co"));
    for outside in ["<script", "http:", "https:", "url(", "@import", " src=", "xlink", "98.7"] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
    for shown in ["gpt-oss-20b", "rtx-4090", "predictive", "S4 staged", "demand fetch", "pcie", "promote"] {
        assert!(page.contains(shown), "the page lacks {shown}");
    }
    let document = parsed(&page);
    let elements = document.descendants().filter(Node::is_element);
    let mut ids = BTreeSet::new();
    for element in elements {
        for attribute in
            element.attributes().filter(|attribute| ["href", "src", "action"].contains(&attribute.name()))
        {
            assert_eq!(attribute.value(), "data:,", "{element:?}");
        }
        if let Some(id) = element.attribute("id") {
            assert!(ids.insert(id), "{id} twice");
        }
        assert!(element.attribute("tabindex").is_none_or(|index| index == "0"), "{element:?}");
    }
}
