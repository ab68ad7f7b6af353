//! Embeds the compiled kernel programs.
//!
//! The object is `$SLUICE_BPF_OBJECT`, or `target/bpf/sluice-ebpf` of the workspace. Without one,
//! an empty file is embedded, so that a build needs no BPF toolchain; the agent then says what is
//! missing.

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-env-changed=SLUICE_BPF_OBJECT");
    let named = env::var_os("SLUICE_BPF_OBJECT").map(PathBuf::from);
    let source = named
        .clone()
        .unwrap_or_else(|| manifest.join("../target/bpf/sluice-ebpf"));
    println!("cargo::rerun-if-changed={}", source.display());
    let object = match fs::read(&source) {
        Ok(object) => object,
        Err(error) if named.is_some() => {
            panic!("SLUICE_BPF_OBJECT: {}: {error}", source.display())
        }
        Err(_) => Vec::new(),
    };
    fs::write(out.join("sluice-ebpf"), object).expect("OUT_DIR is writable");
}
