//! Just enough of 64-bit little-endian ELF to look into a BPF object.

use anyhow::{Context, Result, bail};

/// Code of this type follows its section's bytes.
pub const SYMBOL_FUNCTION: u8 = 2;
/// The symbol stands for the start of its section.
pub const SYMBOL_SECTION: u8 = 3;

const SECTION_SYMBOLS: u32 = 2;
const SECTION_RELOCATIONS: u32 = 9;
const FLAG_CODE: u64 = 4;

/// An object file.
#[derive(Debug, Default)]
pub struct Elf {
    /// Its sections, by number.
    pub sections: Vec<Section>,
    /// Its symbols, by number.
    pub symbols: Vec<Symbol>,
}

/// A section.
#[derive(Debug, Default, Clone)]
pub struct Section {
    /// Whether it holds instructions.
    pub is_code: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Places in it that stand for a symbol.
    pub relocations: Vec<Relocation>,
}

/// A name for a place.
#[derive(Debug, Default, Clone)]
pub struct Symbol {
    /// The name; sections have none.
    pub name: String,
    /// [`SYMBOL_FUNCTION`], [`SYMBOL_SECTION`] or another type.
    pub kind: u8,
    /// The number of its section.
    pub section: usize,
    /// Bytes from the start of the section.
    pub value: usize,
    /// Bytes.
    pub size: usize,
}

/// A place that stands for a symbol.
#[derive(Debug, Default, Clone, Copy)]
pub struct Relocation {
    /// Bytes from the start of the section.
    pub offset: usize,
    /// The number of the symbol.
    pub symbol: usize,
}

struct Header {
    kind: u32,
    flags: u64,
    offset: usize,
    size: usize,
    link: usize,
    info: usize,
}

impl Elf {
    /// Reads an object file.
    ///
    /// # Errors
    /// It is not such a file, or is cut short.
    pub fn parse(file: &[u8]) -> Result<Self> {
        if !file.starts_with(b"\x7fELF\x02\x01") {
            bail!("not a 64-bit little-endian ELF file");
        }
        let headers = headers(file)?;
        let mut elf = Self::default();
        for header in &headers {
            let is_code = header.flags & FLAG_CODE != 0;
            let bytes = if is_code {
                slice(file, header.offset, header.size)?.to_vec()
            } else {
                vec![]
            };
            elf.sections.push(Section {
                is_code,
                bytes,
                relocations: vec![],
            });
        }
        for header in &headers {
            match header.kind {
                SECTION_SYMBOLS => elf.symbols = symbols(file, header, &headers)?,
                SECTION_RELOCATIONS => {
                    let relocations = relocations(file, header)?;
                    let section = elf.sections.get_mut(header.info);
                    section
                        .context("relocations of a section that is not there")?
                        .relocations = relocations;
                }
                _ => {}
            }
        }
        Ok(elf)
    }
}

fn headers(file: &[u8]) -> Result<Vec<Header>> {
    let table = number(file, 0x28, 8)?;
    let (size, count) = (number(file, 0x3a, 2)?, number(file, 0x3c, 2)?);
    let size_of_all = size
        .checked_mul(count)
        .context("a section table out of bounds")?;
    let header = |entry: &[u8]| {
        Ok(Header {
            kind: u32::try_from(number(entry, 4, 4)?)?,
            flags: u64::try_from(number(entry, 8, 8)?)?,
            offset: number(entry, 24, 8)?,
            size: number(entry, 32, 8)?,
            link: number(entry, 40, 4)?,
            info: number(entry, 44, 4)?,
        })
    };
    slice(file, table, size_of_all)?
        .chunks_exact(size.max(1))
        .map(header)
        .collect()
}

fn symbols(file: &[u8], header: &Header, headers: &[Header]) -> Result<Vec<Symbol>> {
    const SIZE: usize = 24;
    let names = headers.get(header.link).context("symbols without names")?;
    let names = slice(file, names.offset, names.size)?;
    let symbol = |entry: &[u8]| {
        Ok(Symbol {
            name: text(names, number(entry, 0, 4)?),
            kind: entry[4] & 0xf,
            section: number(entry, 6, 2)?,
            value: number(entry, 8, 8)?,
            size: number(entry, 16, 8)?,
        })
    };
    slice(file, header.offset, header.size)?
        .chunks_exact(SIZE)
        .map(symbol)
        .collect()
}

fn relocations(file: &[u8], header: &Header) -> Result<Vec<Relocation>> {
    const SIZE: usize = 16;
    let relocation = |entry: &[u8]| {
        Ok(Relocation {
            offset: number(entry, 0, 8)?,
            symbol: number(entry, 12, 4)?,
        })
    };
    slice(file, header.offset, header.size)?
        .chunks_exact(SIZE)
        .map(relocation)
        .collect()
}

fn slice(bytes: &[u8], offset: usize, size: usize) -> Result<&[u8]> {
    let end = offset.checked_add(size);
    end.and_then(|end| bytes.get(offset..end))
        .context("the file is cut short")
}

fn number(bytes: &[u8], offset: usize, size: usize) -> Result<usize> {
    let bytes = slice(bytes, offset, size)?;
    let value = bytes
        .iter()
        .rev()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).context("a number is too large")
}

fn text(names: &[u8], at: usize) -> String {
    let rest = names.get(at..).unwrap_or_default();
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        assert!(Elf::parse(b"").is_err());
        assert!(Elf::parse(b"\x7fELF\x01\x01").is_err());
        let error = Elf::parse(b"\x7fELF\x02\x01\x01").unwrap_err();
        assert_eq!(error.to_string(), "the file is cut short");
    }

    #[test]
    fn numbers_that_reach_past_the_end_are_refused() {
        let mut file = vec![0; 0x40];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x28..0x30].fill(0xff);
        file[0x3a] = 64;
        file[0x3c] = 2;
        assert!(Elf::parse(&file).is_err());
    }
}
