//! Whole-product tests in Rust: what foreign clients cannot see. One binary, so that it links once.

mod layers;
