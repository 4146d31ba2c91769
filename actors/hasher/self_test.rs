//! The self-test: whether a kernel computes what RFC 9106 says and crate `argon2` does, before a password is trusted to it.

use super::kernel::{Input, Refused};
use super::parameters::HashParameters;
use super::phc::{Algorithm, Recipe, Version};
use super::plain::Plain;

/// What computes a tag.
pub(super) type Candidate<'a> = dyn FnMut(&Input<'_>, &mut [u8]) -> Result<(), Refused> + 'a;

/// How many random inputs are compared at start, with costs that make it a matter of a few milliseconds.
const SAMPLES: usize = 8;

/// The costs of the first of them, whose memory is as large as a huge page.
pub(super) const WIDE: HashParameters = HashParameters { memory_kib: 2_048, passes: 1, lanes: 1 };

/// Argon2id with a secret and associated data: RFC 9106, 5.3.
const RFC_9106_TAG: [u8; 32] = [
    0x0d, 0x64, 0x0d, 0xf5, 0x8d, 0x78, 0x76, 0x6c, 0x08, 0xc0, 0x37, 0xa3, 0x4a, 0x8b, 0x53, 0xc9, 0xd0, 0x1e, 0xf0,
    0x45, 0x2d, 0x75, 0xb6, 0x5e, 0xb5, 0x25, 0x20, 0xe9, 0x6b, 0x01, 0xe6, 0x59,
];

/// Holds `candidate` against the test vector and against random inputs.
///
/// # Errors
/// What it does wrong.
pub(super) fn run(candidate: &mut Candidate<'_>) -> Result<(), &'static str> {
    if !computes_the_vector_of_rfc_9106(candidate) {
        return Err("the test vector of RFC 9106 does not come out");
    }
    let mut plain = Plain::new(&WIDE);
    for number in 0..SAMPLES {
        let mut bytes = [0; Sample::BYTES];
        getrandom::fill(&mut bytes).map_err(|_| "there is no randomness to test with")?;
        let mut sample = Sample::drawn(&bytes);
        if number == 0 {
            sample.recipe.parameters = WIDE;
        }
        if !sample.is_computed_alike(&mut |input, tag| plain.compute(input, tag), candidate) {
            return Err("a tag is not the one that crate argon2 computes");
        }
    }
    Ok(())
}

pub(super) fn computes_the_vector_of_rfc_9106(candidate: &mut Candidate<'_>) -> bool {
    let recipe = Recipe::current(HashParameters { memory_kib: 32, passes: 3, lanes: 4 });
    let input = Input { recipe: &recipe, password: &[1; 32], salt: &[2; 16], secret: &[3; 8], data: &[4; 12] };
    let mut tag = [0; 32];
    candidate(&input, &mut tag).is_ok() && tag == RFC_9106_TAG
}

/// A cheap computation, drawn from random bytes.
#[derive(Debug)]
pub(super) struct Sample {
    recipe: Recipe,
    password: Vec<u8>,
    salt: Vec<u8>,
    tag_bytes: usize,
}

impl Sample {
    /// How many bytes one is drawn from.
    pub(super) const BYTES: usize = 272;

    pub(super) fn drawn(bytes: &[u8; Self::BYTES]) -> Self {
        let mut bytes = bytes.iter().copied();
        let mut next = || bytes.next().unwrap_or_default();
        let lanes = 1 + u32::from(next() % 4);
        let (memory_kib, passes) = (lanes * 8 + u32::from(next()), 1 + u32::from(next() % 3));
        let algorithm = match next() % 3 {
            0 => Algorithm::Argon2d,
            1 => Algorithm::Argon2i,
            _ => Algorithm::Argon2id,
        };
        let version = if next() % 4 == 0 { Version::V16 } else { Version::V19 };
        let recipe = Recipe { algorithm, version, parameters: HashParameters { memory_kib, passes, lanes } };
        let (password_bytes, salt_bytes, tag_bytes) = (next() % 201, 8 + next() % 57, 4 + next() % 125);
        let password = (0..password_bytes).map(|_| next()).collect();
        let salt = (0..salt_bytes).map(|_| next()).collect();
        Self { recipe, password, salt, tag_bytes: tag_bytes.into() }
    }

    /// Whether both compute the same tag.
    pub(super) fn is_computed_alike(&self, one: &mut Candidate<'_>, other: &mut Candidate<'_>) -> bool {
        let input = Input::new(&self.recipe, &self.password, &self.salt);
        let (mut first, mut second) = (vec![0; self.tag_bytes], vec![0; self.tag_bytes]);
        one(&input, &mut first).is_ok() && other(&input, &mut second).is_ok() && first == second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_computes_rightly_passes_and_each_fault_is_told() {
        let mut plain = Plain::new(&WIDE);
        assert_eq!(run(&mut |input, tag| plain.compute(input, tag)), Ok(()));
        assert_eq!(run(&mut |_, _| Err(Refused)), Err("the test vector of RFC 9106 does not come out"));
        let differs = Err("a tag is not the one that crate argon2 computes");
        let only_the_vector = |input: &Input<'_>, tag: &mut [u8]| match input.secret {
            [] => Err(Refused),
            _ => Plain::new(&WIDE).compute(input, tag),
        };
        assert_eq!(run(&mut { only_the_vector }), differs);
        let wrong_where_it_is_wide = |input: &Input<'_>, tag: &mut [u8]| {
            Plain::new(&WIDE).compute(input, tag)?;
            tag[0] ^= u8::from(input.recipe.parameters == WIDE);
            Ok(())
        };
        assert_eq!(run(&mut { wrong_where_it_is_wide }), differs);
    }

    #[test]
    fn samples_reach_the_ends_of_their_ranges() {
        let least = Sample::drawn(&[0; Sample::BYTES]);
        assert_eq!(least.recipe.parameters, HashParameters { memory_kib: 8, passes: 1, lanes: 1 });
        assert_eq!((least.password.len(), least.salt.len(), least.tag_bytes), (0, 8, 4));
        let mut bytes = [1; Sample::BYTES];
        bytes[..8].copy_from_slice(&[3, 255, 2, 2, 1, 200, 56, 124]);
        let most = Sample::drawn(&bytes);
        assert_eq!(most.recipe.parameters, HashParameters { memory_kib: 287, passes: 3, lanes: 4 });
        assert_eq!((most.password.len(), most.salt.len(), most.tag_bytes), (200, 64, 128));
        assert_eq!(most.salt, [1; 64]);
    }
}
