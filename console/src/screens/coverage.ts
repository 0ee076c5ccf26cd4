// What is there of each point and what is missing, as the gateway counts it (/points/coverage).
import { keepPreviousData, useQueries, useQuery } from '@tanstack/react-query';
import { api, ok } from '../api/client';
import type { Page } from '../api/types';
import type { Gap } from '../ui/gaps';

/** The gaps of one point of a device. */
export interface Covered {
  deviceKey: string;
  point: string;
  count: number;
  firstTime?: number | null;
  lastTime?: number | null;
  /** What a gap is longer than, such as 1h. */
  than?: string;
  gaps?: number;
  longestGap?: number;
  /** The first ones. */
  gapList?: Gap[];
}

export interface Range {
  product: string;
  device: string;
  points?: string;
  from?: string;
  to?: string;
}

const SECOND = 1000;
const [MINUTE, HOUR, DAY] = [60 * SECOND, 3600 * SECOND, 86_400 * SECOND];
/** What may be asked for, in steps that a person would choose. */
const LENGTHS: [number, string][] = [
  [100, '100ms'], [SECOND, '1s'], [5 * SECOND, '5s'], [10 * SECOND, '10s'], [30 * SECOND, '30s'], [MINUTE, '1m'], [5 * MINUTE, '5m'], [10 * MINUTE, '10m'], [30 * MINUTE, '30m'],
  [HOUR, '1h'], [3 * HOUR, '3h'], [6 * HOUR, '6h'], [12 * HOUR, '12h'], [DAY, '1d'], [2 * DAY, '2d'], [7 * DAY, '7d'], [30 * DAY, '30d'], [90 * DAY, '90d'], [365 * DAY, '365d'],
];
export const LENGTH_CHOICES = ['1m', '10m', '1h', '6h', '1d', '7d'];
/** So many times what lies between two values on an average is a gap, unless one is chosen. */
const STEPS = 5;

/** The length that fits a point which has values; undefined where two values say nothing. */
export function lengthFor({ count, firstTime, lastTime }: Covered): string | undefined {
  if (firstTime == null || lastTime == null || count < 3) return undefined;
  const least = (STEPS * (lastTime - firstTime)) / (count - 1);
  return LENGTHS.find(([ms]) => ms >= least)?.[1] ?? LENGTHS.at(-1)?.[1];
}

async function asked(range: Range, gap?: string): Promise<Covered[]> {
  const query = { ...range, limit: 1000, ...(gap && { gap }) };
  return ((await ok(api.GET('/api/v1/points/coverage', { params: { query } }))) as unknown as Page<Covered>).items;
}

export interface Coverage {
  /** Of each point of each device; their gaps once they are known. */
  of: Covered[];
  isPending: boolean;
  error: unknown;
}

/**
 * Counts first, then gaps: those longer than `than`, or than five times a point's average distance between
 * values, rounded up to a length that is said easily.
 */
export function useCoverage(range: Range, than: string, isAsked: boolean): Coverage {
  const counts = useQuery({ queryKey: ['coverage', range], enabled: isAsked, queryFn: () => asked(range), placeholderData: keepPreviousData });
  const rows = counts.data ?? [];
  const lengthOf = (row: Covered) => (row.count === 0 ? undefined : than || lengthFor(row));
  const lengths = [...new Set(rows.map(lengthOf))].filter((length) => length !== undefined);
  const found = useQueries({
    queries: lengths.map((length) => {
      const points = [...new Set(rows.filter((row) => lengthOf(row) === length).map((row) => row.point))].join(',');
      return { queryKey: ['coverage', range, length, points], enabled: isAsked && !counts.isPlaceholderData, queryFn: () => asked({ ...range, points }, length) };
    }),
  });
  const withGaps = rows.map((row) => {
    const length = lengthOf(row);
    const own = length === undefined ? undefined : found[lengths.indexOf(length)]?.data?.find((other) => other.deviceKey === row.deviceKey && other.point === row.point);
    return own && length !== undefined ? { ...own, than: length } : row;
  });
  return { of: withGaps, isPending: counts.isPending || found.some((one) => one.isPending), error: counts.error ?? found.find((one) => one.error)?.error };
}

/** The longest of the gaps that are listed. */
export function longestOf(covered: Covered): Gap | undefined {
  return covered.gapList?.reduce<Gap | undefined>((a, b) => (a && a.to - a.from >= b.to - b.from ? a : b), undefined);
}
