// History: pick devices and points, see them as a chart or a table, raw or in windows of time, follow a
// value to its message, export.
import { Button, Drawer, Group, MultiSelect, Select, Stack, Tabs, TagsInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { Link } from 'react-router';
import { api, download, ok } from '../api/client';
import type { DeviceFile, ModelFile } from '../api/types';
import { useWords } from '../i18n';
import { count, useZone } from '../time';
import { Asked, Empty, FilterText, Page, useFilters } from '../ui/page';
import { useProducts } from './channels';
import { LENGTH_CHOICES, useCoverage } from './coverage';
import { Brush } from './history-brush';
import { RawChart } from './history-chart';
import { ConflictTable, OfImport, useConflicts } from './history-conflicts';
import { Lineage, type Picked } from './history-lineage';
import { Values } from './history-table';
import { RollupChart, RollupFilters, RollupTable, TooMany, addressOf, columnsOf, functionsOf, isWindows, useRollup } from './rollup';
import { DerivedNote, useDerived } from './rollups';
import { statementOf } from './sql-ask';

const BUCKETS = 1000;
const DEVICES_FIRST = 2;

/** An instant as it stands in the address; undefined where it is none that a browser reads. */
function instant(text: string): number | undefined {
  const ms = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  return text && Number.isFinite(ms) ? ms : undefined;
}

export default function History() {
  const { t } = useWords();
  const filters = useFilters();
  const { zone } = useZone();
  const [picked, setPicked] = useState<Picked>();
  const [search, setSearch] = useState('');
  const [product, device, points, from, to, every, than] = ['product', 'device', 'points', 'from', 'to', 'every', 'gap'].map(filters.get) as [string, string, string, string, string, string, string];
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
  const first = devices.data?.slice(0, DEVICES_FIRST).join(',');
  useEffect(() => {
    // A link to a rollup names no device: the first ones are shown.
    if (filters.get('rollup') && !device && first) filters.set({ device: first });
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [device, first]);
  const keys = device ? device.split(',') : [];
  const names = points ? points.split(',') : [];
  const query = { product, device, points, ...(from && { from }), ...(to && { to }) };
  const derived = useDerived();
  const kept = derived.data?.find((one) => one.name === filters.get('rollup') && one.product === product);
  const isReduced = kept?.kind === 'reduction';
  const source = { every: isReduced ? '' : (kept?.interval ?? every), functions: functionsOf(filters.get('fn'), kept), kept };
  const inWindows = isWindows(source);
  const rollup = useRollup(query, source, zone);
  const isAsked = product !== '' && keys.length > 0 && names.length > 0;
  const isRaw = isAsked && view === 'chart' && !inWindows && !(filters.get('rollup') && derived.isPending);
  const series = useQuery({
    queryKey: ['extremes', query], enabled: isRaw,
    queryFn: () => ok(api.GET('/api/v1/points/extremes', { params: { query: { ...query, buckets: BUCKETS } } })),
    placeholderData: (before) => before,
  });
  const coverage = useCoverage(query, than, isRaw);
  // The list of conflicts is of all there are, until something is picked. Charts and tables mark them all.
  const ofImport = view === 'conflicts' ? filters.get('import') : '';
  const conflicts = useConflicts(query, ofImport, isAsked || view === 'conflicts');
  const clashes = conflicts.data?.items ?? NONE;
  const parameters = new URLSearchParams(query);
  const exported = inWindows ? `${addressOf(query, source, zone)}${isReduced ? '&processing=true' : ''}` : `/api/v1/points?${parameters}&quality=true`;
  const range = (from: number | undefined, to: number | undefined) => filters.set({ from: from === undefined ? null : new Date(from).toISOString(), to: to === undefined ? null : new Date(to).toISOString() });
  const toRaw = (from: number, to: number | undefined) => filters.set({ every: null, rollup: null, from: new Date(from).toISOString(), ...(to !== undefined && { to: new Date(to).toISOString() }) });
  const pick = <Empty>{t('Pick a product, devices and points.')}</Empty>;
  return (
    <Page
      title={t('History')}
      actions={isAsked && <>
        <Button variant="default" component={Link} to={`/sql?${new URLSearchParams({ sql: statementOf(product, keys, names, instant(from), instant(to)) })}`}>SQL</Button>
        <Button variant="default" onClick={() => download(`${exported}&format=csv`)}>CSV</Button>
        <Button variant="default" onClick={() => download(`${exported}&format=ndjson`)}>NDJSON</Button>
        <Button variant="default" onClick={() => download(`${exported}&format=parquet`)}>Parquet</Button>
      </>}
    >
      <Group align="flex-end">
        <Select label={t('Product')} w={150} searchable data={(products.data ?? []).map((p) => p.name)} value={product || null} onChange={(product) => filters.set({ product, device: null, points: null, rollup: null })} />
        <TagsInput label={t('Devices')} w={250} data={devices.data ?? []} value={keys} searchValue={search} onSearchChange={setSearch} onChange={(keys) => filters.set({ device: keys.join(',') })} disabled={!product} maxTags={20} />
        <MultiSelect label={t('Points')} w={230} searchable data={Object.keys(model.data?.measurepoints ?? {})} value={names} onChange={(names) => filters.set({ points: names.join(',') })} disabled={!product} />
        <FilterText label={t('From')} value={from} onChange={(from) => filters.set({ from })} placeholder="2014-01-01T00:00Z" w={175} />
        <FilterText label={t('To')} value={to} onChange={(to) => filters.set({ to })} placeholder="2015-01-01T00:00Z" w={175} />
        <RollupFilters product={product} source={source} onChange={filters.set} />
        {!inWindows && <Select label={t('Gaps longer than')} w={150} clearable placeholder={t('by each point’s pace')} data={LENGTH_CHOICES} value={than || null} onChange={(gap) => filters.set({ gap })} />}
        {(from || to) && <Button variant="default" onClick={() => filters.set({ from: null, to: null })}>{t('All times')}</Button>}
      </Group>
      <Tabs value={view} onChange={(view) => filters.set({ view: view === 'chart' ? null : view })} keepMounted={false}>
        <Tabs.List mb="sm"><Tabs.Tab value="chart">{t('Chart')}</Tabs.Tab><Tabs.Tab value="table">{t('Table')}</Tabs.Tab><Tabs.Tab value="conflicts">{t('Conflicts')} {conflicts.data ? `(${count(conflicts.data.total)})` : ''}</Tabs.Tab></Tabs.List>
        <Tabs.Panel value="chart">
          {!isAsked ? pick : <Stack gap="sm">
            {kept && <DerivedNote of={kept} />}
            {inWindows
              ? <Asked query={rollup}>{(found) => <RollupChart rollup={found} every={source.every} isReduced={isReduced} conflicts={clashes} onZoom={range} onRaw={toRaw} />}</Asked>
              : <Asked query={series}>{(found) => <RawChart series={found.series} conflicts={clashes} coverage={coverage} onZoom={range} onPick={setPicked} />}</Asked>}
            <Brush product={product} device={device} points={points} from={instant(from)} to={instant(to)} onRange={range} />
          </Stack>}
        </Tabs.Panel>
        <Tabs.Panel value="table">
          {!isAsked ? pick : inWindows
            ? <Asked query={rollup}>{(found) => <Stack>{kept && <DerivedNote of={kept} />}<TooMany rollup={found} /><RollupTable rollup={found} every={source.every} conflicts={clashes} columns={columnsOf(names, source)} onRaw={toRaw} /></Stack>}</Asked>
            : <Values query={query} names={names} onPick={setPicked} conflicts={clashes} />}
        </Tabs.Panel>
        <Tabs.Panel value="conflicts">{ofImport && <OfImport id={ofImport} onAll={() => filters.set({ import: null })} />}<ConflictTable query={conflicts} /></Tabs.Panel>
      </Tabs>
      <Drawer opened={picked !== undefined} onClose={() => setPicked(undefined)} position="right" size="md" title={t('Where a value came from')} closeButtonProps={{ 'aria-label': t('Close') }}>
        {picked && <Lineage product={product} picked={picked} />}
      </Drawer>
    </Page>
  );
}

const NONE: never[] = [];
