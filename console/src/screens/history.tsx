// History: pick devices and points, see them as a chart or a table, follow a value to its message,
// export.
import { Alert, Anchor, Button, Drawer, Group, MultiSelect, Select, Stack, Table, Tabs, TagsInput, Text } from '@mantine/core';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { Suspense, lazy, useMemo, useState } from 'react';
import { Link } from 'react-router';
import { api, download, ok } from '../api/client';
import type { Conflict, DeviceFile, ModelFile, Page as PageOf } from '../api/types';
import { useWords } from '../i18n';
import { Time, count, figure, span, useTime, useZone } from '../time';
import { Asked, Empty, FilterText, Page, Pairs, Waiting, useFilters } from '../ui/page';
import { useProducts } from './channels';
import { RollupFilters, RollupTable, TooMany, functionsOf, linesOf, useRollup } from './rollup';
import type { Line } from '../ui/chart';
import { gapsOf } from '../ui/gaps';

const Chart = lazy(() => import('../ui/chart'));

const CONFLICT = '#e8590c';
const DOUBTFUL = '#f08c00';
const BUCKETS = 1000;
/** Beyond, marks would hide the line. */
const MARKS_MAX = 2000;

type Row = { deviceKey: string; time: number } & Record<string, unknown>;
type Picked = { device: string; point: string; time: number };

