//! Lists every shipped scenario, machine, model and sensitivity table, so that a new one is a new file and no code.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut table = String::from("&[\n");
    for folder in ["scenarios", "machines", "models", "sensitivity"] {
        // The scenarios lie beside Cargo.toml.
        let path = if folder == "scenarios" { root.clone() } else { root.join(folder) };
        println!("cargo:rerun-if-changed={}", path.display());
        let mut files: Vec<PathBuf> =
            fs::read_dir(&path)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.sort();
        for file in files.iter().filter(|file| is_data(file)) {
            let name = file.file_stem().unwrap_or_default();
            table.push_str(&format!(
                "    Entry {{ folder: {folder:?}, name: {name:?}, text: include_str!({file:?}) }},\n"
            ));
        }
    }
    table.push(']');
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("catalogue.rs"), table)
}

fn is_data(file: &Path) -> bool {
    matches!(file.extension().and_then(|extension| extension.to_str()), Some("yaml" | "json"))
}
