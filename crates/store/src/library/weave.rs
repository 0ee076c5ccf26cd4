//! Weaves sorted sources into one: decides for each row which source it comes from, and gathers
//! whole columns by that. Rows that stand in several sources are folded apart, cell by cell.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, UInt8Array, UInt64Array, cast::AsArray, new_null_array,
};
use arrow_schema::{ArrowError, DataType};
use backtide_model::Storage;

use super::{
    cells::{Cells, data_type},
    fold::{FirstRefusal, Rule, Side, fold},
    scan::{Slice, Slices},
};
use crate::ReadError;

/// A row of a slab: which slice, which row in it.
pub(super) type Pick = (usize, usize);

/// Rank of the device, and time.
type Key = (u32, i64);

/// The source with the least key, and the least key of the others.
struct Least {
    source: usize,
    key: Key,
    next_key: Option<Key>,
}

/// Sources in order of commit, the oldest first. A key stands at most once in each.
pub(super) struct Weave {
    sources: Vec<Strand>,
    refusals: FirstRefusal,
}

struct Strand {
    slices: Slices,
    current: Option<Arc<Slice>>,
    at: usize,
    /// Where the current slice stands in the slab being made.
    in_slab: Option<usize>,
}

impl Strand {
    fn key(&self) -> Option<Key> {
        let slice = self.current.as_ref()?;
        Some(slice.key(self.at))
    }

    fn load(&mut self) -> Result<(), ReadError> {
        self.at = 0;
        self.in_slab = None;
        self.current = self.slices.next().transpose()?.map(Arc::new);
        Ok(())
    }
}

/// Rows that no other source has any of, nor any between them.
#[derive(Debug)]
pub(super) struct Alone {
    source: usize,
    pub(super) slice: Arc<Slice>,
    pub(super) rows: Range<usize>,
}

/// Rows in order of key, and where each comes from.
#[derive(Debug, Default)]
pub(super) struct Woven {
    pub(super) slices: Vec<Arc<Slice>>,
    /// The newest source of each row.
    pub(super) picks: Vec<Pick>,
    /// Rows that several sources have: all of them, oldest first, the newest included.
    pub(super) shared: BTreeMap<usize, Vec<Pick>>,
    refusals: FirstRefusal,
}

impl Weave {
    pub(super) fn new(sources: Vec<Slices>, refusals: FirstRefusal) -> Result<Self, ReadError> {
        let mut strands = Vec::with_capacity(sources.len());
        for slices in sources {
            let mut strand = Strand {
                slices,
                current: None,
                at: 0,
                in_slab: None,
            };
            strand.load()?;
            strands.push(strand);
        }
        Ok(Self {
            sources: strands,
            refusals,
        })
    }

    /// As [`Self::next`], and beyond `rows_max` where that would part rows of one device within a
    /// stretch of `window_ms`.
    pub(super) fn next_whole(
        &mut self,
        rows_max: usize,
        window_ms: i64,
    ) -> Result<Woven, ReadError> {
        let mut woven = self.next(rows_max)?;
        let Some((rank, time_ms)) = woven.keys().last() else {
            return Ok(woven);
        };
        let window = time_ms.div_euclid(window_ms);
        while let Some(Least {
            source,
            key,
            next_key,
        }) = self.least()
        {
            if key.0 != rank || key.1.div_euclid(window_ms) != window {
                break;
            }
            if next_key == Some(key) {
                self.take_shared(key, &mut woven)?;
            } else {
                take_alone(&mut self.sources[source], next_key, 1, &mut woven)?;
            }
        }
        Ok(woven)
    }

    /// The next rows, at most `rows_max`; none at the end.
    pub(super) fn next(&mut self, rows_max: usize) -> Result<Woven, ReadError> {
        let mut woven = Woven {
            refusals: self.refusals,
            ..Woven::default()
        };
        for strand in &mut self.sources {
            strand.in_slab = None;
        }
        while woven.picks.len() < rows_max {
            let Some(Least {
                source,
                key,
                next_key,
            }) = self.least()
            else {
                break;
            };
            if next_key == Some(key) {
                self.take_shared(key, &mut woven)?;
            } else {
                let rows = rows_max - woven.picks.len();
                take_alone(&mut self.sources[source], next_key, rows, &mut woven)?;
            }
        }
        Ok(woven)
    }

