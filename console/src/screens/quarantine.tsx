// What was refused: by cause, with a sample, its cure, and the ways out.
import { Anchor, Badge, Button, Card, Checkbox, Drawer, Group, NumberInput, SimpleGrid, Stack, Tabs, Text, Title } from '@mantine/core';
import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Link } from 'react-router';
import { api, download, lines, ok } from '../api/client';
import type { Cure, DryRun, Job, Page as PageOf, Quarantined, Selection } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, bytes, count } from '../time';
import { Asked, Empty, FilterText, Page, Pairs, Stat, Sure, useFilters } from '../ui/page';
import { DryRunOutcome, Payload, Reasons, hexOf } from '../ui/payload';
import { Code, ProblemAlert, tell } from '../ui/problem';
import { Rows } from '../ui/rows';
import { useWork } from '../ui/work';
import { useProducts } from './channels';
import { JobProgress, Redrive } from './cured';

export default function Quarantine() {
  const { t } = useWords();
  const filters = useFilters();
  const tab = filters.get('tab') || (filters.get('cause') ? 'entries' : 'causes');
  const [channel, code, device, point, cause, clientId] = ['channel', 'code', 'device', 'point', 'cause', 'client'].map(filters.get) as [string, string, string, string, string, string];
  const query = { ...(channel && { channel }), ...(code && { code: Number(code) }), ...(device && { device }), ...(point && { point }), ...(cause && { cause: Number(cause) }), ...(clientId && { clientId }) };
  const status = useQuery({ queryKey: ['quarantine', 'status'], queryFn: () => ok(api.GET('/api/v1/quarantine/status')), refetchInterval: 5000 });
  const search = new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)]));
  return (
    <Page title={t('Quarantine')} about={t('Nothing refused is lost: its bytes are here with the reason, until they are cured and driven back in, discarded, or too old.')}>
      <Asked query={status}>
        {(status) => (
          <SimpleGrid cols={{ base: 2, md: 4 }}>
            <Stat label={t('Messages')} value={count(status.entries)} to="/quarantine?tab=entries" detail={t('{bytes} of {max}', { bytes: bytes(status.bytes), max: bytes(status.bytesMax) })} tone={status.full ? 'bad' : undefined} />
            <Stat label={t('Stored by a re-drive')} value={count(status.stored)} to="/quarantine?tab=redrives" />
            <Stat label={t('Discarded')} value={count(status.discarded)} to="/quarantine?tab=redrives" />
            <Stat label={t('Too old or dropped')} value={count(status.aged + status.dropped)} to="/quarantine?tab=entries" detail={t('kept for {n} days', { n: status.ageDaysMax })} />
          </SimpleGrid>
        )}
      </Asked>
      <Group align="flex-end">
        <FilterText label={t('Channel')} value={channel} onChange={(channel) => filters.set({ channel })} />
        <NumberInput label={t('Code')} w={110} hideControls value={code} onChange={(code) => filters.set({ code: String(code) })} />
        <FilterText label={t('Device')} value={device} onChange={(device) => filters.set({ device })} />
        <FilterText label={t('Point')} value={point} onChange={(point) => filters.set({ point })} />
        <FilterText label={t('Client')} value={clientId} onChange={(client) => filters.set({ client })} placeholder="import:1" w={140} />
        {cause && <Button variant="default" onClick={() => filters.set({ cause: null })}>{t('Cause {n}', { n: cause })} ✕</Button>}
        <Button variant="default" onClick={() => download(`/api/v1/quarantine/export?${search}`)}>{t('Export')}</Button>
      </Group>
      <Tabs value={tab} onChange={(tab) => filters.set({ tab, ...(tab === 'causes' && { cause: null }) })} keepMounted={false}>
        <Tabs.List mb="sm">
          <Tabs.Tab value="causes">{t('Causes')}</Tabs.Tab><Tabs.Tab value="entries">{t('Messages')}</Tabs.Tab><Tabs.Tab value="redrives">{t('Re-drives')}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="causes"><Causes query={query} /></Tabs.Panel>
        <Tabs.Panel value="entries"><Entries query={query} /></Tabs.Panel>
        <Tabs.Panel value="redrives"><Redrives /></Tabs.Panel>
      </Tabs>
      <Drawer opened={filters.get('entry') !== ''} onClose={() => filters.set({ entry: null })} position="right" size="xl" title={t('Refused message')} closeButtonProps={{ 'aria-label': t('Close') }}>
        {filters.get('entry') && <Entry id={filters.get('entry')} />}
      </Drawer>
    </Page>
  );
}

type Query = Omit<Selection, 'ids' | 'all'>;

