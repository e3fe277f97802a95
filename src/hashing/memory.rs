//! The memory of one hashing thread: mapped when first needed, used again and again, given back when idle.

#![expect(
    unsafe_code,
    reason = "an anonymous mapping is viewed as Argon2 blocks, so that it can be kept and returned to the OS"
)]

use argon2::Block;
use memmap2::MmapMut;

/// Argon2 blocks in an anonymous mapping. A `Vec` would do the same work, but the allocator keeps large freed areas once
/// it has seen one, and the 20 MB of an idle server would then be 20 MB more for each thread.
#[derive(Default)]
pub struct HashMemory {
    mapping: Option<MmapMut>,
    /// Argon2 work done in it so far, in KiB written: what the time of a check follows.
    spent: u64,
}

impl HashMemory {
    /// At least `count` blocks with anything in them, or `None` when the OS has no memory left.
    pub fn blocks(&mut self, count: usize) -> Option<&mut [Block]> {
        let bytes = count.checked_mul(Block::SIZE)?;
        if self.mapping.as_ref().is_none_or(|mapping| mapping.len() < bytes) {
            self.mapping = None;
            let mapping = MmapMut::map_anon(bytes.max(Block::SIZE)).ok()?;
            // Argon2 jumps about in it, and with pages of 2 MiB the CPU need not look up where each jump leads. Where the
            // OS has none to give, it is only slower.
            #[cfg(target_os = "linux")]
            let _ = mapping.advise(memmap2::Advice::HugePage);
            self.mapping = Some(mapping);
        }
        let mapping = self.mapping.as_mut()?;
        // SAFETY: a `Block` is `[u64; 128]` with an alignment of 64, so any initialized bytes at an aligned place are
        // one; the mapping starts at a page, is initialized (zeros from the OS, later blocks), and is borrowed as long
        // as the result lives.
        let (before, blocks, _) = unsafe { mapping.align_to_mut::<Block>() };
        debug_assert!(before.is_empty(), "mappings start at a page");
        blocks.get_mut(..count)
    }

    /// Notes work that was done.
    pub(super) fn spend(&mut self, work: u64) {
        self.spent = self.spent.wrapping_add(work);
    }

    /// Argon2 work done so far, in KiB written.
    #[must_use]
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Gives everything back when it is more than `count` blocks: one expensive old hash must not stay as memory.
    pub fn shrink_to(&mut self, count: usize) {
        if self.mapping.as_ref().is_some_and(|mapping| mapping.len() > count * Block::SIZE) {
            self.mapping = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_grows_and_shrinks() {
        let mut memory = HashMemory::default();
        memory.blocks(8).unwrap()[7].as_mut()[127] = 42;
        assert_eq!(memory.blocks(8).unwrap()[7].as_ref()[127], 42, "the same memory is used again");
        assert_eq!(memory.blocks(64).unwrap().len(), 64);
        memory.shrink_to(8);
        assert!(memory.mapping.is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn huge_pages_are_asked_for() {
        if !std::fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap() {
            return;
        }
        let mut memory = HashMemory::default();
        let at = memory.blocks(4096).unwrap().as_ptr().addr();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // The kernel may have made one area of it and of what other tests mapped beside it.
        let has_it = |line: &str| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.map(|(start, end)| [start, end].map(|end| usize::from_str_radix(end, 16)));
            matches!(ends, Some([Ok(start), Ok(end)]) if (start..end).contains(&at))
        };
        let of_it = smaps.lines().skip_while(|line| !has_it(line));
        let flags = of_it.skip(1).find(|line| line.starts_with("VmFlags:")).expect("an area");
        assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
    }
}
