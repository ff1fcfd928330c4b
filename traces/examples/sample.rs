//! Writes `sample.hrt`, the generated trace that ships with this crate: `cargo run --example sample -- traces/sample.hrt`.

use traces::generate::SAMPLE;
use traces::hrt::GateWidth;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: sample FILE.hrt")?;
    traces::write_hrt(path, &traces::generate(&SAMPLE)?, GateWidth::F16)?;
    Ok(())
}
