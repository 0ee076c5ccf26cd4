//! What a process and its children have cost, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// A process by its id; the children that it has are counted with it.
#[derive(Debug, Clone)]
pub struct Watched {
    pub name: String,
    pub pid: u32,
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        Ok(Self {
            name: name.to_owned(),
            pid: pid.parse().map_err(|_| format!("{pid} is no process id"))?,
        })
    }
}

impl Watched {
    pub fn this() -> Self {
        Self {
            name: "generator".into(),
            pid: std::process::id(),
        }
    }

    /// CPU seconds so far, user and system, of the process, its living children and those it has
    /// waited for.
    pub fn cpu_s(&self) -> Result<f64> {
        let ticks: u64 = family(self.pid)?.iter().map(|stat| stat.ticks).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident bytes now, of the process alone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .with_context(|| path.clone())?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context(path)?;
        Ok(kib * 1024)
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks,
        })
    }
}

fn family(root: u32) -> Result<Vec<Stat>> {
    let all: Vec<(u32, Stat)> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::of(pid)?)))
        .collect();
    anyhow::ensure!(
        all.iter().any(|(pid, _)| *pid == root),
        "process {root} is gone"
    );
    let mut members = vec![root];
    let mut looked_at = 0;
    while let Some(&parent) = members.get(looked_at) {
        members.extend(
            all.iter()
                .filter(|(_, stat)| stat.parent == parent)
                .map(|(pid, _)| *pid),
        );
        looked_at += 1;
    }
    Ok(all
        .into_iter()
        .filter(|(pid, _)| members.contains(pid))
        .map(|(_, stat)| stat)
        .collect())
}
