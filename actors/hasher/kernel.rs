//! The kernel: one thread's argon2 memory, and the only file that calls the hash itself.

use argon2::{Argon2, Block, Params};

use super::huge_pages;
use super::parameters::HashParameters;
use super::phc::{Algorithm, Recipe, Version};

/// Computes argon2 tags in memory that is taken once and kept. Only a hash dearer than the resident parameters takes
/// more, and gives it back at its end.
pub(super) struct Kernel {
    resident: Vec<Block>,
    resident_blocks: usize,
}

/// The machine refused the memory, or argon2 refused the inputs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl Kernel {
    /// A kernel whose own memory fits `resident`; it is taken at [`Kernel::reserve`] or at the first hash.
    pub(super) fn new(resident: &HashParameters) -> Self {
        Self { resident: Vec::new(), resident_blocks: resident.memory_kib as usize }
    }

    /// Takes the resident memory and touches it, so that the first hash is as fast as every other.
    pub(super) fn reserve(&mut self) -> Result<(), Refused> {
        grow(&mut self.resident, self.resident_blocks)
    }

    /// The bytes that this kernel holds between two hashes.
    pub(super) fn resident_bytes(&self) -> u64 {
        (self.resident.capacity() * Block::SIZE) as u64
    }

    /// Computes the tag of `password` and `salt`; the tag's length is that of `tag`.
    pub(super) fn compute(
        &mut self,
        recipe: &Recipe,
        password: &[u8],
        salt: &[u8],
        tag: &mut [u8],
    ) -> Result<(), Refused> {
        let HashParameters { memory_kib, passes, lanes } = recipe.parameters;
        let parameters = Params::new(memory_kib, passes, lanes, Some(tag.len())).map_err(|_| Refused)?;
        let algorithm = match recipe.algorithm {
            Algorithm::Argon2d => argon2::Algorithm::Argon2d,
            Algorithm::Argon2i => argon2::Algorithm::Argon2i,
            Algorithm::Argon2id => argon2::Algorithm::Argon2id,
        };
        let version = match recipe.version {
            Version::V16 => argon2::Version::V0x10,
            Version::V19 => argon2::Version::V0x13,
        };
        self.run(&Argon2::new(algorithm, version, parameters), password, salt, tag)
    }

    fn run(&mut self, argon2: &Argon2<'_>, password: &[u8], salt: &[u8], tag: &mut [u8]) -> Result<(), Refused> {
        let needed = argon2.params().block_count();
        let mut wide = Vec::new();
        let memory = if needed > self.resident_blocks {
            grow(&mut wide, needed)?;
            &mut wide
        } else {
            self.reserve()?;
            &mut self.resident
        };
        argon2.hash_password_into_with_memory(password, salt, tag, memory).map_err(|_| Refused)
    }
}

/// Makes `memory` hold `blocks` blocks, in huge pages where there are any, and never aborts the process where the machine
/// has none left.
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
    use super::super::parameters::Ceiling;
    use super::super::phc::StoredHash;
    use super::*;

    /// RFC 9106, 5.3: Argon2id with a secret and associated data.
    #[test]
    fn the_kernel_computes_the_test_vector_of_rfc_9106() {
        let parameters = argon2::ParamsBuilder::new()
            .m_cost(32)
            .t_cost(3)
            .p_cost(4)
            .output_len(32)
            .data(argon2::AssociatedData::new(&[4; 12]).unwrap())
            .build()
            .unwrap();
        let argon2 =
            Argon2::new_with_secret(&[3; 8], argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters).unwrap();
        let mut kernel = Kernel::new(&HashParameters::cheap_for_tests());
        let mut tag = [0; 32];
        kernel.run(&argon2, &[1; 32], &[2; 16], &mut tag).unwrap();
        let expected = [
            0x0d, 0x64, 0x0d, 0xf5, 0x8d, 0x78, 0x76, 0x6c, 0x08, 0xc0, 0x37, 0xa3, 0x4a, 0x8b, 0x53, 0xc9, 0xd0, 0x1e,
            0xf0, 0x45, 0x2d, 0x75, 0xb6, 0x5e, 0xb5, 0x25, 0x20, 0xe9, 0x6b, 0x01, 0xe6, 0x59,
        ];
        assert_eq!(tag, expected);
    }

    /// Strings for the password `password` from the reference implementation (phc-winner-argon2, `src/test.c`).
    #[test]
    fn the_kernel_agrees_with_the_reference_implementation() {
        let vectors = [
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2i$v=19$m=65536,t=1,p=1$c29tZXNhbHQAAAAAAAAAAA$+r0d29hqEB0yasKr55ZgICsQGSkl0v0kgwhd+U3wyRo",
        ];
        let mut kernel = Kernel::new(&HashParameters { memory_kib: 256, passes: 2, lanes: 1 });
        for text in vectors {
            let stored = StoredHash::parse(text, &Ceiling::default()).unwrap();
            let mut tag = vec![0; stored.tag.len()];
            kernel.compute(&stored.recipe, b"password", &stored.salt, &mut tag).unwrap();
            assert_eq!(tag, stored.tag, "{text}");
        }
    }

    #[test]
    fn memory_is_taken_once_and_a_dearer_hash_leaves_no_trace() {
        let cheap = HashParameters::cheap_for_tests();
        let mut kernel = Kernel::new(&cheap);
        assert_eq!(kernel.resident_bytes(), 0);
        kernel.reserve().unwrap();
        let address = kernel.resident.as_ptr();
        for memory_kib in [64, 8, 4_096, 64, 63] {
            let recipe = Recipe::current(HashParameters { memory_kib, ..cheap });
            kernel.compute(&recipe, b"password", &[7; 16], &mut [0; 32]).unwrap();
            assert_eq!(kernel.resident_bytes(), 64 * 1_024);
            assert_eq!(kernel.resident.as_ptr(), address);
        }
    }

    #[test]
    fn reused_memory_does_not_change_a_tag() {
        let recipe = Recipe::current(HashParameters::cheap_for_tests());
        let mut used = Kernel::new(&recipe.parameters);
        used.compute(&recipe, b"something else", &[1; 16], &mut [0; 32]).unwrap();
        let (mut first, mut second) = ([0; 32], [0; 32]);
        used.compute(&recipe, b"password", &[7; 16], &mut first).unwrap();
        Kernel::new(&recipe.parameters).compute(&recipe, b"password", &[7; 16], &mut second).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn memory_that_no_machine_has_is_refused_and_not_fatal() {
        assert_eq!(grow(&mut Vec::new(), usize::MAX / 2), Err(Refused));
    }
}
