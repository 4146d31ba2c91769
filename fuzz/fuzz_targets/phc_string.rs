//! Feeds `majordomo_actors::fuzzing::phc_string`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(fault) = majordomo_actors::fuzzing::phc_string(data) {
        panic!("{fault}");
    }
});
