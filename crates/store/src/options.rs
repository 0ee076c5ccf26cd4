//! Every size and time of the store, with its unit in its name.

/// Settings of a store. The defaults are for one small machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// A memtable is frozen and flushed at this size.
    pub memtable_bytes_max: usize,
    /// A journal file is preallocated to this size and rotated when the next group does not fit.
    pub journal_file_bytes: u64,
    /// Journal files whose commits are all flushed stay readable for followers this long …
    pub log_retention_ms: i64,
    /// … unless together they are larger than this.
    pub log_bytes_max: u64,
    /// What followers that may be let go keep of it at most, all files together: beyond, they lose
    /// what they have not seen.
    pub log_held_bytes_max: u64,
    /// Which followers may be let go, by their cursors' names.
    pub may_let_go: fn(&str) -> bool,
    /// A group commit takes at most this many bytes of encoded records.
    pub group_bytes_max: usize,
    /// Submissions waiting for the committer; a submission beyond is refused.
    pub queue_submissions_max: usize,
    /// Memory that waiting submissions may take; a submission beyond is refused.
    pub queue_bytes_max: usize,
    /// Commits are refused while less than this is free on the disk.
    pub disk_reserve_bytes: u64,
    /// Segments of a product that may hold the same moment of the same device, at most: flushes,
    /// and then commits, wait for merges. Merging begins one below.
    pub overlapping_segments_max: usize,
    /// Without commits for this long, what is in memory is flushed and everything is classified.
    pub quiet_ms: u64,
    /// Wall time, milliseconds since 1970 UTC: how old a journal file is. The default stands still
    /// at 0, so that only `log_bytes_max` ends the log.
    pub clock: fn() -> i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memtable_bytes_max: 48 << 20,
            journal_file_bytes: 64 << 20,
            log_retention_ms: 3 * 24 * 3600 * 1000,
            log_bytes_max: 8 << 30,
            log_held_bytes_max: 32 << 30,
            may_let_go: |_| false,
            group_bytes_max: 4 << 20,
            queue_submissions_max: 4096,
            queue_bytes_max: 64 << 20,
            disk_reserve_bytes: 256 << 20,
            overlapping_segments_max: 8,
            quiet_ms: 10_000,
            clock: || 0,
        }
    }
}
