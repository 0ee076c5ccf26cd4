// Windows of time in place of raw values: what happened in each.
import { Alert, Anchor, MultiSelect, Select, Stack, Table, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Suspense, lazy, useMemo } from 'react';
import { Problem, headers } from '../api/client';
import type { Conflict } from '../api/types';
import { useWords } from '../i18n';
import { Time, count, figure, useZone } from '../time';
import { Empty, Waiting } from '../ui/page';
import type { Line } from '../ui/chart';
import { CONFLICT } from './history-chart';
import { useDerived, type Derived } from './rollups';

const Chart = lazy(() => import('../ui/chart'));

const FUNCTIONS = ['avg', 'min', 'max', 'count', 'sum', 'first', 'last', 'twa', 'increase', 'stddev'];
const FUNCTION = 'avg';
const WINDOWS_MAX = 10000;
const SHOWN = 1000;

export type Window = { deviceKey: string; time: number } & Record<string, unknown>;

export interface Rollup {
  windows: Window[];
  /** There are more than were asked for. */
  hasMore: boolean;
}

/** What a rollup has. */
const functionsIn = (kept: Derived) => [...new Set(kept.columns.filter((name) => name.includes('.')).map((name) => name.slice(name.lastIndexOf('.') + 1)))];

/** Those that are chosen; else all that a rollup was made for, or the mean. Counts, which each has, are shown when they are asked for. */
export function functionsOf(text: string, kept?: Derived): string[] {
  if (text) return text.split(',');
  if (!kept) return [FUNCTION];
  const own = functionsIn(kept);
  return own.length > 1 ? own.filter((name) => name !== 'count') : own;
}

export interface Question {
  product: string;
  device: string;
  points: string;
  from?: string;
  to?: string;
}

/** What is shown in place of raw values: windows that are folded now, or what a policy keeps computed. */
export interface Source {
  /** How long its windows are; empty where raw values are shown, or a reduction of them. */
  every: string;
  functions: string[];
  /** The rollup or reduction that is read. */
  kept?: Derived | undefined;
}

export const isWindows = (source: Source) => source.every !== '' || source.kept !== undefined;

/** Where that is asked for, without what says how it comes. */
export function addressOf(query: Question, { every, functions, kept }: Source, zone: string): string {
  const { points, ...rest } = query;
  if (kept?.kind === 'reduction') return `/api/v1/points/reduced?${new URLSearchParams({ ...rest, reduction: kept.name })}`;
  if (kept) return `/api/v1/rollups/${encodeURIComponent(kept.name)}/rows?${new URLSearchParams({ ...query, timezone: zone })}`;
  return `/api/v1/points/aggregates?${new URLSearchParams({ ...query, aggregate: functions.join(','), interval: every, timezone: zone })}`;
}

/** The results of each window, by the points that are asked for. */
export function columnsOf(points: string[], { functions, kept }: Source): { point: string; name: string }[] {
  if (!kept) return points.flatMap((point) => functions.map((fn) => ({ point, name: `${point}.${fn}` })));
  if (kept.kind === 'reduction') return points.filter((point) => kept.points.includes(point)).map((point) => ({ point, name: point }));
  const own = (point: string) => kept.columns.filter((name) => name.startsWith(`${point}.`) && functions.includes(name.slice(point.length + 1)));
  return points.flatMap((point) => own(point).map((name) => ({ point, name })));
}

/** Windows of that length, which begin as days do in the zone; or the rows of a rollup. */
export function useRollup(query: Question, source: Source, zone: string) {
  const address = addressOf(query, source, zone);
  const names = new Set(columnsOf(query.points.split(','), source).map((column) => column.name));
  return useQuery({
    queryKey: ['rollup', address, [...names]], enabled: isWindows(source) && query.product !== '' && query.device !== '' && query.points !== '',
    queryFn: async (): Promise<Rollup> => {
      const response = await fetch(`${address}&limit=${WINDOWS_MAX}`, { headers: headers() });
      if (!response.ok) throw await Problem.of(response);
      const found = (await response.json()) as { items: Window[]; next?: string };
      const own = ({ deviceKey, time, ...results }: Window) => ({ deviceKey, time, ...Object.fromEntries(Object.entries(results).filter(([name]) => names.has(name))) }) as Window;
      return { windows: found.items.map(own), hasMore: found.next !== undefined };
    },
    placeholderData: (before) => before,
  });
}

