//! Any bytes are decoded as a journal frame or refused: no panic, no memory the input does not
//! justify.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(backtide_store::decode_frame(bytes)));