export default function History() {
  const { t } = useWords();
  const filters = useFilters();
  const { zone } = useZone();
  const time = useTime();
  const [picked, setPicked] = useState<Picked>();
  const [search, setSearch] = useState('');
  const [product, device, points, from, to] = ['product', 'device', 'points', 'from', 'to'].map(filters.get) as [string, string, string, string, string];
  const view = filters.get('view') || 'chart';
  const products = useProducts();
  const chosen = (products.data ?? []).find((p) => p.name === product);
  const model = useQuery({
    queryKey: ['model', chosen?.model], enabled: chosen !== undefined,
    queryFn: async () => (await ok(api.GET('/api/v1/models/{name}', { params: { path: { name: chosen?.model ?? '' } } }))) as unknown as ModelFile,
  });
  const devices = useQuery({
    queryKey: ['devices', 'keys', product, search], enabled: product !== '',
    queryFn: async () => ((await ok(api.GET('/api/v1/devices', { params: { query: { product, limit: 50, ...(search && { name: search }) } } }))).items as unknown as DeviceFile[]).map((d) => d.key ?? d.name),
  });
  const keys = device ? device.split(',') : [];
  const names = points ? points.split(',') : [];
  const query = { product, device, points, ...(from && { from }), ...(to && { to }) };
  const every = filters.get('every');
  const functions = functionsOf(filters.get('fn'));
  const rollup = useRollup(query, every, functions, zone);
  const isAsked = product !== '' && keys.length > 0 && names.length > 0;
  const series = useQuery({
    queryKey: ['extremes', query], enabled: isAsked && view === 'chart' && !every,
    queryFn: () => ok(api.GET('/api/v1/points/extremes', { params: { query: { ...query, buckets: BUCKETS } } })),
    placeholderData: (before) => before,
  });
  const conflicts = useQuery({
    queryKey: ['conflicts', query], enabled: isAsked,
    queryFn: async () => {
      const { device: _, points: __, ...range } = query;
      const found = await Promise.all(keys.map((device) => ok(api.GET('/api/v1/conflicts', { params: { query: { ...range, device, points, limit: 1000 } } }))));
      return found.flatMap((page) => (page as unknown as PageOf<Conflict>).items);
    },
  });
  const lines = useMemo<Line[]>(() => (series.data?.series ?? []).map((one) => {
    const marks = new Map<number, string>();
    one.qualities?.forEach((quality, at) => {
      const when = one.times[at];
      if (quality != null && quality > 0 && when !== undefined && marks.size < MARKS_MAX) marks.set(when, DOUBTFUL);
    });
    for (const conflict of conflicts.data ?? []) {
      if (conflict.deviceKey === one.deviceKey && conflict.point === one.point) marks.set(conflict.time, CONFLICT);
    }
    return { name: `${one.deviceKey} ${one.point}`, times: one.times, values: one.values, bucketMs: one.bucketMs, marks };
  }), [series.data, conflicts.data]);
  const windows = useMemo(() => linesOf(rollup.data?.windows ?? []), [rollup.data]);
  const parameters = new URLSearchParams(query);
  const exported = every
    ? `/api/v1/points/aggregates?${new URLSearchParams({ ...query, aggregate: functions.join(','), interval: every, timezone: zone })}`
    : `/api/v1/points?${parameters}&quality=true`;
  const zoom = (from: number, to: number) => filters.set({ from: new Date(from).toISOString(), to: new Date(to).toISOString() });
  return (
    <Page
      title={t('History')}
      actions={isAsked && <>
        <Button variant="default" onClick={() => download(`${exported}&format=csv`)}>CSV</Button>
        <Button variant="default" onClick={() => download(`${exported}&format=ndjson`)}>NDJSON</Button>
        <Button variant="default" onClick={() => download(`${exported}&format=parquet`)}>Parquet</Button>
      </>}
    >
      <Group align="flex-end">
        <Select label={t('Product')} w={150} searchable data={(products.data ?? []).map((p) => p.name)} value={product || null} onChange={(product) => filters.set({ product, device: null, points: null })} />
        <TagsInput label={t('Devices')} w={250} data={devices.data ?? []} value={keys} searchValue={search} onSearchChange={setSearch} onChange={(keys) => filters.set({ device: keys.join(',') })} disabled={!product} maxTags={20} />
        <MultiSelect label={t('Points')} w={230} searchable data={Object.keys(model.data?.measurepoints ?? {})} value={names} onChange={(names) => filters.set({ points: names.join(',') })} disabled={!product} />
        <FilterText label={t('From')} value={from} onChange={(from) => filters.set({ from })} placeholder="2014-01-01T00:00Z" w={175} />
        <FilterText label={t('To')} value={to} onChange={(to) => filters.set({ to })} placeholder="2015-01-01T00:00Z" w={175} />
        <RollupFilters every={every} functions={functions} onChange={filters.set} />
        {(from || to) && <Button variant="default" onClick={() => filters.set({ from: null, to: null })}>{t('All times')}</Button>}
      </Group>
      {!isAsked ? <Empty>{t('Pick a product, devices and points.')}</Empty> : (
        <Tabs value={view} onChange={(view) => filters.set({ view: view === 'chart' ? null : view })} keepMounted={false}>
          <Tabs.List mb="sm"><Tabs.Tab value="chart">{t('Chart')}</Tabs.Tab><Tabs.Tab value="table">{t('Table')}</Tabs.Tab><Tabs.Tab value="conflicts">{t('Conflicts')} {conflicts.data ? `(${conflicts.data.length})` : ''}</Tabs.Tab></Tabs.List>
          <Tabs.Panel value="chart">
            {every ? (
              <Asked query={rollup}>
                {(found) => windows.length === 0 ? <Empty>{t('There are no numbers in this range.')}</Empty> : (
                  <Stack gap="xs">
                    <TooMany rollup={found} />
                    <Suspense fallback={<Waiting />}>
                      <Chart
                        lines={windows} zone={zone} onRange={zoom} label={t('Chart of {names}; the table has the values', { names: windows.map((line) => line.name).join(', ') })}
                        onPick={(line, time) => {
                          const times = windows[line]?.times ?? [];
                          const next = times[times.indexOf(time) + 1];
                          filters.set({ every: null, from: new Date(time).toISOString(), ...(next !== undefined && { to: new Date(next).toISOString() }) });
                        }}
                      />
                    </Suspense>
                    <Text size="xs" className="quiet" role="status">{t('{n} windows. Drag to zoom, click for the raw values of a window.', { n: count(found.windows.length) })}</Text>
                  </Stack>
                )}
              </Asked>
            ) : <Asked query={series}>
              {(found) => lines.length === 0 ? <Empty>{t('There are no numbers in this range.')}</Empty> : (
                <Stack gap="xs">
                  <Suspense fallback={<Waiting />}>
                    <Chart
                      lines={lines} zone={zone} onRange={zoom}
                      label={t('Chart of {names}; the table has the values', { names: lines.map((line) => line.name).join(', ') })}
                      onPick={(line, time) => {
                        const one = found.series[line];
                        if (one) setPicked({ device: one.deviceKey, point: one.point, time });
                      }}
                    />
                  </Suspense>
                  <Text size="xs" className="quiet" role="status">
                    {t('{n} values read, {m} drawn; no peak is lost. Drag to zoom, click for where a value came from.', { n: count(found.series.reduce((sum, one) => sum + one.count, 0)), m: count(lines.reduce((sum, line) => sum + line.times.length, 0)) })}{' '}
                    <span className="dot" style={{ color: CONFLICT }} aria-hidden /> {t('overwritten by a different value')} <span className="dot" style={{ color: DOUBTFUL }} aria-hidden /> {t('quality above 0')}
                  </Text>
                  <Summary series={found.series} onZoom={zoom} />
                </Stack>
              )}
            </Asked>}
          </Tabs.Panel>
          <Tabs.Panel value="table">
            {every
              ? <Asked query={rollup}>{(found) => <Stack><TooMany rollup={found} /><RollupTable rollup={found} names={names.flatMap((name) => functions.map((fn) => `${name}.${fn}`))} /></Stack>}</Asked>
              : <Values query={query} names={names} onPick={setPicked} conflicts={conflicts.data ?? []} />}
          </Tabs.Panel>
          <Tabs.Panel value="conflicts">
            <Asked query={conflicts}>
              {(found) => found.length === 0 ? <Empty>{t('No value in this range was overwritten by a different one.')}</Empty> : (
                <Table.ScrollContainer minWidth={600} type="native" tabIndex={0} role="region" aria-label={t('Conflicts')} mah={560}>
                  <Table className="numbers" aria-label={t('Conflicts')} striped>
                    <Table.Thead><Table.Tr><Table.Th>{t('Device')}</Table.Th><Table.Th>{t('Point')}</Table.Th><Table.Th>{t('Time')}</Table.Th><Table.Th>{t('Overwritten')}</Table.Th><Table.Th>{t('Kept')}</Table.Th><Table.Th>{t('Receipts')}</Table.Th></Table.Tr></Table.Thead>
                    <Table.Tbody>
                      {found.map((c, at) => (
                        <Table.Tr key={at}><Table.Td>{c.deviceKey}</Table.Td><Table.Td>{c.point}</Table.Td><Table.Td>{time(c.time)}</Table.Td><Table.Td>{JSON.stringify(c.overwritten)}</Table.Td><Table.Td>{JSON.stringify(c.kept)}</Table.Td><Table.Td className="mono">{c.overwrittenReceipt} → {c.keptReceipt}</Table.Td></Table.Tr>
                      ))}
                    </Table.Tbody>
                  </Table>
                </Table.ScrollContainer>
              )}
            </Asked>
          </Tabs.Panel>
        </Tabs>
      )}
      <Drawer opened={picked !== undefined} onClose={() => setPicked(undefined)} position="right" size="md" title={t('Where a value came from')} closeButtonProps={{ 'aria-label': t('Close') }}>
        {picked && <Lineage product={product} picked={picked} />}
      </Drawer>
    </Page>
  );
}

