// Rollups and reductions: how each stands, and the ranges of time that became others.
import { Anchor, Button, Group, Select, Tabs, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Ago, count, span } from '../time';
import { Asked, Empty, FilterText, Page, State, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';
import { Changes } from './changes';
import { useProducts } from './channels';

export type Derived = Schemas['RollupStatus'];

const at = encodeURIComponent;

/** All rollups and reductions and how they stand, asked every few seconds. */
export function useDerived() {
  return useQuery({ queryKey: ['rollups'], queryFn: async () => (await ok(api.GET('/api/v1/rollups'))).items, refetchInterval: 3000 });
}

/** History as a rollup or reduction tells it. */
export const historyOf = (one: Pick<Derived, 'name' | 'product' | 'points'>, more = '') => `/history?product=${at(one.product)}&points=${at(one.points.slice(0, 4).join(','))}&rollup=${at(one.name)}${more}`;

export default function Rollups() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const tab = filters.get('tab') || 'standing';
  const make = may && <Button component={Link} to="/new-policy">{t('New policy')}</Button>;
  return (
    <Page title={t('Rollups')} about={t('Aggregates by windows, and reductions, that policies keep computed: the same as over the raw values, once it is quiet. Late data makes its windows be computed again, and no others.')} actions={make}>
      <Tabs value={tab} onChange={(tab) => filters.set({ tab: tab === 'standing' ? null : tab })} keepMounted={false}>
        <Tabs.List mb="sm"><Tabs.Tab value="standing">{t('How they stand')}</Tabs.Tab><Tabs.Tab value="changes">{t('Change feed')}</Tabs.Tab></Tabs.List>
        <Tabs.Panel value="standing"><Standings make={make} /></Tabs.Panel>
        <Tabs.Panel value="changes"><Changes /></Tabs.Panel>
      </Tabs>
    </Page>
  );
}

function Standings({ make }: { make: ReactNode }) {
  const { t } = useWords();
  const filters = useFilters();
  const [name, product, kind, state, policy] = ['name', 'product', 'kind', 'state', 'policy'].map(filters.get) as [string, string, string, string, string];
  const derived = useDerived();
  const products = useProducts();
  const fits = (one: Derived) => one.name.toLowerCase().includes(name.toLowerCase()) && (!product || one.product === product) && (!kind || one.kind === kind) && (!policy || one.policy === policy) && (!state || (state === 'failing' ? one.failures > 0 : one.state === state));
  const isFiltered = name || product || kind || state || policy;
  return (
    <>
      <Group align="flex-end" mb="sm">
        <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
        <Select label={t('Product')} w={180} clearable searchable data={(products.data ?? []).map((one) => one.name)} value={product || null} onChange={(product) => filters.set({ product })} />
        <Select label={t('Kind')} w={150} clearable value={kind || null} onChange={(kind) => filters.set({ kind })} data={[{ value: 'rollup', label: t('rollup') }, { value: 'reduction', label: t('reduction') }]} />
        <Select label={t('State')} w={210} clearable value={state || null} onChange={(state) => filters.set({ state })} data={[{ value: 'current', label: t('current') }, { value: 'behind', label: t('behind') }, { value: 'backfilling', label: t('computing what was stored') }, { value: 'failing', label: t('with failures') }]} />
        {policy && <Button variant="default" onClick={() => filters.set({ policy: null })}>{t('Policy {name}', { name: policy })} ✕</Button>}
      </Group>
      <Asked query={derived}>
        {(all) => <DerivedTable rows={all.filter(fits)} empty={<Empty action={make}>{isFiltered ? t('No rollup fits the filters.') : t('No policy has a rollup or a reduction. One that does says which windows of which points are kept computed.')}</Empty>} />}
      </Asked>
    </>
  );
}

/** How rollups and reductions stand; each leads to its values, its policy and its changes. */
export function DerivedTable({ rows, empty }: { rows: Derived[]; empty?: ReactNode }) {
  const { t } = useWords();
  return (
    <Rows
      label={t('Rollups')} rows={rows} id={(one) => `${one.name} ${one.product}`}
      columns={[
        { name: t('Name'), cell: (one) => <><Anchor component={Link} to={historyOf(one)}>{one.name}</Anchor><Text size="xs" className="quiet">{one.kind === 'rollup' ? t('rollup') : t('reduction')} · {one.interval}{one.timeZone ? ` · ${one.timeZone}` : ''}</Text></> },
        { name: t('State'), cell: (one) => <><State state={one.state} />{one.failures > 0 && <Text size="xs" maw={300} style={{ overflowWrap: 'anywhere', color: 'var(--mantine-color-error)' }}>{t('{n} failures', { n: count(one.failures) })}{one.failure ? `: ${one.failure}` : ''}</Text>}</> },
        { name: t('Product'), cell: (one) => <Anchor component={Link} to={`/products?name=${at(one.product)}`}>{one.product}</Anchor> },
        { name: t('Points'), cell: (one) => <Text size="sm" maw={200} style={{ overflowWrap: 'anywhere' }}>{one.points.join(', ')}</Text> },
        { name: t('Policy'), cell: (one) => <Anchor component={Link} to={`/policies/${at(one.policy)}`}>{one.policy}</Anchor> },
        { name: t('Dirty spans'), right: true, cell: (one) => <>{count(one.dirtySpans)}<Text size="xs" className="quiet">{t('{n} devices', { n: count(one.dirtyDevices) })}{one.waitedMs != null && one.dirtySpans > 0 ? ` · ${t('waits {span}', { span: span(one.waitedMs) })}` : ''}</Text></> },
        { name: t('Lag, commits'), right: true, cell: (one) => count(one.lagCommits) },
        { name: t('Rows computed'), right: true, cell: (one) => count(one.rowsComputed) },
        { name: t('Computed'), cell: (one) => <Anchor component={Link} to={`/rollups?tab=changes&rollup=${at(one.name)}`}><Ago ms={one.computed ?? undefined} /></Anchor> },
      ]}
      empty={empty}
    />
  );
}

/** What is read in place of raw values, and whether it is complete. */
export function DerivedNote({ of }: { of: Derived }) {
  const { t } = useWords();
  return (
    <Group gap="sm" role="status" data-testid="derived">
      <State state={of.state} />
      <Text size="sm">
        {of.kind === 'rollup' ? t('Windows of {interval}, kept computed', { interval: of.interval }) : t('What the reduction keeps of the values')}{of.timeZone ? ` · ${of.timeZone}` : ''} · <Anchor component={Link} size="sm" to={`/policies/${at(of.policy)}`}>{of.policy}</Anchor> · <Anchor component={Link} size="sm" to={`/rollups?name=${at(of.name)}`}>{t('how it stands')}</Anchor>
      </Text>
    </Group>
  );
}