const HOUR = 3_600_000;
/** How long a unit is, about: months and years differ, and days where clocks are changed. */
const UNITS: Record<string, number> = { m: HOUR / 60, h: HOUR, d: 24 * HOUR, w: 168 * HOUR, mo: 730 * HOUR, y: 8766 * HOUR };

/** How long a window such as 10m is, about. */
function lengthOf(every: string): number | undefined {
  const [, n = '', unit = ''] = /^(\d+)([a-z]+)$/.exec(every) ?? [];
  const length = UNITS[unit];
  return length === undefined ? undefined : Number(n) * length;
}

/** Windows that follow each other lie less far apart than this; no two others do. */
const apart = (every: string) => 1.5 * (lengthOf(every) ?? Infinity);

/** A line for each device, point and function; results that are no numbers are not drawn. */
function linesOf(windows: Window[], every: string, clashes: Clashes): Line[] {
  const lines = new Map<string, Line>();
  for (const { deviceKey, time, ...results } of windows) {
    for (const [name, value] of Object.entries(results)) {
      if (typeof value !== 'number') continue;
      const key = `${deviceKey} ${name}`;
      const line = lines.get(key) ?? { name: key, times: [], values: [], gaps: [], marks: new Map<number, string>() };
      const before = line.times.at(-1);
      if (before !== undefined && time - before > apart(every)) line.gaps.push({ from: before, to: time });
      if (clashes.of(deviceKey, time, pointOf(name)) > 0) line.marks?.set(time, CONFLICT);
      lines.set(key, line);
      line.times.push(time);
      line.values.push(value);
    }
  }
  return [...lines.values()];
}

/** A result is called by its point and its function. */
const pointOf = (name: string) => (name.includes('.') ? name.slice(0, name.lastIndexOf('.')) : name);

interface Clashes { of: (device: string, window: number, point: string) => number }

