#![no_main]

mod run;

libfuzzer_sys::fuzz_target!(init: run::init(), |bytes: &[u8]| run::run(&distill_fuzz::PROTOCOL, bytes));