interface Series { deviceKey: string; point: string; count: number; bucketMs: number; times: number[]; values: number[] }

/** What the chart shows, for those who cannot see it. */
function Summary({ series, onZoom }: { series: Series[]; onZoom: (from: number, to: number) => void }) {
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
              <Table.Td><Gaps of={one} onZoom={onZoom} /></Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

/** How often nothing came for long, and for how long at most: a press shows that stretch. */
function Gaps({ of, onZoom }: { of: Series; onZoom: (from: number, to: number) => void }) {
  const { t } = useWords();
  const gaps = gapsOf(of);
  const longest = gaps.reduce((a, b) => (b.to - b.from > a.to - a.from ? b : a), { from: 0, to: 0 });
  if (gaps.length === 0) return <>{t('none')}</>;
  const around = (longest.to - longest.from) / 4;
  return <Anchor component="button" type="button" size="sm" onClick={() => onZoom(Math.floor(longest.from - around), Math.ceil(longest.to + around))}>{t('{n} gaps, the longest {span}', { n: gaps.length, span: span(longest.to - longest.from) })}</Anchor>;
}

function Values({ query, names, onPick, conflicts }: { query: Record<string, string>; names: string[]; onPick: (picked: Picked) => void; conflicts: Conflict[] }) {
  const { t } = useWords();
  const rows = useInfiniteQuery({
    queryKey: ['points', query],
    queryFn: async ({ pageParam }) => (await ok(api.GET('/api/v1/points', { params: { query: { ...query, quality: true, limit: 200, ...(pageParam && { cursor: pageParam }) } } }))) as unknown as PageOf<Row>,
    initialPageParam: '',
    getNextPageParam: (last) => last.next,
  });
  const clashes = new Set(conflicts.map((c) => `${c.deviceKey} ${c.point} ${c.time}`));
  return (
    <Asked query={rows}>
      {({ pages }) => pages[0]?.items.length === 0 ? <Empty>{t('Nothing is stored in this range.')}</Empty> : (
        <Stack>
          <Table.ScrollContainer minWidth={500} type="native" tabIndex={0} role="region" aria-label={t('Values')} mah={560}>
            <Table className="numbers" aria-label={t('Values')} striped stickyHeader verticalSpacing={4}>
              <Table.Thead><Table.Tr><Table.Th>{t('Time')}</Table.Th><Table.Th>{t('Device')}</Table.Th>{names.map((name) => <Table.Th key={name} ta="right">{name}</Table.Th>)}</Table.Tr></Table.Thead>
              <Table.Tbody>
                {pages.flatMap((page) => page.items).map((row) => (
                  <Table.Tr key={`${row.deviceKey} ${row.time}`}>
                    <Table.Td><Time ms={row.time} /></Table.Td><Table.Td>{row.deviceKey}</Table.Td>
                    {names.map((name) => {
                      const cell = row[name];
                      if (cell === undefined) return <Table.Td key={name} />;
                      const graded = cell !== null && typeof cell === 'object' && 'quality' in cell ? (cell as { value: unknown; quality: number }) : undefined;
                      const isClash = clashes.has(`${row.deviceKey} ${name} ${row.time}`);
                      return (
                        <Table.Td key={name} ta="right">
                          <Anchor component="button" type="button" size="sm" c="inherit" onClick={() => onPick({ device: row.deviceKey, point: name, time: row.time })}>{JSON.stringify(graded ? graded.value : cell)}</Anchor>
                          {graded && <Text size="xs" span> q{graded.quality}</Text>}{isClash && <Text size="xs" span title={t('overwritten by a different value')}> ⚠</Text>}
                        </Table.Td>
                      );
                    })}
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          {rows.hasNextPage && <Button variant="default" loading={rows.isFetchingNextPage} onClick={() => void rows.fetchNextPage()}>{t('More')}</Button>}
        </Stack>
      )}
    </Asked>
  );
}

function Lineage({ product, picked }: { product: string; picked: Picked }) {
  const { t } = useWords();
  const query = useQuery({
    queryKey: ['lineage', product, picked],
    queryFn: () => ok(api.GET('/api/v1/points/lineage', { params: { query: { product, ...picked } } })),
  });
  return (
    <Asked query={query}>
      {(found) => (
        <Stack data-testid="lineage">
          <Pairs of={[
            [t('Device'), found.deviceKey], [t('Point'), found.point], [t('Time'), <Time key="t" ms={found.time} exact />],
            [t('Channel'), found.channel ? <Anchor key="c" component={Link} to={`/channels/${encodeURIComponent(found.channel)}/log?text=${encodeURIComponent(found.receipt)}`}>{found.channel}</Anchor> : '—'],
            [t('Arrived'), <Time key="a" ms={found.arrived ?? undefined} exact />],
            [t('Client'), <span key="k" className="mono">{found.clientId ?? '—'}</span>],
            [t('Topic'), <span key="o" className="mono">{found.topic ?? '—'}</span>],
            [t('Message'), <span key="m" className="mono">{found.messageId ?? '—'}</span>],
            [t('Receipt'), <span key="r" className="mono">{found.receipt}</span>],
          ]} />
          {found.channel == null && <Alert color="gray" variant="light">{t('The message is too old to be known.')}</Alert>}
          {found.channel != null && <Anchor component={Link} to={`/channels/${encodeURIComponent(found.channel)}/messages?receipt=${encodeURIComponent(found.receipt)}`}>{t('Look for the message in the flight recorder')}</Anchor>}
        </Stack>
      )}
    </Asked>
  );
}
