//! Feeds `majordomo_actors::fuzzing::identifier`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(fault) = majordomo_actors::fuzzing::identifier(data) {
        panic!("{fault}");
    }
});
