// What the store holds and where the disk goes; which message a receipt was given for.
import { Anchor, Card, Group, SimpleGrid, Stack, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, bytes, count } from '../time';
import { Asked, FilterText, Page, Pairs, Sure, useFilters } from '../ui/page';
import { tell } from '../ui/problem';
import { useGrowthPairs } from './growth';
import { useStandings } from './subscriptions';

export default function Storage() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const client = useQueryClient();
  const receipt = filters.get('receipt').trim();
  const figures = useQuery({ queryKey: ['store'], queryFn: () => ok(api.GET('/api/v1/store')), refetchInterval: 5000 });
  const overview = useQuery({ queryKey: ['overview'], queryFn: () => ok(api.GET('/api/v1/overview')), refetchInterval: 5000 });
  const standings = useStandings();
  const growth = useGrowthPairs(overview.data?.growth);
  const kept = (standings.data ?? []).reduce((sum, one) => sum + (one.bytes ?? 0), 0);
  return (
    <Page
      title={t('Storage')} about={t('Every reply means that what it answers is in the log, on disk. From there it goes to segments, sorted and compressed.')}
      actions={may && (
        <Sure label={t('Compact now')} color="cyan" title={t('Compact now?')} onSure={async () => {
          await ok(api.POST('/api/v1/store/compact'));
          await client.invalidateQueries();
          tell(t('All that was committed is in segments, and counted.'));
        }}>{t('Everything that is committed is flushed, classified and merged. It happens by itself too; this does it at once, and takes the disk for a while.')}</Sure>
      )}
    >
      <Asked query={figures}>
        {(store) => (
          <SimpleGrid cols={{ base: 1, md: 3 }}>
            <Card withBorder component="section" aria-label={t('What is stored')}>
              <Title order={2} size="h4" mb="xs">{t('What is stored')}</Title>
              <Pairs of={[
                [t('Values'), count(store.values)], [t('Rows'), count(store.rows)], [t('Events'), count(store.events)], [t('Attribute values'), count(store.attributeValues)],
                [t('Sent again, equal'), count(store.duplicates)],
                [t('Conflicts'), <Anchor key="c" component={Link} to="/history?view=conflicts">{count(store.conflicts)}</Anchor>],
                [t('Counted'), store.classified ? t('up to the newest commit') : t('not yet up to the newest commit')],
              ]} />
            </Card>
            <Card withBorder component="section" aria-label={t('Disk')}>
              <Title order={2} size="h4" mb="xs">{t('Disk')}</Title>
              <Pairs of={[
                [t('Free'), overview.data?.diskFreeBytes == null ? '—' : bytes(overview.data.diskFreeBytes)],
                ...growth,
                [t('Segments'), `${bytes(store.segmentBytes)} · ${t('{n} files', { n: store.segments })}`], [t('Log'), bytes(store.logBytes)],
                [t('Quarantine'), <Anchor key="q" component={Link} to="/quarantine">{overview.data ? bytes(overview.data.quarantine.bytes) : '—'}</Anchor>],
                [t('Subscriptions'), <Anchor key="s" component={Link} to="/subscriptions">{bytes(kept)}</Anchor>],
                [t('In memory'), bytes(store.memtableBytes)],
              ]} />
            </Card>
            <Card withBorder component="section" aria-label={t('Commits')}>
              <Title order={2} size="h4" mb="xs">{t('Commits')}</Title>
              <Pairs of={[
                [t('Newest'), String(store.durable)], [t('In segments up to'), String(store.flushed)], [t('Log followed from'), String(store.logFrom ?? '—')],
                [t('Segments that a read joins'), String(store.overlappingSegmentsMax)],
              ]} />
            </Card>
          </SimpleGrid>
        )}
      </Asked>
      <Card withBorder component="section" aria-label={t('Receipts')}>
        <Stack>
          <Title order={2} size="h4">{t('Receipts')}</Title>
          <Group><FilterText label={t('Receipt of a reply')} value={receipt} onChange={(receipt) => filters.set({ receipt })} w={320} /></Group>
          {receipt && <Found receipt={receipt} />}
        </Stack>
      </Card>
    </Page>
  );
}

function Found({ receipt }: { receipt: string }) {
  const { t } = useWords();
  const query = useQuery({ queryKey: ['receipt', receipt], queryFn: () => ok(api.GET('/api/v1/receipts/{receipt}', { params: { path: { receipt } } })) });
  return (
    <Asked query={query}>
      {(found) => (
        <Stack data-testid="receipt" role="status">
          <Pairs of={[
            [t('Channel'), <Anchor key="c" component={Link} to={`/channels/${encodeURIComponent(found.channel)}/log?text=${encodeURIComponent(receipt)}`}>{found.channel}</Anchor>],
            [t('Arrived'), <Time key="a" ms={found.time} exact />],
            [t('Client'), <span key="k" className="mono">{found.clientId}</span>],
            [t('Topic'), <span key="o" className="mono">{found.topic}</span>],
            [t('Message'), <span key="m" className="mono">{found.messageId}</span>],
          ]} />
          <Anchor component={Link} to={`/channels/${encodeURIComponent(found.channel)}/messages?receipt=${encodeURIComponent(receipt)}`}>{t('Look for the message in the flight recorder')}</Anchor>
        </Stack>
      )}
    </Asked>
  );
}
