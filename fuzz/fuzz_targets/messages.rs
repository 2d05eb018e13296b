#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| datdot_hostile::messages::run(data));