    /// The next rows, at most `rows_max`, where one source has them alone. They are not taken.
    pub(super) fn alone(&self, rows_max: usize) -> Option<Alone> {
        let Least {
            source,
            key,
            next_key,
        } = self.least()?;
        let strand = &self.sources[source];
        let slice = strand.current.clone()?;
        let rows = match next_key == Some(key) {
            true => return None,
            false => alone(&slice, strand.at, next_key, rows_max),
        };
        Some(Alone {
            source,
            slice,
            rows,
        })
    }

    /// Takes what [`Self::alone`] told of.
    pub(super) fn take_alone(&mut self, alone: &Alone) -> Result<(), ReadError> {
        advance(&mut self.sources[alone.source], alone.rows.len())
    }

    fn least(&self) -> Option<Least> {
        let mut least: Option<(usize, Key)> = None;
        let mut next_key: Option<Key> = None;
        for (source, strand) in self.sources.iter().enumerate() {
            let Some(key) = strand.key() else { continue };
            match least {
                Some((_, least_key)) if key >= least_key => {
                    next_key = Some(next_key.map_or(key, |next| next.min(key)));
                }
                _ => {
                    next_key = least.map(|(_, key)| key).or(next_key);
                    least = Some((source, key));
                }
            }
        }
        let (source, key) = least?;
        Some(Least {
            source,
            key,
            next_key,
        })
    }

    fn take_shared(&mut self, key: Key, woven: &mut Woven) -> Result<(), ReadError> {
        let mut rows = Vec::new();
        for strand in &mut self.sources {
            if strand.key() == Some(key) {
                rows.push((in_slab(strand, woven), strand.at));
                advance(strand, 1)?;
            }
        }
        woven.shared.insert(woven.picks.len(), rows.clone());
        woven.picks.extend(rows.last());
        Ok(())
    }
}

/// Takes rows of one source for as long as no other has a lesser or equal key.
fn take_alone(
    strand: &mut Strand,
    next_key: Option<Key>,
    rows_max: usize,
    woven: &mut Woven,
) -> Result<(), ReadError> {
    let Some(slice) = strand.current.clone() else {
        return Ok(());
    };
    let rows = alone(&slice, strand.at, next_key, rows_max);
    let at = in_slab(strand, woven);
    woven.picks.extend(rows.clone().map(|row| (at, row)));
    advance(strand, rows.len())
}

/// The rows of a slice from `at` on before the next key of the others.
fn alone(slice: &Slice, at: usize, next_key: Option<Key>, rows_max: usize) -> Range<usize> {
    let end = slice.rows().min(at + rows_max);
    match next_key {
        None => at..end,
        Some(next_key) => {
            let is_theirs = |row: &usize| slice.key(*row) >= next_key;
            at..(at..end).find(is_theirs).unwrap_or(end)
        }
    }
}

fn in_slab(strand: &mut Strand, woven: &mut Woven) -> usize {
    *strand.in_slab.get_or_insert_with(|| {
        woven.slices.extend(strand.current.clone());
        woven.slices.len() - 1
    })
}

fn advance(strand: &mut Strand, rows: usize) -> Result<(), ReadError> {
    strand.at += rows;
    match &strand.current {
        Some(slice) if strand.at >= slice.rows() => strand.load(),
        _ => Ok(()),
    }
}

/// A point's column of a slab, folded.
pub(super) struct Joined {
    pub(super) values: ArrayRef,
    pub(super) quality: Option<ArrayRef>,
    /// The commit of each cell; 0 where there is none. `None`: every row has a cell, of its base.
    pub(super) sequences: Option<Vec<u64>>,
    pub(super) rules: Option<UInt8Array>,
}

impl Joined {
    /// Leaves out rows.
    pub(super) fn retain(&mut self, stays: &[bool]) -> Result<(), ArrowError> {
        let mask = BooleanArray::from(stays.to_vec());
        let filtered = |array: &dyn Array| arrow_select::filter::filter(array, &mask);
        self.values = filtered(&self.values)?;
        self.quality = self.quality.as_deref().map(filtered).transpose()?;
        if let Some(sequences) = &mut self.sequences {
            let mut at = stays.iter();
            sequences.retain(|_| at.next() == Some(&true));
        }
        let rules = self
            .rules
            .as_ref()
            .map(|rules| filtered(rules))
            .transpose()?;
        self.rules = rules.map(|rules| rules.as_primitive().clone());
        Ok(())
    }
}

/// What of a column is to be gathered beside values and quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// For a read.
    Sequences,
    /// For a merge: what later folds need too.
    Rules,
}

impl Woven {
    pub(super) fn rows(&self) -> usize {
        self.picks.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.picks
            .iter()
            .map(|(slice, row)| self.slices[*slice].key(*row))
    }

