#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| converge_ledger::fuzzing::verify_file(data));
