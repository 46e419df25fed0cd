//! Tells the program what it was built from, for `--version` and `api_key_exporter_build_info`.

use std::process::Command;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo hands everything to build scripts this way"
)]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=API_KEY_EXPORTER_REVISION");
    // A new commit changes the log of HEAD; without git there is none, and cargo is told nothing.
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    // Package builds have no .git and hand the revision in.
    let revision = std::env::var("API_KEY_EXPORTER_REVISION")
        .ok()
        .or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = output(&rustc, &["--version"]).unwrap_or_else(|| "unknown".to_owned());
    let rustc = rustc.split_whitespace().nth(1).unwrap_or("unknown");
    println!("cargo:rustc-env=API_KEY_EXPORTER_REVISION={revision}");
    println!("cargo:rustc-env=API_KEY_EXPORTER_RUSTC={rustc}");
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
