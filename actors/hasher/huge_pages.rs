//! Huge pages for argon2's memory, and the only `unsafe` block there is.

use std::ops::Range;

/// What a huge page measures on x86-64, and on AArch64 with pages of 4 KiB; a multiple of every smaller page.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nobody is advised"))]
const HUGE_PAGE: usize = 2 << 20;

/// Asks the system to back `memory` with huge pages, where it fills whole ones. It does so when a page is touched for the
/// first time, so the advice comes before that. Of no effect where the system has no huge pages or none to spare.
#[cfg(target_os = "linux")]
pub(super) fn advise<T>(memory: &mut [T]) {
    let start = memory.as_mut_ptr().cast::<u8>();
    let whole = whole_pages(start.addr(), size_of_val(memory));
    if whole.is_empty() {
        return;
    }
    let first = start.wrapping_add(whole.start - start.addr());
    #[expect(unsafe_code, reason = "the advice has no safe form, because other advice empties pages")]
    // SAFETY: the pages lie inside `memory`, which is borrowed exclusively. This advice changes neither their contents nor
    // what may be done with them, only how large the pages are that the system takes for them.
    let advised = unsafe { rustix::mm::madvise(first.cast(), whole.len(), rustix::mm::Advice::LinuxHugepage) };
    if let Err(error) = advised {
        tracing::debug!(%error, "no huge pages for argon2");
    }
}

/// Does nothing: there is nobody to advise.
#[cfg(not(target_os = "linux"))]
pub(super) const fn advise<T>(_memory: &mut [T]) {}

/// The addresses of the huge pages that lie wholly in so many bytes from `start`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nobody is advised"))]
fn whole_pages(start: usize, bytes: usize) -> Range<usize> {
    let first = start.checked_next_multiple_of(HUGE_PAGE).unwrap_or(usize::MAX);
    let end = start.saturating_add(bytes);
    first..end - end % HUGE_PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_are_filled_are_advised() {
        const MIB: usize = 1 << 20;
        assert_eq!(whole_pages(4 * MIB, 6 * MIB), 4 * MIB..10 * MIB);
        assert_eq!(whole_pages(4 * MIB + 1, 6 * MIB), 6 * MIB..10 * MIB);
        assert_eq!(whole_pages(3 * MIB, 4 * MIB), 4 * MIB..6 * MIB);
        for (start, bytes) in [(4 * MIB, 0), (4 * MIB, 2 * MIB - 1), (4 * MIB + 1, 3 * MIB), (usize::MAX - 9, 9)] {
            assert!(whole_pages(start, bytes).is_empty(), "{start} {bytes}");
        }
    }

    /// The flags of the mapping that holds an address, as the kernel shows them.
    #[cfg(target_os = "linux")]
    fn flags_of(address: usize) -> String {
        let mut inside = false;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        for line in maps.lines() {
            let range = line.split(' ').next().unwrap().split_once('-');
            let bounds = range.map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)));
            if let Some((Ok(from), Ok(to))) = bounds {
                inside = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return format!("{flags} ");
            }
        }
        panic!("no mapping holds the address");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_notes_the_advice_and_the_contents_stay() {
        let mut memory = vec![7_u8; 6 << 20];
        advise(&mut memory);
        assert!(memory.iter().all(|byte| *byte == 7));
        let has_huge_pages = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!(flags_of(memory.as_ptr().addr() + (3 << 20)).contains(" hg "), has_huge_pages);
        advise(memory.get_mut(..100).unwrap());
        advise::<u8>(&mut []);
    }
}
