//! BPF programs of a few instructions, put into an object that aya loads like any other.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::SchedClassifier;
use object::write::{Object, Relocation, RelocationFlags, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

/// `bpf_redirect_peer`.
pub const REDIRECT_PEER: i32 = 155;
/// `TCX_NEXT`: the next program decides, or the stack.
pub const TCX_NEXT: i32 = -1;

/// Registers; R1 is the context at the start, R0 the result at the end, R10 the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reg {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
    R6 = 6,
}

/// Sizes of memory accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Two bytes.
    H,
    /// Four bytes.
    W,
}

impl Size {
    fn bits(self) -> u8 {
        match self {
            Size::W => 0x00,
            Size::H => 0x08,
        }
    }
}

/// A program under construction. Each method adds one instruction; jumps count instructions from
/// the one after them.
#[derive(Clone, Debug, Default)]
pub struct Code {
    bytes: Vec<u8>,
    /// Where the map of the object is named.
    maps: Vec<u64>,
}

impl Code {
    /// `dst = value`.
    pub fn set(self, dst: Reg, value: i32) -> Code {
        self.add(0xb7, dst, Reg::R0, 0, value)
    }

    /// `dst = src`.
    pub fn copy(self, dst: Reg, src: Reg) -> Code {
        self.add(0xbf, dst, src, 0, 0)
    }

    /// `dst += value`.
    pub fn plus(self, dst: Reg, value: i32) -> Code {
        self.add(0x07, dst, Reg::R0, 0, value)
    }

    /// `dst = *(src + offset)`.
    pub fn load(self, size: Size, dst: Reg, src: Reg, offset: i16) -> Code {
        self.add(0x61 | size.bits(), dst, src, offset, 0)
    }

    /// `*(dst + offset) = value`.
    pub fn store(self, size: Size, dst: Reg, offset: i16, value: i32) -> Code {
        self.add(0x62 | size.bits(), dst, Reg::R0, offset, value)
    }

    /// Skips instructions unless `dst` equals the value.
    pub fn skip_unless(self, dst: Reg, value: i32, skipped: i16) -> Code {
        self.add(0x55, dst, Reg::R0, skipped, value)
    }

    /// Skips instructions if `dst` is above `src`.
    pub fn skip_if_above(self, dst: Reg, src: Reg, skipped: i16) -> Code {
        self.add(0x2d, dst, src, skipped, 0)
    }

    /// Calls a helper.
    pub fn call(self, helper: i32) -> Code {
        self.add(0x85, Reg::R0, Reg::R0, 0, helper)
    }

    /// `dst =` the object's map; counts as two instructions.
    pub fn map(mut self, dst: Reg) -> Code {
        self.maps.push(self.bytes.len() as u64);
        self.add(0x18, dst, Reg::R0, 0, 0)
            .add(0, Reg::R0, Reg::R0, 0, 0)
    }

    /// Returns R0.
    pub fn exit(self) -> Code {
        self.add(0x95, Reg::R0, Reg::R0, 0, 0)
    }

    fn add(mut self, opcode: u8, dst: Reg, src: Reg, offset: i16, value: i32) -> Code {
        self.bytes.push(opcode);
        self.bytes.push((src as u8) << 4 | dst as u8);
        self.bytes.extend(offset.to_le_bytes());
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// Loads the code as the classifier [`NAME`] of a new object, with an array of programs
    /// called [`PROGRAMS`] if it names a map.
    ///
    /// # Errors
    /// The kernel refuses it; the error has the verifier's log.
    pub fn load_classifier(&self) -> Result<Ebpf> {
        let object = self.object().context("cannot write a BPF object")?;
        let mut ebpf = Ebpf::load(&object)?;
        classifier(&mut ebpf)?.load()?;
        Ok(ebpf)
    }

    fn object(&self) -> Result<Vec<u8>> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
        object.append_section_data(license, b"GPL\0", 1);
        let text = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
        object.append_section_data(text, &self.bytes, 8);
        object.add_symbol(symbol(NAME, text, self.bytes.len(), SymbolKind::Text));
        if !self.maps.is_empty() {
            let maps = object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data);
            object.append_section_data(maps, &program_array(), 4);
            let map = object.add_symbol(symbol(PROGRAMS, maps, 20, SymbolKind::Data));
            for offset in &self.maps {
                let relocation = Relocation {
                    offset: *offset,
                    symbol: map,
                    addend: 0,
                    // R_BPF_64_64.
                    flags: RelocationFlags::Elf { r_type: 1 },
                };
                object.add_relocation(text, relocation)?;
            }
        }
        Ok(object.write()?)
    }
}

/// The name of the program in its object.
const NAME: &str = "bench";
/// The name of the array of programs.
pub const PROGRAMS: &str = "PROGRAMS";

/// The classifier of a loaded object.
///
/// # Errors
/// It has none.
pub fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = ebpf
        .program_mut(NAME)
        .context("the object has no program")?;
    Ok(program.try_into()?)
}

/// [`classifier`], to look at.
///
/// # Errors
/// It has none.
pub fn classifier_of(ebpf: &Ebpf) -> Result<&SchedClassifier> {
    let program = ebpf.program(NAME).context("the object has no program")?;
    Ok(program.try_into()?)
}

/// The definition of a `BPF_MAP_TYPE_PROG_ARRAY` with one place: type, key size, value size,
/// entries, flags.
fn program_array() -> Vec<u8> {
    [3u32, 4, 4, 1, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn symbol(name: &str, section: object::write::SectionId, size: usize, kind: SymbolKind) -> Symbol {
    Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: size as u64,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let code = Code::default()
            .load(Size::W, Reg::R2, Reg::R1, 16)
            .skip_unless(Reg::R2, 8, 3)
            .set(Reg::R0, TCX_NEXT)
            .exit();
        let expected = [
            [0x61, 0x12, 16, 0, 0, 0, 0, 0],
            [0x55, 0x02, 3, 0, 8, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(code.bytes, expected.concat());
    }
}
