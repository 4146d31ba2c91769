//! The kernel: what a hash thread computes with, in memory of its own.

use serde::{Deserialize, Serialize};

use super::parameters::HashParameters;
use super::phc::Recipe;
use super::plain::Plain;
#[cfg(feature = "argon2-simd")]
use super::{self_test, simd::Simd};

/// Which crate computes the hashes. Both compute the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HashKernel {
    /// `argon2`.
    Argon2,
    /// `argon2-rust`, in the widest instructions that the processor has. Only with the feature `argon2-simd`, and only
    /// where it passed its self-test.
    #[cfg(feature = "argon2-simd")]
    Argon2Simd,
}

impl HashKernel {
    /// The fastest that is built in and computes what it ought to.
    #[cfg(feature = "argon2-simd")]
    pub(super) fn choose() -> Self {
        let mut simd = Simd::new(&self_test::WIDE);
        Self::judge(&mut |input, tag| simd.compute(input, tag))
    }

    /// The only one that is built in.
    #[cfg(not(feature = "argon2-simd"))]
    pub(super) const fn choose() -> Self {
        Self::Argon2
    }

    /// The faster one, if what computes in it passes the self-test.
    #[cfg(feature = "argon2-simd")]
    pub(super) fn judge(candidate: &mut self_test::Candidate<'_>) -> Self {
        match self_test::run(candidate) {
            Ok(()) => Self::Argon2Simd,
            Err(fault) => {
                tracing::warn!(fault, "argon2-rust failed its self-test, crate argon2 hashes in its place");
                Self::Argon2
            }
        }
    }
}

/// What a tag is computed from.
pub(super) struct Input<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) password: &'a [u8],
    pub(super) salt: &'a [u8],
    pub(super) secret: &'a [u8],
    pub(super) data: &'a [u8],
}

impl<'a> Input<'a> {
    /// A password and its salt, and nothing beside them.
    pub(super) const fn new(recipe: &'a Recipe, password: &'a [u8], salt: &'a [u8]) -> Self {
        Self { recipe, password, salt, secret: &[], data: &[] }
    }
}

/// The machine refused the memory, or argon2 refused the inputs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Computes argon2 tags in memory that is taken once and kept. Only a hash dearer than the resident parameters takes
/// more, and gives it back at its end.
pub(super) enum Kernel {
    Plain(Plain),
    #[cfg(feature = "argon2-simd")]
    Simd(Simd),
}

impl Kernel {
    /// A kernel whose own memory fits `resident`; it is taken at [`Kernel::reserve`] or at the first hash.
    pub(super) fn new(which: HashKernel, resident: &HashParameters) -> Self {
        match which {
            HashKernel::Argon2 => Self::Plain(Plain::new(resident)),
            #[cfg(feature = "argon2-simd")]
            HashKernel::Argon2Simd => Self::Simd(Simd::new(resident)),
        }
    }

    /// Takes the resident memory ahead of the first hash.
    pub(super) fn reserve(&mut self) -> Result<(), Refused> {
        match self {
            Self::Plain(plain) => plain.reserve(),
            #[cfg(feature = "argon2-simd")]
            Self::Simd(simd) => simd.reserve(),
        }
    }

    /// The bytes that this kernel holds between two hashes.
    pub(super) fn resident_bytes(&self) -> u64 {
        match self {
            Self::Plain(plain) => plain.resident_bytes(),
            #[cfg(feature = "argon2-simd")]
            Self::Simd(simd) => simd.resident_bytes(),
        }
    }

    /// Wipes what the last hashes left in memory.
    pub(super) fn wipe(&mut self) {
        match self {
            Self::Plain(plain) => plain.wipe(),
            // It wipes after each hash, by a feature of its crate.
            #[cfg(feature = "argon2-simd")]
            Self::Simd(_) => {}
        }
    }

