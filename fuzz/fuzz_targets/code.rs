//! Feeds `majordomo_actors::fuzzing::code`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(fault) = majordomo_actors::fuzzing::code(data) {
        panic!("{fault}");
    }
});