function Causes({ query }: { query: Query }) {
  const { t } = useWords();
  const may = useMay('operator');
  const filters = useFilters();
  const cures = useQuery({
    queryKey: ['quarantine', 'cures', query],
    queryFn: async () => ((await ok(api.GET('/api/v1/quarantine/cures', { params: { query: { ...query, limit: 100 } } }))) as unknown as PageOf<Cure>).items,
  });
  return (
    <Asked query={cures}>
      {(cures) => cures.length === 0 ? <Empty>{t('Nothing is in quarantine.')}</Empty> : (
        <Stack>
          {cures.map((cure) => (
            <Card withBorder key={cure.id} data-testid="cause" component="section" aria-label={cure.reason}>
              <Group justify="space-between" align="flex-start">
                <Stack gap={4} flex={1} miw={300}>
                  <Group gap="sm">
                    <Title order={2} size="h5"><Code code={cure.code} /></Title>
                    <Anchor component="button" type="button" size="sm" onClick={() => filters.set({ cause: String(cure.id), tab: 'entries' })}>{t('{n} messages', { n: count(cure.entries) })}</Anchor>
                    {cure.wouldCure > 0 && <Badge color="teal" variant="light">{t('{n} would be stored now', { n: count(cure.wouldCure) })}</Badge>}
                  </Group>
                  <Text size="sm" style={{ overflowWrap: 'anywhere' }}>{cure.reason}</Text>
                  <Text size="xs" className="quiet">
                    <Anchor component={Link} to={`/channels/${encodeURIComponent(cure.channel)}`} size="xs">{cure.channel}</Anchor>
                    {cure.deviceKey ? ` · ${cure.deviceKey}` : ''}{cure.point ? ` · ${cure.point}` : ''} · <Time ms={cure.first} /> – <Time ms={cure.last} />
                  </Text>
                  <Text size="sm"><b>{t('What to do')}:</b> {cure.advice} <Mend cure={cure} /></Text>
                </Stack>
                <Group gap="xs" align="flex-start">
                  <Button variant="default" onClick={() => filters.set({ entry: cure.example })}>{t('Sample')}</Button>
                  <DryRunAll selection={{ cause: cure.id }} />
                  <Redrive selection={{ cause: cure.id }} />
                  {may && <Discard selection={{ cause: cure.id }} n={cure.entries} />}
                </Group>
              </Group>
            </Card>
          ))}
        </Stack>
      )}
    </Asked>
  );
}

/** Where what caused it is mended. */
function Mend({ cure }: { cure: Cure }) {
  const { t } = useWords();
  const product = (useProducts().data ?? []).find((product) => product.key === cure.productKey);
  const link = (to: string, label: string) => <Anchor component={Link} to={to} size="sm">{label}</Anchor>;
  if (cure.code === 1257 && cure.deviceKey) return link('/devices?tab=unknown', t('Register it'));
  if (!product) return null;
  if (cure.code === 1204) return link(`/models/${encodeURIComponent(product.model)}`, t('Open the model'));
  if (cure.code === 1202) return link(`/scripts?product=${encodeURIComponent(product.name)}`, t('Open the script'));
  return null;
}

/** What a re-drive of a selection would bring, in sum. */
function DryRunAll({ selection }: { selection: Selection }) {
  const { t } = useWords();
  const [summary, setSummary] = useState<{ entries: number; stored: number; partly: number; refused: number; skipped: number }>();
  const { busy, error, work } = useWork();
  const run = () => work(async () => {
    for await (const line of lines<{ summary?: never }>('/api/v1/quarantine/dry-run', { method: 'POST', body: JSON.stringify({ selection }) })) {
      if (line.summary) setSummary(line.summary);
    }
  });
  return (
    <Stack gap={4}>
      <Button variant="default" loading={busy} onClick={() => void run()}>{t('Dry run')}</Button>
      <ProblemAlert error={error} />
      {summary && <Text size="xs" role="status" maw={200}>{t('{n} stored, {p} partly, {r} refused again, {s} skipped, of {m}', { n: summary.stored, p: summary.partly, r: summary.refused, s: summary.skipped, m: summary.entries })}</Text>}
    </Stack>
  );
}

function Discard({ selection, n }: { selection: Selection; n: number }) {
  const { t } = useWords();
  const client = useQueryClient();
  return (
    <Sure label={t('Discard')} title={t('Discard {n} messages?', { n: count(n) })} onSure={async () => {
      const gone = await ok(api.POST('/api/v1/quarantine/discard', { body: { selection, confirm: true } as never }));
      tell(t('{n} messages are gone.', { n: (gone as { discarded: number }).discarded }));
      await client.invalidateQueries({ queryKey: ['quarantine'] });
    }}>{t('What is discarded is gone for good. Export it first if it may still be needed.')}</Sure>
  );
}

