use super::{
    super::elf::{Relocation, Symbol},
    *,
};

const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
const HANG: [u8; 8] = [0x05, 0, 0xff, 0xff, 0, 0, 0, 0];

/// `call` with this immediate.
fn call(immediate: i32) -> [u8; 8] {
    let [a, b, c, d] = immediate.to_le_bytes();
    [0x85, 0x10, 0, 0, a, b, c, d]
}

/// `*(u64 *)(r10 + offset) = r1`.
fn store(offset: i16) -> [u8; 8] {
    let [a, b] = offset.to_le_bytes();
    [0x7b, 0x1a, a, b, 0, 0, 0, 0]
}

/// Name, instructions, relocations.
type Sketch<'a> = (&'a str, &'a [[u8; 8]], &'a [Relocation]);

/// Functions of a section each, with symbol numbers from 0 on: a relocation can name them.
fn object(functions: &[Sketch<'_>]) -> Code {
    let mut elf = Elf::default();
    for (number, (name, instructions, relocations)) in functions.iter().enumerate() {
        let bytes = instructions.concat();
        elf.symbols.push(Symbol {
            name: (*name).into(),
            kind: SYMBOL_FUNCTION,
            section: number,
            value: 0,
            size: bytes.len(),
        });
        elf.sections.push(Section {
            is_code: true,
            bytes,
            relocations: relocations.to_vec(),
        });
    }
    Code::of(&elf)
}

#[test]
fn a_relocated_call_of_a_byte_loop_is_a_fault() {
    let to_second = [Relocation {
        offset: 0,
        symbol: 1,
    }];
    let code = object(&[
        ("f", &[call(-1), EXIT], &to_second),
        ("memcpy", &[EXIT], &[]),
    ]);
    assert_eq!(code.faults(), ["f: calls memcpy, a loop over bytes"]);
    let code = object(&[("f", &[EXIT], &[]), ("memcpy", &[EXIT], &[])]);
    assert!(code.faults().is_empty(), "its mere presence is none");
}

#[test]
fn a_call_within_a_section_is_found_without_relocation() {
    let bytes = [EXIT, call(-2), EXIT].concat();
    let symbol = |name: &str, value, size| Symbol {
        name: name.into(),
        kind: SYMBOL_FUNCTION,
        section: 0,
        value,
        size,
    };
    let elf = Elf {
        symbols: vec![symbol("memset", 0, 8), symbol("f", 8, 16)],
        sections: vec![Section {
            is_code: true,
            bytes,
            relocations: vec![],
        }],
    };
    assert_eq!(
        Code::of(&elf).faults(),
        ["f: calls memset, a loop over bytes"]
    );
}

#[test]
fn a_call_by_way_of_a_section_is_found() {
    let symbol = |name: &str, kind, section, value| Symbol {
        name: name.into(),
        kind,
        section,
        value,
        size: 8,
    };
    let elf = Elf {
        symbols: vec![
            symbol("f", SYMBOL_FUNCTION, 0, 0),
            symbol("", SYMBOL_SECTION, 1, 0),
            symbol("memmove", SYMBOL_FUNCTION, 1, 16),
        ],
        sections: vec![
            Section {
                is_code: true,
                bytes: call(1).to_vec(),
                relocations: vec![Relocation {
                    offset: 0,
                    symbol: 1,
                }],
            },
            Section {
                is_code: true,
                bytes: [EXIT, EXIT, EXIT].concat(),
                relocations: vec![],
            },
        ],
    };
    assert_eq!(
        Code::of(&elf).faults(),
        ["f: calls memmove, a loop over bytes"]
    );
}

#[test]
fn panics_are_faults_by_name_and_by_shape() {
    assert_eq!(
        object(&[("_ZN4core9panicking5panic17h0E", &[EXIT], &[])])
            .faults()
            .len(),
        1
    );
    assert_eq!(object(&[("f", &[HANG], &[])]).faults().len(), 1);
}

#[test]
fn stack_is_the_deepest_chain_in_steps_of_16() {
    let calls = [
        Relocation {
            offset: 8,
            symbol: 1,
        },
        Relocation {
            offset: 16,
            symbol: 2,
        },
    ];
    let code = object(&[
        ("f", &[store(-20), call(-1), call(-1), EXIT], &calls),
        ("g", &[store(-100), EXIT], &[]),
        ("h", &[EXIT], &[]),
    ]);
    assert_eq!(code.stack("f"), Some(32 + 112));
    assert_eq!(code.stack("h"), Some(16), "no frame is one step");
    assert_eq!(code.stack("none"), None);
    assert_eq!(code.instructions("f"), Some(4 + 2 + 1));
}

#[test]
fn pointers_into_the_frame_count() {
    // r1 = r10; r1 += -64
    let pointer = [
        [0xbf, 0xa1, 0, 0, 0, 0, 0, 0],
        [0x07, 0x01, 0, 0, 0xc0, 0xff, 0xff, 0xff],
        EXIT,
    ];
    assert_eq!(object(&[("f", &pointer, &[])]).stack("f"), Some(64));
}
