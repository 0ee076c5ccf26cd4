//! Any bytes, in two pieces, to the MQTT door's framing, strict step and codec: no panic, no loop.
//! `cargo fuzz run packet --sanitizer=none -- -max_total_time=60`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| backtide::mqtt::decode_anything(bytes));