function Entries({ query }: { query: Query }) {
  const { t } = useWords();
  const may = useMay('operator');
  const filters = useFilters();
  const [chosen, setChosen] = useState<string[]>([]);
  const listed = useInfiniteQuery({
    queryKey: ['quarantine', 'entries', query],
    queryFn: async ({ pageParam }) => (await ok(api.GET('/api/v1/quarantine', { params: { query: { ...query, limit: 100, ...(pageParam && { cursor: pageParam }) } } }))) as unknown as PageOf<Quarantined>,
    initialPageParam: '',
    getNextPageParam: (last) => last.next,
  });
  const toggle = (id: string) => setChosen((chosen) => (chosen.includes(id) ? chosen.filter((other) => other !== id) : [...chosen, id]));
  return (
    <Asked query={listed}>
      {({ pages }) => (
        <Stack>
          {chosen.length > 0 && may && <Group><Text size="sm">{t('{n} chosen', { n: chosen.length })}</Text><Redrive key={chosen.join()} selection={{ ids: chosen }} /><Discard selection={{ ids: chosen }} n={chosen.length} /></Group>}
          <Rows
            label={t('Refused messages')} rows={pages.flatMap((page) => page.items)} id={(e) => e.id} onSelect={(e) => filters.set({ entry: e.id })}
            columns={[
              ...(may ? [{ name: t('Choose'), cell: (e: Quarantined) => <Checkbox aria-label={t('Choose {id}', { id: e.id })} checked={chosen.includes(e.id)} onChange={() => toggle(e.id)} /> }] : []),
              { name: t('Arrived'), cell: (e) => <Time ms={e.time} exact /> },
              { name: t('Channel'), cell: (e) => e.channel },
              { name: t('Code'), cell: (e) => <Code code={e.code} /> },
              { name: t('Cause'), cell: (e) => <Text size="sm" span style={{ overflowWrap: 'anywhere' }}>{e.reason}</Text> },
              { name: t('Size'), right: true, cell: (e) => bytes(e.bytes) },
              { name: t('Tried'), right: true, cell: (e) => e.attempts },
            ]}
            empty={<Empty>{t('Nothing in quarantine fits.')}</Empty>}
          />
          {listed.hasNextPage && <Button variant="default" onClick={() => void listed.fetchNextPage()}>{t('More')}</Button>}
        </Stack>
      )}
    </Asked>
  );
}

function Entry({ id }: { id: string }) {
  const { t } = useWords();
  const path = { params: { path: { id } } };
  const query = useQuery({ queryKey: ['quarantine', 'entry', id], queryFn: async () => (await ok(api.GET('/api/v1/quarantine/{id}', path))) as unknown as Quarantined });
  const [run, setRun] = useState<DryRun>();
  const [error, setError] = useState<unknown>();
  const again = async () => {
    setError(undefined);
    try {
      setRun((await ok(api.POST('/api/v1/quarantine/{id}/run', path))) as unknown as DryRun);
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Asked query={query}>
      {(entry) => (
        <Stack>
          <Pairs of={[
            [t('Arrived'), <Time key="t" ms={entry.time} exact />],
            [t('Verdict'), <Code key="c" code={entry.code} />],
            [t('Cause'), entry.reason],
            [t('Channel'), <Anchor key="h" component={Link} to={`/channels/${encodeURIComponent(entry.channel)}`}>{entry.channel}</Anchor>],
            [t('Topic'), <span key="o" className="mono">{entry.topic}</span>],
            [t('Client'), <span key="k" className="mono">{entry.clientId}</span>],
            [t('Size'), `${bytes(entry.bytes)}${entry.truncated ? `, ${t('only its beginning is kept')}` : ''}`],
            ['SHA-256', <span key="s" className="mono">{entry.sha256}</span>],
          ]} />
          <Reasons reasons={entry.rejected} />
          <section><Title order={3} size="h5">{t('Payload')}</Title><Payload text={entry.payload} hex={hexOf(entry.payloadBase64 ?? '')} /></section>
          <Group align="flex-start"><Button onClick={() => void again()}>{t('Run again as dry run')}</Button><Redrive selection={{ ids: [entry.id] }} /></Group>
          <ProblemAlert error={error} />
          {run && <DryRunOutcome run={run} />}
        </Stack>
      )}
    </Asked>
  );
}

function Redrives() {
  const { t } = useWords();
  const jobs = useQuery({ queryKey: ['quarantine', 'redrives'], queryFn: async () => ((await ok(api.GET('/api/v1/quarantine/redrives'))) as unknown as PageOf<Job>).items });
  return (
    <Asked query={jobs}>
      {(jobs) => (
        <Rows
          label={t('Re-drives')} rows={jobs} id={(job) => String(job.id)}
          columns={[
            { name: t('Begun'), cell: (job) => <Time ms={job.began} /> },
            { name: t('Ended'), cell: (job) => <Time ms={job.ended} /> },
            { name: t('Messages'), right: true, cell: (job) => count(job.entries) },
            { name: t('Progress'), cell: (job) => <JobProgress id={job.id} /> },
          ]}
          empty={<Empty>{t('Nothing was driven back in yet.')}</Empty>}
        />
      )}
    </Asked>
  );
}