/** How many values of each window were overwritten by different ones. */
function clashesOf(windows: Window[], conflicts: Conflict[]): Clashes {
  const begins = new Map<string, number[]>();
  for (const { deviceKey, time } of windows) begins.set(deviceKey, [...(begins.get(deviceKey) ?? []), time]);
  const counts = new Map<string, number>();
  for (const { deviceKey, point, time } of conflicts) {
    // The kept value is in a window that is there: the last that begins no later.
    const window = begins.get(deviceKey)?.findLast((begin) => begin <= time);
    if (window === undefined) continue;
    const key = `${deviceKey} ${window} ${point}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return { of: (device, window, point) => counts.get(`${device} ${window} ${point}`) ?? 0 };
}

export function RollupChart({ rollup, every, isReduced = false, conflicts, onZoom, onRaw }: {
  rollup: Rollup; every: string; isReduced?: boolean; conflicts: Conflict[]; onZoom: (from: number, to: number) => void; onRaw: (from: number, to: number | undefined) => void;
}) {
  const { t } = useWords();
  const { zone } = useZone();
  const lines = useMemo(() => linesOf(rollup.windows, every, clashesOf(rollup.windows, conflicts)), [rollup, every, conflicts]);
  if (lines.length === 0) return <Empty>{t('There are no numbers in this range.')}</Empty>;
  return (
    <Stack gap="xs">
      <TooMany rollup={rollup} />
      <Suspense fallback={<Waiting />}>
        <Chart
          lines={lines} zone={zone} onRange={onZoom} label={t('Chart of {names}; the table has the values', { names: lines.map((line) => line.name).join(', ') })}
          onPick={(line, time) => {
            const times = lines[line]?.times ?? [];
            onRaw(time, times[times.indexOf(time) + 1]);
          }}
        />
      </Suspense>
      <Text size="xs" className="quiet" role="status">
        {isReduced ? t('{n} rows that the reduction keeps. Drag to zoom, click for the raw values from there.', { n: count(rollup.windows.length) }) : t('{n} windows. Drag to zoom, click for the raw values of a window.', { n: count(rollup.windows.length) })}{' '}
        <span className="dot" style={{ color: CONFLICT }} aria-hidden /> {t('values in it were overwritten by different ones')}
      </Text>
    </Stack>
  );
}

export function RollupFilters({ product, source: { every, functions, kept }, onChange }: { product: string; source: Source; onChange: (changes: Record<string, string | null>) => void }) {
  const { t } = useWords();
  const derived = (useDerived().data ?? []).filter((one) => one.product === product);
  const named = (kind: string) => derived.filter((one) => one.kind === kind).map((one) => ({ value: one.name, label: one.interval ? `${one.name} (${one.interval})` : one.name }));
  const lengths = [
    { value: '1m', label: t('a minute') }, { value: '10m', label: t('10 minutes') }, { value: '1h', label: t('an hour') }, { value: '1d', label: t('a day') }, { value: '1w', label: t('a week') }, { value: '1mo', label: t('a month') }, { value: '1y', label: t('a year') },
  ];
  return (
    <>
      <Select label={t('Windows of')} w={140} clearable placeholder={t('raw values')} data={lengths} value={(!kept && every) || null} onChange={(every) => onChange({ every, rollup: null })} />
      {(derived.length > 0 || kept) && (
        <Select
          label={t('Rollup or reduction')} w={200} clearable searchable placeholder={t('none')} value={kept?.name ?? null} onChange={(rollup) => onChange({ rollup, every: null, fn: null })}
          data={[{ group: t('Rollups'), items: named('rollup') }, { group: t('Reductions'), items: named('reduction') }].filter((group) => group.items.length > 0)}
        />
      )}
      {every && <MultiSelect label={t('Functions')} w={230} searchable data={kept ? functionsIn(kept) : FUNCTIONS} value={functions} onChange={(functions) => onChange({ fn: functions.join(',') })} />}
    </>
  );
}

export function RollupTable({ rollup, every, conflicts, columns, onRaw }: {
  rollup: Rollup; every: string; conflicts: Conflict[]; columns: { point: string; name: string }[]; onRaw: (from: number, to: number | undefined) => void;
}) {
  const { t } = useWords();
  const clashes = useMemo(() => clashesOf(rollup.windows, conflicts), [rollup, conflicts]);
  const shown = (value: unknown) => (value === undefined || value === null ? '' : typeof value === 'number' ? figure(value) : JSON.stringify(value));
  /** Where the window after one begins, as far as it is known. */
  const next = (at: number) => {
    const [own, after] = [rollup.windows[at], rollup.windows[at + 1]];
    return own && after && own.deviceKey === after.deviceKey && after.time - own.time < apart(every) ? after.time : undefined;
  };
  return (
    <>
      <Table.ScrollContainer minWidth={500} type="native" tabIndex={0} role="region" aria-label={t('Windows')} mah={560}>
        <Table className="numbers" aria-label={t('Windows')} striped stickyHeader verticalSpacing={4}>
          <Table.Thead><Table.Tr><Table.Th>{t('Begins')}</Table.Th><Table.Th>{t('Device')}</Table.Th>{columns.map(({ name }) => <Table.Th key={name} ta="right">{name}</Table.Th>)}</Table.Tr></Table.Thead>
          <Table.Tbody>
            {rollup.windows.slice(0, SHOWN).map((row, at) => (
              <Table.Tr key={`${row.deviceKey} ${row.time}`}>
                <Table.Td><Anchor component="button" type="button" size="sm" title={t('Its raw values')} onClick={() => onRaw(row.time, next(at) ?? row.time + (lengthOf(every) ?? 0))}><Time ms={row.time} /></Anchor></Table.Td>
                <Table.Td>{row.deviceKey}</Table.Td>
                {columns.map(({ name, point }) => {
                  const clash = clashes.of(row.deviceKey, row.time, point);
                  return <Table.Td key={name} ta="right">{shown(row[name])}{clash > 0 && <Text size="xs" span title={t('{n} values in it were overwritten by different ones', { n: clash })}> ⚠ {clash}</Text>}</Table.Td>;
                })}
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {rollup.windows.length > SHOWN && <Text size="xs" className="quiet">{t('The first {n} of {m} windows; the export has all.', { n: count(SHOWN), m: count(rollup.windows.length) })}</Text>}
    </>
  );
}

/** Where a range has more windows than are shown. */
export function TooMany({ rollup }: { rollup: Rollup }) {
  const { t } = useWords();
  if (!rollup.hasMore) return null;
  return <Alert color="yellow" variant="light">{t('Only the first {n} windows are shown: choose a shorter range or longer windows. The export has all.', { n: count(rollup.windows.length) })}</Alert>;
}
