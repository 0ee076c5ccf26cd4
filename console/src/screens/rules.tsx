// Rules: how each stands, and the way to the editor.
import { Anchor, Button, Group, Select, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { RuleStanding } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Ago, count } from '../time';
import { Asked, Empty, FilterText, Page, State, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';

/** All rules and how they stand, asked every few seconds. */
export function useRules() {
  return useQuery({
    queryKey: ['rules'],
    queryFn: async () => (await ok(api.GET('/api/v1/rule-status'))).items as unknown as RuleStanding[],
    refetchInterval: 3000,
  });
}

export const ruleTo = (name: string, tab = '') => `/rules/${encodeURIComponent(name)}${tab && `/${tab}`}`;

export default function Rules() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const [name, state, type, to] = ['name', 'state', 'type', 'to'].map(filters.get) as [string, string, string, string];
  const rules = useRules();
  const fits = (one: RuleStanding) => one.name.toLowerCase().includes(name.toLowerCase()) && (!state || (state === 'failing' ? one.error !== undefined : one.state === state)) && (!type || one.type === type) && (!to || one.destination === to);
  const make = may && <Button component={Link} to="/new-rule">{t('New rule')}</Button>;
  const types = { points: t('points'), events: t('events'), attributes: t('attributes') };
  const destinations = { kafka: 'Kafka', webhook: t('webhook'), calculated: t('calculated points') };
  const options = (of: Record<string, string>) => Object.entries(of).map(([value, label]) => ({ value, label }));
  return (
    <Page title={t('Rules')} about={t('A rule takes what is stored, makes of it what it says, and sends that on: to Kafka, to a webhook, or back as calculated points. One that fails delays itself alone.')} actions={make}>
      <Group align="flex-end">
        <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
        <Select label={t('State')} w={140} clearable value={state || null} onChange={(state) => filters.set({ state })} data={[{ value: 'running', label: t('running') }, { value: 'idle', label: t('idle') }, { value: 'stopped', label: t('stopped') }, { value: 'failed', label: t('failed') }, { value: 'failing', label: t('delivery fails') }]} />
        <Select label={t('Listens to')} w={140} clearable value={type || null} onChange={(type) => filters.set({ type })} data={options(types)} />
        <Select label={t('Sends to')} w={180} clearable value={to || null} onChange={(to) => filters.set({ to })} data={options(destinations)} />
      </Group>
      <Asked query={rules}>
        {(all) => (
          <Rows
            label={t('Rules')} rows={all.filter(fits)} id={(one) => one.name}
            columns={[
              { name: t('Rule'), cell: (r) => <Anchor component={Link} to={ruleTo(r.name)}>{r.name}</Anchor> },
              { name: t('State'), cell: (r) => <><State state={r.error ? 'failing' : r.state} />{(r.error ?? r.reason) && <Text size="xs" maw={340} style={{ overflowWrap: 'anywhere' }}>{r.error ? <>{r.error.reason} · <Ago ms={r.error.since} /></> : r.reason}</Text>}</> },
              { name: t('Listens to'), cell: (r) => types[r.type] },
              { name: t('Sends to'), cell: (r) => destinations[r.destination] },
              { name: t('Lag, commits'), right: true, cell: (r) => (r.lag === undefined ? '—' : <Anchor component={Link} to={ruleTo(r.name)}>{count(r.lag)}</Anchor>) },
              { name: t('Records a second'), right: true, cell: (r) => (r.rate === undefined ? '—' : count(r.rate)) },
              { name: t('Published'), right: true, cell: (r) => (r.published === undefined ? '—' : count(r.published)) },
              { name: t('Dead letters'), right: true, cell: (r) => (r.deadLetters === undefined ? '—' : <Anchor component={Link} to={ruleTo(r.name, 'dead-letters')}>{count(r.deadLetters)}</Anchor>) },
            ]}
            empty={<Empty action={make}>{name || state || type || to ? t('No rule fits the filters.') : t('There is no rule yet.')}</Empty>}
          />
        )}
      </Asked>
    </Page>
  );
}
