//! Finds the recipes under `images/` for `src/image/recipe.rs`, so that a new one is a new file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images");
    println!("cargo::rerun-if-changed={}", images.display());
    let entries = fs::read_dir(&images).expect("the project has a directory of recipes");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a directory that opens can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    let mut list = "&[\n".to_owned();
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let _ = writeln!(
            list,
            "({name:?}, include_str!({:?})),",
            file.display().to_string()
        );
    }
    list.push_str("]\n");
    let out = env::var_os("OUT_DIR").expect("cargo names it");
    fs::write(Path::new(&out).join("recipes.rs"), list).expect("what cargo names can be written");
}
