// Where nothing is: told from the rhythm in which values come.

export interface Sampled {
  times: number[];
  /** How much time one drawn value may stand for; 1 where all are drawn. */
  bucketMs: number;
}

export interface Gap {
  from: number;
  to: number;
}

/** So many usual steps without a value are a gap. */
const STEPS = 5;
const BUCKETS = 2.5;

/** The stretches between two values that are much longer than between most. */
export function gapsOf({ times, bucketMs }: Sampled): Gap[] {
  if (times.length < 3) return [];
  const steps = times.slice(1).map((time, at) => time - (times[at] ?? time));
  const usual = steps.toSorted((a, b) => a - b)[steps.length >> 1] ?? 0;
  const most = Math.max(STEPS * usual, BUCKETS * bucketMs);
  return steps.flatMap((step, at) => (step > most ? [{ from: times[at] ?? 0, to: times[at + 1] ?? 0 }] : []));
}

/** The stretches in which there are values: what lies between the gaps. */
export function stretchesOf(sampled: Sampled): Gap[] {
  const [first, last] = [sampled.times[0], sampled.times.at(-1)];
  if (first === undefined || last === undefined) return [];
  const gaps = gapsOf(sampled);
  const starts = [first, ...gaps.map((gap) => gap.to)];
  const ends = [...gaps.map((gap) => gap.from), last];
  return starts.map((from, at) => ({ from, to: ends[at] ?? last }));
}
