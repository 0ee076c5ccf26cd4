// Subscriptions: how each stands, and making one.
import { Anchor, Button, Group, Modal, Select, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate } from 'react-router';
import { api, ok } from '../api/client';
import type { Standing } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { bytes, count } from '../time';
import { Asked, Empty, FilterText, Page, State, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';
import { SubscriptionForm } from './subscription-form';

/** All subscriptions and how they stand, asked every few seconds. */
export function useStandings() {
  return useQuery({
    queryKey: ['subscriptions'],
    queryFn: async () => (await ok(api.GET('/api/v1/subscription-status'))).items as unknown as Standing[],
    refetchInterval: 3000,
  });
}

/** Messages that the group which is furthest behind has not read. */
export function lagOf(standing: Standing): number {
  return Math.max(0, ...(standing.groups ?? []).map((group) => group.lag));
}

export default function Subscriptions() {
  const { t } = useWords();
  const filters = useFilters();
  const navigate = useNavigate();
  const may = useMay('operator');
  const [name, state, type, key] = ['name', 'state', 'type', 'accessKey'].map(filters.get) as [string, string, string, string];
  const standings = useStandings();
  const fits = (one: Standing) => one.name.toLowerCase().includes(name.toLowerCase()) && (!state || one.state === state) && (!type || one.type === type) && (!key || one.accessKey === key);
  const make = may && <Button onClick={() => filters.set({ new: '1' })}>{t('New subscription')}</Button>;
  return (
    <Page title={t('Subscriptions')} about={t('A subscription keeps what is stored as messages, for applications to pull with the vendor’s SDKs. A slow or absent application delays nothing.')} actions={make}>
      <Group align="flex-end">
        <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
        <Select label={t('State')} w={140} clearable value={state || null} onChange={(state) => filters.set({ state })} data={[{ value: 'running', label: t('running') }, { value: 'stopped', label: t('stopped') }, { value: 'failed', label: t('failed') }]} />
        <Select label={t('Messages are')} w={160} clearable value={type || null} onChange={(type) => filters.set({ type })} data={[{ value: 'points', label: t('points') }, { value: 'events', label: t('events') }]} />
        {key && <Button variant="default" onClick={() => filters.set({ accessKey: null })}>{t('Access key {name}', { name: key })} ✕</Button>}
      </Group>
      <Asked query={standings}>
        {(all) => (
          <Rows
            label={t('Subscriptions')} rows={all.filter(fits)} id={(one) => one.name}
            columns={[
              { name: t('Subscription'), cell: (s) => <Anchor component={Link} to={`/subscriptions/${encodeURIComponent(s.name)}`}>{s.name}</Anchor> },
              { name: t('State'), cell: (s) => <State state={s.state} /> },
              { name: t('Messages are'), cell: (s) => (s.type === 'events' ? t('events') : t('points')) },
              { name: t('Access key'), cell: (s) => <Anchor component={Link} to={`/access-keys?name=${encodeURIComponent(s.accessKey)}`}>{s.accessKey}</Anchor> },
              { name: t('Messages a second'), right: true, cell: (s) => (s.rate === undefined ? '—' : count(s.rate)) },
              { name: t('Groups'), right: true, cell: (s) => (s.groups === undefined ? '—' : <Anchor component={Link} to={`/subscriptions/${encodeURIComponent(s.name)}`}>{s.groups.length}</Anchor>) },
              { name: t('Greatest lag'), right: true, cell: (s) => (s.groups === undefined ? '—' : <Anchor component={Link} to={`/subscriptions/${encodeURIComponent(s.name)}`}>{count(lagOf(s))}</Anchor>) },
              { name: t('On disk'), right: true, cell: (s) => (s.bytes === undefined ? '—' : bytes(s.bytes)) },
            ]}
            empty={<Empty action={make}>{name || state || type || key ? t('No subscription fits the filters.') : t('There is no subscription yet.')}</Empty>}
          />
        )}
      </Asked>
      <Text size="sm"><Anchor component={Link} to="/access-keys" size="sm">{t('Access keys')}</Anchor> {t('say which application may read which subscription.')}</Text>
      {filters.get('new') && (
        <Modal opened onClose={() => filters.set({ new: null })} size="lg" title={t('New subscription')} closeButtonProps={{ 'aria-label': t('Close') }}>
          <SubscriptionForm onCancel={() => filters.set({ new: null })} onSaved={(name) => void navigate(`/subscriptions/${encodeURIComponent(name)}/connect`)} />
        </Modal>
      )}
    </Page>
  );
}
