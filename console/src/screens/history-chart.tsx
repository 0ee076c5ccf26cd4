// The chart of a range with what it is made of, for those who cannot see it.
import { Anchor, Stack, Table, Text } from '@mantine/core';
import { Suspense, lazy, useMemo } from 'react';
import type { Schemas } from '../api/client';
import type { Conflict } from '../api/types';
import { useWords } from '../i18n';
import { Time, count, figure, span, useZone } from '../time';
import { Empty, Waiting } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import type { Line } from '../ui/chart';
import { longestOf, type Coverage, type Covered } from './coverage';
import type { Picked } from './history-lineage';

const Chart = lazy(() => import('../ui/chart'));

export const CONFLICT = '#e8590c';
const DOUBTFUL = '#f08c00';
/** Beyond, marks would hide the line. */
const MARKS_MAX = 2000;

type Series = Schemas['ExtremeSeries'];
type Zoom = (from: number, to: number) => void;

const coveredOf = (coverage: Coverage, series: Series) => coverage.of.find((one) => one.deviceKey === series.deviceKey && one.point === series.point);

export function RawChart({ series, conflicts, coverage, onZoom, onPick }: {
  series: Series[]; conflicts: Conflict[]; coverage: Coverage; onZoom: Zoom; onPick: (picked: Picked) => void;
}) {
  const { t } = useWords();
  const { zone } = useZone();
  // Told anew only when other gaps are known: the chart is made of its lines.
  const known = JSON.stringify(coverage.of.map((one) => [one.deviceKey, one.point, one.gapList]));
  const lines = useMemo<Line[]>(() => series.map((one) => {
    const marks = new Map<number, string>();
    one.qualities?.forEach((quality, at) => {
      const when = one.times[at];
      if (quality != null && quality > 0 && when !== undefined && marks.size < MARKS_MAX) marks.set(when, DOUBTFUL);
    });
    for (const conflict of conflicts) {
      if (conflict.deviceKey === one.deviceKey && conflict.point === one.point) marks.set(conflict.time, CONFLICT);
    }
    return { name: `${one.deviceKey} ${one.point}`, times: one.times, values: one.values, gaps: coveredOf(coverage, one)?.gapList ?? [], marks };
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }), [series, conflicts, known]);
  if (lines.length === 0) return <Empty>{t('There are no numbers in this range.')}</Empty>;
  return (
    <Stack gap="xs">
      <Suspense fallback={<Waiting />}>
        <Chart
          lines={lines} zone={zone} onRange={onZoom} label={t('Chart of {names}; the table has the values', { names: lines.map((line) => line.name).join(', ') })}
          onPick={(line, time) => {
            const one = series[line];
            if (one) onPick({ device: one.deviceKey, point: one.point, time });
          }}
        />
      </Suspense>
      <Text size="xs" className="quiet" role="status">
        {t('{n} values read, {m} drawn; no peak is lost. Drag to zoom, click for where a value came from.', { n: count(series.reduce((sum, one) => sum + one.count, 0)), m: count(lines.reduce((sum, line) => sum + line.times.length, 0)) })}{' '}
        <Legend />
      </Text>
      <ProblemAlert error={coverage.error} title={t('Gaps are not known')} />
      <Summary series={series} coverage={coverage} onZoom={onZoom} />
    </Stack>
  );
}

export function Legend() {
  const { t } = useWords();
  return <><span className="dot" style={{ color: CONFLICT }} aria-hidden /> {t('overwritten by a different value')} <span className="dot" style={{ color: DOUBTFUL }} aria-hidden /> {t('quality above 0')}</>;
}

function Summary({ series, coverage, onZoom }: { series: Series[]; coverage: Coverage; onZoom: Zoom }) {
  const { t } = useWords();
  return (
    <Table.ScrollContainer minWidth={500} type="native" tabIndex={0} role="region" aria-label={t('Series')}>
      <Table className="numbers" aria-label={t('Series')} verticalSpacing={4}>
        <Table.Thead><Table.Tr><Table.Th>{t('Device')}</Table.Th><Table.Th>{t('Point')}</Table.Th><Table.Th ta="right">{t('Values')}</Table.Th><Table.Th ta="right">{t('Least')}</Table.Th><Table.Th ta="right">{t('Greatest')}</Table.Th><Table.Th>{t('First')}</Table.Th><Table.Th>{t('Last')}</Table.Th><Table.Th>{t('Gaps')}</Table.Th></Table.Tr></Table.Thead>
        <Table.Tbody>
          {series.map((one) => (
            <Table.Tr key={`${one.deviceKey} ${one.point}`}>
              <Table.Td>{one.deviceKey}</Table.Td><Table.Td>{one.point}</Table.Td><Table.Td ta="right">{count(one.count)}</Table.Td>
              <Table.Td ta="right">{figure(one.values.reduce((a, b) => Math.min(a, b), Infinity))}</Table.Td><Table.Td ta="right">{figure(one.values.reduce((a, b) => Math.max(a, b), -Infinity))}</Table.Td>
              <Table.Td><Time ms={one.times[0]} /></Table.Td><Table.Td><Time ms={one.times.at(-1)} /></Table.Td>
              <Table.Td><Gaps of={coveredOf(coverage, one)} isPending={coverage.isPending} onZoom={onZoom} /></Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

/** How often nothing came for long, and for how long at most: a press shows that stretch. */
function Gaps({ of, isPending, onZoom }: { of: Covered | undefined; isPending: boolean; onZoom: Zoom }) {
  const { t } = useWords();
  if (of?.gaps === undefined) return <>{isPending ? '…' : '—'}</>;
  const longest = longestOf(of);
  if (!longest) return <>{t('none longer than {than}', { than: of.than ?? '' })}</>;
  const around = (longest.to - longest.from) / 4;
  return (
    <Anchor component="button" type="button" size="sm" onClick={() => onZoom(Math.floor(longest.from - around), Math.ceil(longest.to + around))}>
      {t('{n} gaps longer than {than}, the longest {span}', { n: count(of.gaps), than: of.than ?? '', span: span(of.longestGap ?? 0) })}
    </Anchor>
  );
}
