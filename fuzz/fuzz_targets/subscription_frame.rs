//! Any bytes, in two pieces, to the subscription door's framing and protobuf: no panic, no loop.
//! `cargo fuzz run subscription_frame --sanitizer=none -- -max_total_time=60`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| backtide::subscribe::decode_anything(bytes));
