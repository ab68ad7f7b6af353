//! What the functions of a BPF object call and how much stack they use.

use std::collections::BTreeMap;

use super::elf::{Elf, SYMBOL_FUNCTION, SYMBOL_SECTION, Section};

const INSTRUCTION: usize = 8;
/// The frame pointer.
const R10: u8 = 10;

/// Byte loops that the compiler calls for what it does not inline.
const BYTE_LOOPS: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

/// The code of an object.
#[derive(Debug, Default)]
pub struct Code {
    functions: Vec<Function>,
}

#[derive(Debug, Default)]
struct Function {
    name: String,
    section: usize,
    /// Bytes from the start of its section.
    start: usize,
    /// Instructions.
    instructions: usize,
    /// Bytes below the frame pointer that it touches.
    frame: usize,
    /// What it calls, or hands to a helper as a callback: sections and offsets.
    calls: Vec<(usize, usize)>,
    /// It has an instruction that jumps to itself: what is left of an inlined panic.
    hangs: bool,
}

struct Instruction {
    code: u8,
    dst: u8,
    src: u8,
    offset: i16,
    immediate: i32,
}

impl Code {
    /// Reads the functions of an object.
    pub fn of(elf: &Elf) -> Self {
        let functions = elf
            .symbols
            .iter()
            .filter(|symbol| symbol.kind == SYMBOL_FUNCTION);
        let functions = functions.filter_map(|symbol| {
            let section = elf
                .sections
                .get(symbol.section)
                .filter(|section| section.is_code)?;
            let bytes = section
                .bytes
                .get(symbol.value..symbol.value.checked_add(symbol.size)?)?;
            let mut function = Function {
                name: symbol.name.clone(),
                section: symbol.section,
                start: symbol.value,
                instructions: bytes.len() / INSTRUCTION,
                ..Function::default()
            };
            function.read(elf, section, bytes);
            Some(function)
        });
        Self {
            functions: functions.collect(),
        }
    }

    /// What must not be in the object: panics, and calls of byte loops.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for function in &self.functions {
            let name = &function.name;
            if name.contains("panicking")
                || name.contains("rust_begin_unwind")
                || name.contains("panic_fmt")
            {
                faults.push(format!("{name}: the code can panic"));
            }
            if function.hangs {
                faults.push(format!(
                    "{name}: an instruction that jumps to itself, which is what a panic becomes"
                ));
            }
            if BYTE_LOOPS.contains(&name.as_str()) {
                continue;
            }
            let mut called: Vec<&str> = function
                .calls
                .iter()
                .filter_map(|call| self.at(*call))
                .map(|f| f.name.as_str())
                .collect();
            called.sort_unstable();
            called.dedup();
            let loops = called
                .into_iter()
                .filter(|called| BYTE_LOOPS.contains(called));
            faults.extend(loops.map(|called| format!("{name}: calls {called}, a loop over bytes")));
        }
        faults
    }

    /// Bytes of stack on the deepest chain of calls from a function, in the kernel's count.
    pub fn stack(&self, name: &str) -> Option<usize> {
        let function = self
            .functions
            .iter()
            .find(|function| function.name == name)?;
        Some(self.depth(function, &mut BTreeMap::new()))
    }

    /// Instructions of a function and all that it calls, each once.
    pub fn instructions(&self, name: &str) -> Option<usize> {
        let function = self
            .functions
            .iter()
            .find(|function| function.name == name)?;
        let mut seen = BTreeMap::new();
        self.depth(function, &mut seen);
        Some(
            self.functions
                .iter()
                .filter(|f| seen.contains_key(&(f.section, f.start)))
                .map(|f| f.instructions)
                .sum(),
        )
    }

    fn depth(&self, function: &Function, known: &mut BTreeMap<(usize, usize), usize>) -> usize {
        // The kernel counts frames in steps of 16 bytes, and at least one.
        let own = function.frame.max(1).next_multiple_of(16);
        let place = (function.section, function.start);
        if let Some(depth) = known.get(&place) {
            return *depth;
        }
        // The kernel refuses recursion; entered first, it ends here all the same.
        known.insert(place, own);
        let below = function
            .calls
            .iter()
            .filter_map(|call| self.at(*call))
            .map(|called| self.depth(called, known))
            .max();
        let depth = own + below.unwrap_or(0);
        known.insert(place, depth);
        depth
    }

    fn at(&self, (section, start): (usize, usize)) -> Option<&Function> {
        self.functions
            .iter()
            .find(|function| function.section == section && function.start == start)
    }
}

