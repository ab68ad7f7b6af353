//! What the process has in memory and does not need.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::Range;

/// Gives back pages of programs' files that only the start, or a large list, needed: code, and constants. What is
/// used again is mapped again, from the page cache. Memory that was freed is the
/// allocator's to give back.
pub fn give_back_memory() {
    let Ok(maps) = fs::File::open("/proc/self/maps") else {
        return;
    };
    let lines = BufReader::new(maps).lines().map_while(Result::ok);
    for Range { start, end } in lines.filter_map(|line| unwritten(&line)) {
        // SAFETY: no page of the range differs from its file, and each comes back from there when it is
        // touched.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
}

/// The range of a mapping in a line of `/proc/self/maps`, if it is of a file and is never written: code,
/// or the constants that a program's file begins with. What is relocated and then made read-only stands
/// further behind.
fn unwritten(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (access, offset) = (words.next()?, words.next()?);
    let is_first = || usize::from_str_radix(offset, 16) == Ok(0);
    let is_unwritten = access == "r-xp" || access == "r--p" && is_first();
    let is_file = words.nth(2)?.starts_with('/');
    let number = |text| usize::from_str_radix(text, 16).ok();
    (is_unwritten && is_file).then_some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_first_constants_are_never_written() {
        for (line, range) in [
            (
                "55d0c0a00000-55d0c1a2d000 r-xp 0088b000 fe:00 1234                  /bin/sluice",
                0x55d0_c0a0_0000..0x55d0_c1a2_d000,
            ),
            (
                "55d0c0000000-55d0c0a00000 r--p 00000000 fe:00 1234                  /bin/sluice",
                0x55d0_c000_0000..0x55d0_c0a0_0000,
            ),
        ] {
            assert_eq!(unwritten(line), Some(range), "{line}");
        }
        for other in [
            "55d0c1a2d000-55d0c1b05000 r--p 0188a000 fe:00 1234                  /bin/sluice",
            "55d0c1b05000-55d0c1b09000 rw-p 0188b000 fe:00 1234                  /bin/sluice",
            "7ffd1b5f2000-7ffd1b5f4000 r-xp 00000000 00:00 0                     [vdso]",
            "7f2f00000000-7f2f00021000 r--p 00000000 00:00 0",
            "",
        ] {
            assert_eq!(unwritten(other), None, "{other}");
        }
    }

    #[test]
    fn the_process_goes_on() {
        give_back_memory();
        let kept: Vec<u8> = (0..=255).collect();
        give_back_memory();
        assert_eq!(
            kept.iter().map(|&byte| u32::from(byte)).sum::<u32>(),
            32_640
        );
    }
}