    /// Computes the tag of `input`; its length is that of `tag`.
    pub(super) fn compute(&mut self, input: &Input<'_>, tag: &mut [u8]) -> Result<(), Refused> {
        match self {
            Self::Plain(plain) => plain.compute(input, tag),
            #[cfg(feature = "argon2-simd")]
            Self::Simd(simd) => simd.compute(input, tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parameters::Ceiling;
    use super::super::phc::StoredHash;
    use super::super::self_test;
    use super::*;

    const BUILT_IN: &[HashKernel] = &[
        HashKernel::Argon2,
        #[cfg(feature = "argon2-simd")]
        HashKernel::Argon2Simd,
    ];

    #[test]
    fn every_kernel_computes_the_test_vector_of_rfc_9106() {
        for which in BUILT_IN {
            let mut kernel = Kernel::new(*which, &HashParameters::cheap_for_tests());
            assert!(self_test::computes_the_vector_of_rfc_9106(&mut |input, tag| kernel.compute(input, tag)));
        }
    }

    /// Strings for the password `password` from the reference implementation (phc-winner-argon2, `src/test.c`).
    #[test]
    fn every_kernel_agrees_with_the_reference_implementation() {
        let vectors = [
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2i$v=19$m=65536,t=1,p=1$c29tZXNhbHQAAAAAAAAAAA$+r0d29hqEB0yasKr55ZgICsQGSkl0v0kgwhd+U3wyRo",
        ];
        for which in BUILT_IN {
            let mut kernel = Kernel::new(*which, &HashParameters { memory_kib: 256, passes: 2, lanes: 1 });
            for text in vectors {
                let stored = StoredHash::parse(text, &Ceiling::default()).unwrap();
                let mut tag = vec![0; stored.tag.len()];
                kernel.compute(&Input::new(&stored.recipe, b"password", &stored.salt), &mut tag).unwrap();
                assert_eq!(tag, stored.tag, "{which:?} {text}");
            }
        }
    }

    #[test]
    fn memory_is_taken_once_and_a_dearer_hash_leaves_no_trace() {
        let cheap = HashParameters::cheap_for_tests();
        for which in BUILT_IN {
            let mut kernel = Kernel::new(*which, &cheap);
            assert_eq!(kernel.resident_bytes(), 0);
            for memory_kib in [8, 64, 4_096, 64, 63] {
                let recipe = Recipe::current(HashParameters { memory_kib, ..cheap });
                kernel.compute(&Input::new(&recipe, b"password", &[7; 16]), &mut [0; 32]).unwrap();
                assert_eq!(kernel.resident_bytes(), 64 * 1_024, "{which:?}");
            }
        }
    }

    #[test]
    fn reused_memory_does_not_change_a_tag() {
        let recipe = Recipe::current(HashParameters::cheap_for_tests());
        let input = Input::new(&recipe, b"password", &[7; 16]);
        for which in BUILT_IN {
            let mut used = Kernel::new(*which, &recipe.parameters);
            used.compute(&Input::new(&recipe, b"something else", &[1; 16]), &mut [0; 32]).unwrap();
            let (mut first, mut second) = ([0; 32], [0; 32]);
            used.compute(&input, &mut first).unwrap();
            Kernel::new(*which, &recipe.parameters).compute(&input, &mut second).unwrap();
            assert_eq!(first, second);
        }
    }

    /// Keeps the levels of what is told.
    #[cfg(feature = "argon2-simd")]
    #[derive(Clone, Default)]
    struct Levels(std::sync::Arc<std::sync::Mutex<Vec<tracing::Level>>>);

    #[cfg(feature = "argon2-simd")]
    impl tracing::Subscriber for Levels {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
            tracing::Id::from_u64(1)
        }

        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }

        fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
        fn enter(&self, _: &tracing::Id) {}
        fn exit(&self, _: &tracing::Id) {}
    }

    #[cfg(feature = "argon2-simd")]
    #[test]
    fn the_faster_kernel_is_chosen_unless_it_is_at_fault_which_is_told() {
        let told = Levels::default();
        // With a second one tracing asks each time whether anybody listens, and not only the thread that comes by first.
        let _second = tracing::Dispatch::new(Levels::default());
        let _guard = tracing::subscriber::set_default(told.clone());
        assert_eq!(HashKernel::choose(), HashKernel::Argon2Simd);
        assert!(told.0.lock().unwrap().is_empty());
        let mut simd = Simd::new(&HashParameters::cheap_for_tests());
        let mut flipped = |input: &Input<'_>, tag: &mut [u8]| {
            simd.compute(input, tag)?;
            tag[0] ^= u8::from(input.secret.is_empty());
            Ok(())
        };
        assert_eq!(HashKernel::judge(&mut flipped), HashKernel::Argon2);
        assert_eq!(*told.0.lock().unwrap(), [tracing::Level::WARN]);
        assert_eq!(serde_json::to_string(&HashKernel::Argon2Simd).unwrap(), r#""argon2_simd""#);
    }

    #[cfg(feature = "argon2-simd")]
    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(10_000))]

        #[test]
        fn both_kernels_compute_the_same_tags(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), self_test::Sample::BYTES),
        ) {
            let sample = self_test::Sample::drawn(&bytes.try_into().unwrap());
            let resident = HashParameters { memory_kib: 128, passes: 1, lanes: 1 };
            let (mut plain, mut simd) = (Plain::new(&resident), Simd::new(&resident));
            let alike = sample.is_computed_alike(
                &mut |input, tag| plain.compute(input, tag),
                &mut |input, tag| simd.compute(input, tag),
            );
            proptest::prop_assert!(alike, "{sample:?}");
        }
    }
}
