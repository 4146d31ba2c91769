//! Crate `argon2`, in memory that is taken once and in huge pages where there are any.

use argon2::{Argon2, AssociatedData, Block, ParamsBuilder};
use zeroize::Zeroize;

use super::huge_pages;
use super::kernel::{Input, Refused};
use super::parameters::HashParameters;
use super::phc::{Algorithm, Version};

/// See [`Kernel`](super::kernel::Kernel).
pub(super) struct Plain {
    resident: Vec<Block>,
    resident_blocks: usize,
    /// How many of its blocks, from the first, hold what hashes left there.
    dirty_blocks: usize,
}

impl Plain {
    pub(super) fn new(resident: &HashParameters) -> Self {
        Self { resident: Vec::new(), resident_blocks: resident.memory_kib as usize, dirty_blocks: 0 }
    }

    pub(super) fn reserve(&mut self) -> Result<(), Refused> {
        grow(&mut self.resident, self.resident_blocks)
    }

    pub(super) fn resident_bytes(&self) -> u64 {
        (self.resident.capacity() * Block::SIZE) as u64
    }

    pub(super) fn compute(&mut self, input: &Input<'_>, tag: &mut [u8]) -> Result<(), Refused> {
        let argon2 = instance(input, tag.len()).map_err(|_| Refused)?;
        let needed = argon2.params().block_count();
        let hash = |memory: &mut [Block], tag: &mut [u8]| {
            argon2.hash_password_into_with_memory(input.password, input.salt, tag, memory).map_err(|_| Refused)
        };
        if needed > self.resident_blocks {
            let mut wide = Vec::new();
            grow(&mut wide, needed)?;
            let hashed = hash(&mut wide, tag);
            // It is given back to the system, which may give it to anybody.
            wide.iter_mut().zeroize();
            return hashed;
        }
        self.reserve()?;
        self.dirty_blocks = self.dirty_blocks.max(needed);
        hash(&mut self.resident, tag)
    }

    /// Wipes what hashes left in the memory that is kept: a guess could be tried on it in a fraction of a hash.
    pub(super) fn wipe(&mut self) {
        self.resident.iter_mut().take(self.dirty_blocks).for_each(Zeroize::zeroize);
        self.dirty_blocks = 0;
    }

    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        self.resident.iter().all(|block| block.as_ref().iter().all(|word| *word == 0))
    }
}

fn instance<'a>(input: &Input<'a>, tag_bytes: usize) -> argon2::Result<Argon2<'a>> {
    let HashParameters { memory_kib, passes, lanes } = input.recipe.parameters;
    let mut parameters = ParamsBuilder::new();
    parameters.m_cost(memory_kib).t_cost(passes).p_cost(lanes).output_len(tag_bytes);
    parameters.data(AssociatedData::new(input.data)?);
    let algorithm = match input.recipe.algorithm {
        Algorithm::Argon2d => argon2::Algorithm::Argon2d,
        Algorithm::Argon2i => argon2::Algorithm::Argon2i,
        Algorithm::Argon2id => argon2::Algorithm::Argon2id,
    };
    let version = match input.recipe.version {
        Version::V16 => argon2::Version::V0x10,
        Version::V19 => argon2::Version::V0x13,
    };
    Argon2::new_with_secret(input.secret, algorithm, version, parameters.build()?)
}

/// Makes `memory` hold `blocks` blocks, and never aborts the process where the machine has none left.
fn grow(memory: &mut Vec<Block>, blocks: usize) -> Result<(), Refused> {
    let missing = blocks.saturating_sub(memory.len());
    if missing > 0 {
        memory.try_reserve_exact(missing).map_err(|_| Refused)?;
        huge_pages::advise(memory.spare_capacity_mut());
    }
    memory.resize(blocks, Block::new());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::phc::Recipe;
    use super::*;

    #[test]
    fn every_hash_lies_in_the_same_memory() {
        let cheap = HashParameters::cheap_for_tests();
        let mut plain = Plain::new(&cheap);
        plain.reserve().unwrap();
        let address = plain.resident.as_ptr();
        for memory_kib in [64, 8, 4_096, 64, 63] {
            let recipe = Recipe::current(HashParameters { memory_kib, ..cheap });
            plain.compute(&Input::new(&recipe, b"password", &[7; 16]), &mut [0; 32]).unwrap();
            assert_eq!(plain.resident.as_ptr(), address);
        }
    }

    #[test]
    fn what_a_hash_left_is_wiped_to_the_last_word() {
        let cheap = HashParameters::cheap_for_tests();
        let mut plain = Plain::new(&cheap);
        for memory_kib in [cheap.memory_kib, 8] {
            let recipe = Recipe::current(HashParameters { memory_kib, ..cheap });
            plain.compute(&Input::new(&recipe, b"password", &[7; 16]), &mut [0; 32]).unwrap();
            assert!(!plain.is_clean());
        }
        plain.wipe();
        assert!(plain.is_clean());
    }

    #[test]
    #[ignore = "a measurement, which prints figures and asserts none"]
    #[allow(clippy::print_stdout, reason = "it prints figures")]
    fn what_wiping_costs_beside_a_hash() {
        let parameters = HashParameters::default();
        let mut plain = Plain::new(&parameters);
        let recipe = Recipe::current(parameters);
        for _ in 0..5 {
            let begun = std::time::Instant::now();
            plain.compute(&Input::new(&recipe, b"password", &[7; 16]), &mut [0; 32]).unwrap();
            let hashed = begun.elapsed();
            plain.wipe();
            println!("hash {hashed:?}, wipe {:?}", begun.elapsed() - hashed);
        }
    }

    #[test]
    fn memory_that_no_machine_has_is_refused_and_not_fatal() {
        assert_eq!(grow(&mut Vec::new(), usize::MAX / 2), Err(Refused));
    }
}
