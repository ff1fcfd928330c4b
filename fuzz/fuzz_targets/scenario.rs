//! Any text is a scenario or an error that can be printed; so is any text as an override.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A line that starts with `--set ` overrides what the rest of the text says.
    let (set, yaml): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("--set "));
    let overrides: Vec<(String, String)> = set
        .iter()
        .filter_map(|line| line["--set ".len()..].split_once('='))
        .map(|(path, value)| (path.to_owned(), value.to_owned()))
        .collect();
    if let Err(wrong) = scenarios::load_text("fuzz.yaml", &yaml.join("\n"), &overrides, &|_| Ok(())) {
        assert!(!wrong.all().is_empty());
        assert!(!wrong.to_string().is_empty());
    }
});
