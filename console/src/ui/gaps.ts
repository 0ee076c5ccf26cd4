// Stretches without a value, as the gateway's coverage tells them.

export interface Gap {
  from: number;
  to: number;
}

/** The times behind which a line breaks: of each gap the last value before it that is drawn. */
export function breaks(times: number[], gaps: Gap[]): Set<number> {
  const found = new Set<number>();
  let at = 0;
  for (const gap of gaps) {
    while (at + 1 < times.length && (times[at + 1] ?? Infinity) <= gap.from) at += 1;
    const [before, after] = [times[at], times[at + 1]];
    // What was left out of the drawing may lie between: then nothing is seen of the gap.
    if (before !== undefined && before <= gap.from && after !== undefined && after >= gap.to) found.add(before);
  }
  return found;
}

/** The stretches in which there are values: what lies between the gaps, from the first value to the last. */
export function stretches(first: number, last: number, gaps: Gap[]): Gap[] {
  const inside = gaps.filter((gap) => gap.from >= first && gap.to <= last);
  const starts = [first, ...inside.map((gap) => gap.to)];
  const ends = [...inside.map((gap) => gap.from), last];
  return starts.map((from, at) => ({ from, to: ends[at] ?? last }));
}