    /// The commits of rows, before cells have a say; empty where they were not read.
    pub(super) fn bases(&self) -> Vec<u64> {
        if self.slices.iter().any(|slice| slice.base.is_empty()) {
            return Vec::new();
        }
        let base = |(slice, row): &Pick| self.slices[*slice].base(*row);
        self.picks.iter().map(base).collect()
    }

    /// The last commit among all values of each row, of whichever points.
    pub(super) fn newest(&self) -> Vec<u64> {
        let base = |(slice, row): &Pick| self.slices[*slice].base(*row);
        let newest = |(row, pick): (usize, &Pick)| {
            let shared = self.shared.get(&row).into_iter().flatten().map(base);
            shared.fold(base(pick), u64::max)
        };
        self.picks.iter().enumerate().map(newest).collect()
    }

    /// Leaves out rows; `keeps` is told of each row's time and of the last commit among its values.
    pub(super) fn retain(&mut self, keeps: impl Fn(i64, u64) -> bool) {
        let stays =
            |((slice, at), newest): (&Pick, u64)| keeps(self.slices[*slice].times[*at], newest);
        let newest = self.newest();
        let stays: Vec<bool> = self.picks.iter().zip(newest).map(stays).collect();
        if !stays.contains(&false) {
            return;
        }
        let (picks, mut shared) = (
            std::mem::take(&mut self.picks),
            std::mem::take(&mut self.shared),
        );
        for (row, pick) in picks.into_iter().enumerate() {
            if !stays[row] {
                continue;
            }
            if let Some(all) = shared.remove(&row) {
                self.shared.insert(self.picks.len(), all);
            }
            self.picks.push(pick);
        }
    }

    /// Some of the rows, in another order.
    pub(super) fn reordered(&self, rows: impl Iterator<Item = usize>) -> Self {
        let mut woven = Self::default();
        let mut place: Vec<Option<usize>> = vec![None; self.slices.len()];
        let mut moved = |(slice, row): Pick| {
            let at = *place[slice].get_or_insert_with(|| {
                woven.slices.push(Arc::clone(&self.slices[slice]));
                woven.slices.len() - 1
            });
            (at, row)
        };
        for row in rows {
            let pick = moved(self.picks[row]);
            // Most windows have few shared rows, if any.
            if !self.shared.is_empty()
                && let Some(versions) = self.shared.get(&row)
            {
                let versions = versions.iter().map(|pick| moved(*pick)).collect();
                woven.shared.insert(woven.picks.len(), versions);
            }
            woven.picks.push(pick);
        }
        woven
    }

    /// Gathers point number `point`, or `None` where no slice has it. `bases` are [`Woven::bases`].
    pub(super) fn join(
        &self,
        point: usize,
        storage: Storage,
        depth: Depth,
        bases: &[u64],
    ) -> Result<Option<Joined>, ArrowError> {
        let cells = || self.slices.iter().map(|slice| slice.points[point].as_ref());
        if cells().all(|cells| cells.is_none()) {
            return Ok(None);
        }
        let (picks, shared_rules) = self.resolve(point);
        let is_base = picks.is_none() && cells().all(|cells| cells.is_some_and(Cells::is_plain));
        let picks = picks.as_deref().unwrap_or(&self.picks);
        let values = self.gather(picks, &data_type(storage), |slice| {
            slice.points[point]
                .as_ref()
                .map(|cells| cells.values.to_array())
        })?;
        let has_quality = cells().flatten().any(|cells| cells.quality.is_some());
        let quality = if has_quality {
            Some(self.gather(picks, &DataType::UInt8, |slice| {
                let quality = slice.points[point].as_ref()?.quality.clone()?;
                Some(Arc::new(quality))
            })?)
        } else {
            None
        };
        let rules = (depth == Depth::Rules).then(|| self.rules(point, picks, &shared_rules));
        Ok(Some(Joined {
            values,
            quality,
            sequences: (!is_base).then(|| self.sequences(point, picks, bases)),
            rules: rules.flatten(),
        }))
    }

    fn sequences(&self, point: usize, picks: &[Pick], bases: &[u64]) -> Vec<u64> {
        if bases.is_empty() {
            return Vec::new();
        }
        let is_plain: Vec<bool> = self
            .slices
            .iter()
            .map(|slice| slice.points[point].as_ref().is_some_and(Cells::is_plain))
            .collect();
        let sequence = |(((slice, row), of_row), base): ((&Pick, &Pick), &u64)| {
            if is_plain[*slice] && of_row.0 == *slice {
                return *base;
            }
            let slice = &self.slices[*slice];
            match &slice.points[point] {
                Some(cells) if cells.has(*row) => cells.sequence(*row, slice.base(*row)),
                _ => 0,
            }
        };
        let rows = picks.iter().zip(&self.picks).zip(bases);
        rows.map(sequence).collect()
    }

