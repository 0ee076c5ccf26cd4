// Windows of time in place of raw values: what happened in each.
import { Alert, MultiSelect, Select, Table, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { api, ok } from '../api/client';
import { useWords } from '../i18n';
import { Time, count, figure } from '../time';
import type { Line } from '../ui/chart';

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

export const functionsOf = (text: string): string[] => (text ? text.split(',') : [FUNCTION]);

/** Windows of that length, which begin as days do in the zone. */
export function useRollup(query: { product: string; device: string; points: string; from?: string; to?: string }, every: string, functions: string[], zone: string) {
  return useQuery({
    queryKey: ['rollup', query, every, functions, zone], enabled: every !== '' && query.product !== '' && query.device !== '' && query.points !== '',
    queryFn: async (): Promise<Rollup> => {
      const found = (await ok(api.GET('/api/v1/points/aggregates', { params: { query: { ...query, aggregate: functions.join(','), interval: every, timezone: zone, limit: WINDOWS_MAX } } }))) as { items: Window[]; next?: string };
      return { windows: found.items, hasMore: found.next !== undefined };
    },
    placeholderData: (before) => before,
  });
}

/** A line for each device, point and function; results that are no numbers are not drawn. */
export function linesOf(windows: Window[]): Line[] {
  const lines = new Map<string, Line>();
  for (const { deviceKey, time, ...results } of windows) {
    for (const [name, value] of Object.entries(results)) {
      if (typeof value !== 'number') continue;
      const key = `${deviceKey} ${name}`;
      const line = lines.get(key) ?? { name: key, times: [], values: [], bucketMs: 1 };
      lines.set(key, line);
      line.times.push(time);
      line.values.push(value);
    }
  }
  return [...lines.values()];
}

export function RollupFilters({ every, functions, onChange }: { every: string; functions: string[]; onChange: (changes: Record<string, string | null>) => void }) {
  const { t } = useWords();
  const lengths = [
    { value: '1m', label: t('a minute') }, { value: '10m', label: t('10 minutes') }, { value: '1h', label: t('an hour') }, { value: '1d', label: t('a day') }, { value: '1w', label: t('a week') }, { value: '1mo', label: t('a month') }, { value: '1y', label: t('a year') },
  ];
  return (
    <>
      <Select label={t('Windows of')} w={140} clearable placeholder={t('raw values')} data={lengths} value={every || null} onChange={(every) => onChange({ every })} />
      {every && <MultiSelect label={t('Functions')} w={230} searchable data={FUNCTIONS} value={functions} onChange={(functions) => onChange({ fn: functions.join(',') })} />}
    </>
  );
}

export function RollupTable({ rollup, names }: { rollup: Rollup; names: string[] }) {
  const { t } = useWords();
  const shown = (value: unknown) => (value === undefined || value === null ? '' : typeof value === 'number' ? figure(value) : JSON.stringify(value));
  return (
    <>
      <Table.ScrollContainer minWidth={500} type="native" tabIndex={0} role="region" aria-label={t('Windows')} mah={560}>
        <Table className="numbers" aria-label={t('Windows')} striped stickyHeader verticalSpacing={4}>
          <Table.Thead><Table.Tr><Table.Th>{t('Begins')}</Table.Th><Table.Th>{t('Device')}</Table.Th>{names.map((name) => <Table.Th key={name} ta="right">{name}</Table.Th>)}</Table.Tr></Table.Thead>
          <Table.Tbody>
            {rollup.windows.slice(0, SHOWN).map((row) => (
              <Table.Tr key={`${row.deviceKey} ${row.time}`}>
                <Table.Td><Time ms={row.time} /></Table.Td><Table.Td>{row.deviceKey}</Table.Td>{names.map((name) => <Table.Td key={name} ta="right">{shown(row[name])}</Table.Td>)}
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
