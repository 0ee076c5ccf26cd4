//! Real history: two years of a wind farm, with the traps of every real import.