    /// Which version stands in each shared row, as picks for the whole slab where they differ from
    /// [`Woven::picks`], and its rule.
    fn resolve(&self, point: usize) -> (Option<Vec<Pick>>, Vec<(usize, Rule)>) {
        let mut picks = None;
        let mut rules = Vec::with_capacity(self.shared.len());
        for (row, versions) in &self.shared {
            let Some((pick, rule)) = self.stands(point, versions) else {
                continue;
            };
            if self.picks[*row] != pick {
                picks.get_or_insert_with(|| self.picks.clone())[*row] = pick;
            }
            rules.push((*row, rule));
        }
        (picks, rules)
    }

    /// Versions meet in the order of their sources; the fold asks for the order of their commits.
    fn stands(&self, point: usize, versions: &[Pick]) -> Option<(Pick, Rule)> {
        let cells = |pick: Pick| self.slices[pick.0].points[point].as_ref();
        let base = |pick: Pick| self.slices[pick.0].base(pick.1);
        let mut stands: Option<(Pick, Rule)> = None;
        for pick in versions {
            let Some(newcomer) = cells(*pick).filter(|cells| cells.has(pick.1)) else {
                continue;
            };
            stands = Some(match stands {
                None => (*pick, newcomer.rule(pick.1)),
                Some((at, rule)) => {
                    let standing = cells(at).expect("what stands has cells");
                    let same = standing.same(at.1, newcomer, pick.1);
                    let side = Side {
                        rule,
                        ..standing.side(at.1, base(at))
                    };
                    let (outcome, rule) = fold(
                        side,
                        newcomer.side(pick.1, base(*pick)),
                        same,
                        self.refusals,
                    );
                    match outcome.newcomer_stands() {
                        true => (*pick, rule),
                        false => (at, rule),
                    }
                }
            });
        }
        stands
    }

    fn rules(&self, point: usize, picks: &[Pick], shared: &[(usize, Rule)]) -> Option<UInt8Array> {
        let has_rules = self
            .slices
            .iter()
            .any(|s| s.points[point].as_ref().is_some_and(|c| c.rules.is_some()));
        if !has_rules && shared.iter().all(|(_, rule)| *rule == Rule::Last) {
            return None;
        }
        let mut rules: Vec<Option<u8>> = picks
            .iter()
            .map(|(slice, row)| {
                let cells = self.slices[*slice].points[point].as_ref()?;
                cells
                    .has(*row)
                    .then(|| cells.rule(*row).to_file())
                    .flatten()
            })
            .collect();
        for (row, rule) in shared {
            rules[*row] = rule.to_file();
        }
        Some(rules.into())
    }

    /// Gathers an array by picks; a slice without one gives nulls.
    fn gather(
        &self,
        picks: &[Pick],
        data_type: &DataType,
        array: impl Fn(&Slice) -> Option<ArrayRef>,
    ) -> Result<ArrayRef, ArrowError> {
        if let Some((slice, from)) = one_stretch(picks) {
            let slice = &self.slices[slice];
            return Ok(match array(slice) {
                Some(array) => array.slice(from, picks.len()),
                None => new_null_array(data_type, picks.len()),
            });
        }
        let arrays: Vec<ArrayRef> = self
            .slices
            .iter()
            .map(|slice| array(slice).unwrap_or_else(|| new_null_array(data_type, slice.rows())))
            .collect();
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        arrow_select::interleave::interleave(&arrays, picks)
    }
}

/// Where picks are consecutive rows of one slice: that slice and the first of them.
fn one_stretch(picks: &[Pick]) -> Option<Pick> {
    let first = picks.first()?;
    let mut rows = first.1..;
    picks
        .iter()
        .all(|pick| pick.0 == first.0 && rows.next() == Some(pick.1))
        .then_some(*first)
}

/// The cells of a column whose commit is not the row's.
pub(super) fn own_sequences(sequences: &[u64], bases: &[u64]) -> UInt64Array {
    let own =
        |(sequence, base): (&u64, &u64)| (*sequence != 0 && sequence != base).then_some(*sequence);
    sequences.iter().zip(bases).map(own).collect()
}
