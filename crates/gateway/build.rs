//! Embeds the console: every file of `console/dist`, gzipped. A checkout without that build gets a
//! page that says how to make it, so that `cargo build` needs no Node.js.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};

fn main() -> io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dist = here.join("../../console/dist");
    let absent = here.join("src/http/console/absent.html");
    println!("cargo::rerun-if-changed={}", absent.display());
    // The folder is always there: it holds the file that keeps builds out of the repository.
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    if dist.join("index.html").exists() {
        collect(&dist, &dist, &mut files)?;
        files.sort();
    } else {
        files.push(("index.html".to_owned(), absent));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder for output"));
    let mut table = String::from("static ASSETS: &[Asset] = &[\n");
    for (number, (name, file)) in files.iter().enumerate() {
        let gzipped = out.join(format!("console-{number}.gz"));
        // No time and no name in it: the same files make the same binary.
        let mut encoder = GzBuilder::new().write(fs::File::create(&gzipped)?, Compression::best());
        encoder.write_all(&fs::read(file)?)?;
        encoder.finish()?;
        table.push_str(&format!(
            "    Asset {{ path: {name:?}, content_type: {:?}, gzipped: include_bytes!({:?}) }},\n",
            content_type(name),
            gzipped.display().to_string(),
        ));
    }
    table.push_str("];\n");
    fs::write(out.join("console.rs"), table)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.file_name().is_some_and(|name| name != ".gitignore") {
            let name = path
                .strip_prefix(root)
                .expect("it was found below the root");
            files.push((name.to_string_lossy().replace('\\', "/"), path));
        }
    }
    Ok(())
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json" | "map") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
