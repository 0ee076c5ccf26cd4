import { Alert, Anchor, Badge, Card, List, SimpleGrid, Text, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { LogEntry } from '../api/types';
import { useWords } from '../i18n';
import { useLive } from '../live';
import { Time, bytes, count } from '../time';
import { Asked, Empty, Page, Sparkline, Stat, State } from '../ui/page';
import { Code } from '../ui/problem';
import { Rows } from '../ui/rows';
import { Lasts } from './growth';
import { Archived, Computed, Imported } from './overview-derived';
import { Lags, Readers, Troubled } from './overview-forwarding';

const POINTS = 120;

export default function Overview() {
  const { t } = useWords();
  const [rates, setRates] = useState<number[]>([]);
  const live = useLive(undefined, (overview) => setRates((rates) => [...rates.slice(1 - POINTS), overview.valuesPerSecond]));
  // The first figures, and those of a browser whose stream does not come through.
  const asked = useQuery({ queryKey: ['overview'], queryFn: () => ok(api.GET('/api/v1/overview')), refetchInterval: live.connected ? false : 5000 });
  const query = { ...asked, data: live.overview ?? asked.data };
  return (
    <Page
      title={t('Overview')}
      actions={<Badge variant="light" color={live.connected ? 'green' : 'orange'} role="status" data-testid="live">{live.connected ? t('live') : t('connecting…')}</Badge>}
    >
      <Asked query={query}>
        {(overview) => (
          <>
            {(!overview.ready || overview.warnings.length > 0) && (
              <Alert color={overview.ready ? 'yellow' : 'red'} variant="light" title={overview.ready ? t('Somebody should look at this') : t('No messages are taken')}>
                <List size="sm">{[...overview.reasons, ...overview.warnings].map((text) => <List.Item key={text}>{text}</List.Item>)}</List>
              </Alert>
            )}
            <SimpleGrid cols={{ base: 2, md: 3, lg: 5 }}>
              <Stat label={t('Channels open')} value={count(overview.channels.open)} to="/channels?state=open" detail={t('{n} clients connected', { n: overview.channels.clients })} />
              <Stat label={t('Channels paused')} value={count(overview.channels.paused)} to="/channels?state=paused" />
              <Stat label={t('Channels held')} value={count(overview.channels.held)} to="/channels?state=held" tone={overview.channels.held > 0 ? 'warn' : undefined} />
              <Stat label={t('In quarantine')} value={count(overview.quarantine.entries)} to="/quarantine" tone={overview.quarantine.full ? 'bad' : overview.quarantine.entries > 0 ? 'warn' : undefined} detail={t('{bytes} of {max}', { bytes: bytes(overview.quarantine.bytes), max: bytes(overview.quarantine.bytesMax) })} />
              <Stat label={t('Values a second')} value={count(overview.valuesPerSecond)} to="/channels" detail={t('{n} messages a second', { n: count(overview.messagesPerSecond) })} />
              <Stat label={t('Values taken since the start')} value={count(overview.values)} to="/storage" detail={t('{n} in segments, {m} sent again, {k} in conflict', { n: count(overview.store.values), m: count(overview.store.duplicates), k: count(overview.store.conflicts) })} />
              <Stat label={t('Devices')} value={count(overview.devices)} to="/devices" detail={<><Link to="/products">{t('{n} products', { n: count(overview.products) })}</Link> · <Link to="/models">{t('{n} models', { n: count(overview.models) })}</Link></>} />
              <Stat label={t('Disk free')} value={overview.diskFreeBytes == null ? '—' : bytes(overview.diskFreeBytes)} to="/storage" tone={overview.ready ? undefined : 'bad'} detail={t('{bytes} in segments, {log} in the log', { bytes: bytes(overview.store.segmentBytes), log: bytes(overview.store.logBytes) })} />
              <Lasts growth={overview.growth} />
              <Readers />
              <Lags />
              <Computed />
              <Archived />
              <Imported />
            </SimpleGrid>
            <Card withBorder padding="sm">
              <Text size="sm" className="quiet">{t('Values a second, the last two minutes')}</Text>
              <Rate rates={rates} label={t('Values a second, the last two minutes')} />
            </Card>
            <Troubled />
            <SimpleGrid cols={{ base: 1, lg: 2 }}>
              <section>
                <Title order={2} size="h4" mb="xs">{t('Channels that refuse most')}</Title>
                <Rows
                  label={t('Channels that refuse most')} rows={overview.failing} id={(channel) => channel.name}
                  columns={[
                    { name: t('Channel'), cell: (c) => <Anchor component={Link} to={`/channels/${encodeURIComponent(c.name)}/log?kind=error`}>{c.name}</Anchor> },
                    { name: t('State'), cell: (c) => <State state={c.state} /> },
                    { name: t('Refused'), right: true, cell: (c) => <Anchor component={Link} to={`/quarantine?channel=${encodeURIComponent(c.name)}`}>{count(c.refused)}</Anchor> },
                    { name: t('Last 24 hours'), cell: (c) => <Sparkline hours={c.hours} label={t('{n} messages, {m} refused', { n: c.messages, m: c.refused })} /> },
                  ]}
                  empty={<Empty>{t('No channel has refused a message in the last 24 hours.')}</Empty>}
                />
              </section>
              <section>
                <Title order={2} size="h4" mb="xs">{t('Last errors')}</Title>
                <Rows
                  label={t('Last errors')} rows={overview.lastErrors as unknown as LogEntry[]} id={(entry) => `${entry.time} ${entry.channel} ${entry.message ?? ''}`}
                  columns={[
                    { name: t('Time'), cell: (entry) => <Time ms={entry.time} /> },
                    { name: t('Channel'), cell: (entry) => <Anchor component={Link} to={`/channels/${encodeURIComponent(entry.channel)}/log?kind=error`}>{entry.channel}</Anchor> },
                    { name: t('What'), cell: (entry) => <><Anchor component={Link} to={`/quarantine?channel=${encodeURIComponent(entry.channel)}${entry.code === undefined ? '' : `&code=${entry.code}`}`}><Code code={entry.code} /></Anchor> <Text size="sm" span style={{ overflowWrap: 'anywhere' }}>{entry.message}</Text></> },
                  ]}
                  empty={<Empty>{t('No errors since the gateway started.')}</Empty>}
                />
              </section>
            </SimpleGrid>
          </>
        )}
      </Asked>
    </Page>
  );
}

/** Two minutes of one figure. */
function Rate({ rates, label }: { rates: number[]; label: string }) {
  const most = Math.max(1, ...rates);
  const points = rates.map((rate, at) => `${((POINTS - rates.length + at) / (POINTS - 1)) * 100},${38 - (rate / most) * 36}`).join(' ');
  return (
    <svg viewBox="0 0 100 40" preserveAspectRatio="none" width="100%" height={90} role="img" aria-label={`${label}: ${count(rates.at(-1) ?? 0)}`}>
      <polyline points={points} fill="none" stroke="var(--mantine-primary-color-filled)" strokeWidth={1.5} vectorEffect="non-scaling-stroke" />
    </svg>
  );
}