impl Function {
    fn read(&mut self, elf: &Elf, section: &Section, bytes: &[u8]) {
        // Where registers point below the frame pointer, followed in a straight line: the compiler makes such pointers where it uses them.
        let mut below: [Option<i64>; 11] = [None; 11];
        below[usize::from(R10)] = Some(0);
        let mut index = 0;
        while let Some(instruction) = Instruction::at(bytes, index) {
            let offset = self.start + index * INSTRUCTION;
            self.hangs |= instruction.is_jump() && instruction.jumps_by() == -1;
            self.calls
                .extend(instruction.target(elf, section, self.section, offset));
            self.touch(&instruction, &mut below);
            index += if instruction.code == 0x18 { 2 } else { 1 };
        }
    }

    /// Follows pointers into the frame and notes the deepest byte that is touched.
    fn touch(&mut self, instruction: &Instruction, below: &mut [Option<i64>; 11]) {
        let Instruction {
            code,
            dst,
            src,
            offset,
            immediate,
        } = *instruction;
        let (to, from) = (usize::from(dst.min(10)), usize::from(src.min(10)));
        let pointer = match code & 7 {
            1 => below[from],
            2 | 3 => below[to],
            _ => None,
        };
        if let Some(pointer) = pointer {
            self.reach(pointer + i64::from(offset));
        }
        match code {
            0xbf if offset == 0 => below[to] = below[from],
            0x07 => {
                below[to] = below[to].map(|pointer| pointer + i64::from(immediate));
                below[to]
                    .into_iter()
                    .for_each(|pointer| self.reach(pointer));
            }
            0x85 => below[..6].fill(None),
            _ if matches!(code & 7, 0 | 1 | 4 | 7) && dst < R10 => below[to] = None,
            _ => {}
        }
    }

    fn reach(&mut self, pointer: i64) {
        if let Ok(depth @ 1..=512) = usize::try_from(-pointer) {
            self.frame = self.frame.max(depth);
        }
    }
}

impl Instruction {
    fn at(bytes: &[u8], index: usize) -> Option<Self> {
        let bytes: &[u8; INSTRUCTION] = bytes
            .chunks_exact(INSTRUCTION)
            .nth(index)?
            .try_into()
            .ok()?;
        let [code, registers, o0, o1, i0, i1, i2, i3] = *bytes;
        Some(Self {
            code,
            dst: registers & 0xf,
            src: registers >> 4,
            offset: i16::from_le_bytes([o0, o1]),
            immediate: i32::from_le_bytes([i0, i1, i2, i3]),
        })
    }

    /// A jump without a condition; v4 has one with a wide offset.
    fn is_jump(&self) -> bool {
        matches!(self.code, 0x05 | 0x06)
    }

    fn jumps_by(&self) -> i64 {
        if self.code == 0x06 {
            self.immediate.into()
        } else {
            self.offset.into()
        }
    }

    /// The function that is called, or whose address is taken, as section and offset.
    fn target(
        &self,
        elf: &Elf,
        section: &Section,
        number: usize,
        offset: usize,
    ) -> Option<(usize, usize)> {
        let is_call = self.code == 0x85 && self.src == 1;
        let is_address = self.code == 0x18;
        if !is_call && !is_address {
            return None;
        }
        let Some(relocation) = section
            .relocations
            .iter()
            .find(|relocation| relocation.offset == offset)
        else {
            // A call within the section counts instructions from the next one.
            let next = i64::try_from(offset / INSTRUCTION).ok()? + 1;
            let start = usize::try_from(next + i64::from(self.immediate)).ok()? * INSTRUCTION;
            return is_call.then_some((number, start));
        };
        let symbol = elf.symbols.get(relocation.symbol)?;
        match symbol.kind {
            SYMBOL_FUNCTION => Some((symbol.section, symbol.value)),
            SYMBOL_SECTION => {
                let immediate = i64::from(self.immediate);
                let start = if is_call {
                    (immediate + 1) * 8
                } else {
                    immediate
                };
                Some((symbol.section, usize::try_from(start).ok()?))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
