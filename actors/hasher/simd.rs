//! Crate `argon2-rust`, which has the widest instructions of the processor at hand, in memory that is taken once.

use argon2_rust::params::{Memory, TagLen};
use argon2_rust::{Argon2, Error, Hasher, Params};

use super::kernel::{Input, Refused};
use super::parameters::HashParameters;
use super::phc::{Algorithm, Recipe, TAG_BYTES, Version};

const BLOCK_BYTES: u64 = 1_024;

/// See [`Kernel`](super::kernel::Kernel). The crate asks for huge pages itself, and wipes the memory after each hash.
pub(super) struct Simd {
    hasher: Hasher,
    resident: HashParameters,
}

impl Simd {
    pub(super) fn new(resident: &HashParameters) -> Self {
        let any = Argon2::new(argon2_rust::Algorithm::Argon2id, argon2_rust::Version::V0x13, Params::DEFAULT);
        Self { hasher: any.hasher(), resident: *resident }
    }

    pub(super) fn reserve(&mut self) -> Result<(), Refused> {
        let resident = instance(&Recipe::current(self.resident), TAG_BYTES).map_err(|_| Refused)?;
        self.hasher.set_argon2(resident);
        self.hasher.reserve().map_err(|_| Refused)
    }

    pub(super) fn resident_bytes(&self) -> u64 {
        self.hasher.reserved_blocks() as u64 * BLOCK_BYTES
    }

    pub(super) fn compute(&mut self, input: &Input<'_>, tag: &mut [u8]) -> Result<(), Refused> {
        let Input { recipe, password, salt, secret, data } = *input;
        let argon2 = instance(recipe, tag.len()).map_err(|_| Refused)?;
        self.reserve()?;
        let outcome = if argon2.params().memory_blocks() as usize > self.hasher.reserved_blocks() {
            argon2.hash_into_with_ad(password, salt, secret, data, tag)
        } else {
            self.hasher.set_argon2(argon2);
            self.hasher.hash_into_with_ad(password, salt, secret, data, tag)
        };
        outcome.map_err(|_| Refused)
    }
}

fn instance(recipe: &Recipe, tag_bytes: usize) -> Result<Argon2, Error> {
    let HashParameters { memory_kib, passes, lanes } = recipe.parameters;
    let parameters = Params::builder()
        .memory(Memory::kib(memory_kib.into()))
        .passes(passes)
        .lanes(lanes)
        .threads(1)
        .tag_len(TagLen::bytes(tag_bytes as u64))
        .build()?;
    let algorithm = match recipe.algorithm {
        Algorithm::Argon2d => argon2_rust::Algorithm::Argon2d,
        Algorithm::Argon2i => argon2_rust::Algorithm::Argon2i,
        Algorithm::Argon2id => argon2_rust::Algorithm::Argon2id,
    };
    let version = match recipe.version {
        Version::V16 => argon2_rust::Version::V0x10,
        Version::V19 => argon2_rust::Version::V0x13,
    };
    Ok(Argon2::new(algorithm, version, parameters))
}
