//! Embeds the compiled kernel programs.
//!
//! The object is `$SLUICE_BPF_OBJECT`, or `target/bpf/sluice-ebpf` of the workspace. Without one,
//! an empty file is embedded, so that a build needs no BPF toolchain; the agent then says what is
//! missing.

use std::{env, fs, path::PathBuf};

use object::{
    build::{
        self,
        elf::{Builder, SectionData},
    },
    elf::SHT_STRTAB,
};

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
        Ok(object) => without_dwarf(&object).unwrap_or_else(|error| {
            panic!(
                "{}: not an object of kernel programs: {error}",
                source.display()
            )
        }),
        Err(error) if named.is_some() => {
            panic!("SLUICE_BPF_OBJECT: {}: {error}", source.display())
        }
        Err(_) => Vec::new(),
    };
    fs::write(out.join("sluice-ebpf"), object).expect("OUT_DIR is writable");
}

/// The object without what only debuggers and linkers read: three quarters of its bytes, which the agent would
/// hold in memory. The kernel's own types and lines are in `.BTF` and `.BTF.ext`.
fn without_dwarf(object: &[u8]) -> build::Result<Vec<u8>> {
    let unread = [".debug_", ".rel.debug_", ".rel.BTF"];
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        section.delete = unread
            .iter()
            .any(|prefix| section.name.starts_with(prefix.as_bytes()));
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections among those of symbols; the builder wants them in a table of their own.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}
