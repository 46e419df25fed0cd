//! Every fuzz target: checks the oracle that has the program's name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    api_key_exporter_fuzz::check(env!("CARGO_BIN_NAME"), bytes);
});
