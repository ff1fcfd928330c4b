//! Lists every shipped scenario, machine, model and sensitivity table, so that a new one is a new file and no code.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut table = String::from("&[\n");
    // Scenarios lie beside Cargo.toml and, by subject, in folders of their own, which are part of their names.
    let folders = [
        ("scenarios", "", ""),
        ("scenarios", "states", "states/"),
        ("machines", "machines", ""),
        ("models", "models", ""),
        ("sensitivity", "sensitivity", ""),
    ];
    for (kind, folder, prefix) in folders {
        let path = root.join(folder);
        println!("cargo:rerun-if-changed={}", path.display());
        let mut files: Vec<PathBuf> =
            fs::read_dir(&path)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.sort();
        for file in files.iter().filter(|file| is_data(file)) {
            let name = format!("{prefix}{}", file.file_stem().unwrap_or_default().to_string_lossy());
            table.push_str(&format!(
                "    Entry {{ folder: {kind:?}, name: {name:?}, text: include_str!({file:?}) }},\n"
            ));
        }
    }
    table.push(']');
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("catalogue.rs"), table)
}

fn is_data(file: &Path) -> bool {
    matches!(file.extension().and_then(|extension| extension.to_str()), Some("yaml" | "json"))
}
