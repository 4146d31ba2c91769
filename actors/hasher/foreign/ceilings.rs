//! Ceilings: the dearest foreign hash of each family that is checked, each about a second on a core of 2020 or less.
#![cfg_attr(not(feature = "foreign-hashes"), allow(dead_code, reason = "the families are not built in"))]

/// The highest cost of bcrypt: 2^14 rounds of its key schedule. Its lowest is 4.
pub(super) const BCRYPT_COST: u32 = 14;
/// The most work of scrypt: N x r x p. OWASP's recommendation is half of it.
pub(super) const SCRYPT_WORK: u64 = 1 << 21;
/// The most of r x p in scrypt: how much PBKDF2 has to make and to read around the mixing, which N does not scale. With N of
/// 128 or more the work bounds it as well.
pub(super) const SCRYPT_BLOCKS: u64 = 1 << 14;
/// The most rounds of PBKDF2, over all blocks of its output.
pub(super) const PBKDF2_ROUNDS: u64 = 2_000_000;
/// The most rounds of SHA-crypt. Its fewest are 1,000.
pub(super) const SHA_CRYPT_ROUNDS: u32 = 1_000_000;
/// The binary logarithm of the most rounds of phpass. Its fewest are 2^7.
pub(super) const PHPASS_LOG_ROUNDS: u32 = 20;
/// The longest password, in bytes, of families that read it anew in each of their rounds. A longer one is no match.
pub(super) const ITERATED_PASSWORD_BYTES: usize = 256;
