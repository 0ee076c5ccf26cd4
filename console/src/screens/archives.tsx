// Archives: history as files elsewhere; how each stands.
import { Anchor, Button, Group, Select, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { ArchiveStanding } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Ago, Time, bytes, count } from '../time';
import { Asked, Empty, FilterText, Page, State, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';

/** All archives and how they stand, asked every few seconds. */
export function useArchives() {
  return useQuery({
    queryKey: ['archives'],
    queryFn: async () => (await ok(api.GET('/api/v1/archive-status'))).items as unknown as ArchiveStanding[],
    refetchInterval: 3000,
  });
}

export const archiveTo = (name: string, tab = '') => `/archives/${encodeURIComponent(name)}${tab && `/${tab}`}`;

export default function Archives() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const [name, state] = [filters.get('name'), filters.get('state')];
  const archives = useArchives();
  const fits = (one: ArchiveStanding) => one.name.toLowerCase().includes(name.toLowerCase()) && (!state || one.state === state);
  const make = may && <Button component={Link} to="/new-archive">{t('New archive')}</Button>;
  return (
    <Page title={t('Archives')} about={t('An archive writes history as Parquet or CSV files, by product and day, into a folder or a bucket, and again where late data changed a day.')} actions={make}>
      <Group align="flex-end">
        <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
        <Select label={t('State')} w={160} clearable value={state || null} onChange={(state) => filters.set({ state })} data={[{ value: 'running', label: t('running') }, { value: 'idle', label: t('idle') }, { value: 'stopped', label: t('stopped') }, { value: 'failed', label: t('failed') }]} />
      </Group>
      <Asked query={archives}>
        {(all) => (
          <Rows
            label={t('Archives')} rows={all.filter(fits)} id={(one) => one.name}
            columns={[
              { name: t('Archive'), cell: (a) => <Anchor component={Link} to={archiveTo(a.name)}>{a.name}</Anchor> },
              { name: t('State'), cell: (a) => <><State state={a.state} />{a.lastRun?.error && <Text size="xs" maw={340} style={{ overflowWrap: 'anywhere' }}>{a.lastRun.error}</Text>}</> },
              { name: t('Last run'), cell: (a) => <Ago ms={a.lastRun?.began} /> },
              { name: t('Next run'), cell: (a) => (a.nextRun === undefined ? t('when it is told to') : <Time ms={a.nextRun} />) },
              { name: t('Days due'), right: true, cell: (a) => <Anchor component={Link} to={archiveTo(a.name, 'due')}>{count(a.daysDue)}</Anchor> },
              { name: t('Files'), right: true, cell: (a) => <Anchor component={Link} to={archiveTo(a.name, 'files')}>{count(a.files)}</Anchor> },
              { name: t('Rows'), right: true, cell: (a) => count(a.rows) },
              { name: t('Size'), right: true, cell: (a) => bytes(a.bytes) },
            ]}
            empty={<Empty action={make}>{name || state ? t('No archive fits the filters.') : t('There is no archive yet: history is kept here only.')}</Empty>}
          />
        )}
      </Asked>
    </Page>
  );
}
