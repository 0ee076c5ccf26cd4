// A device: what it is, its latest values, what is there of its history, events and attributes.
import { Anchor, Button, Group, Select, SimpleGrid, Stack, Title, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from 'react-router';
import { api, ok } from '../api/client';
import type { DeviceFile, Page as PageOf } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, count, figure, span } from '../time';
import { Asked, Empty, Page, Pairs, Sure, useFilters } from '../ui/page';
import { stretches } from '../ui/gaps';
import { Rows } from '../ui/rows';
import { ProblemAlert } from '../ui/problem';
import { DeviceForm } from './device-form';
import { LENGTH_CHOICES, useCoverage, type Covered } from './coverage';

interface Latest { deviceKey: string; points: Record<string, { time: number; value: unknown; quality?: number }> }
interface Told { deviceKey: string; time: number; event?: string; attribute?: string; output?: unknown; value?: unknown; channel: string; receipt: string }

const EVENTS = 50;

export default function Device() {
  const { t } = useWords();
  const { product = '', name = '' } = useParams();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
  const filters = useFilters();
  const device = useQuery({
    queryKey: ['device', product, name],
    queryFn: async () => (await ok(api.GET('/api/v1/devices/{name}', { params: { path: { name }, query: { product } } }))) as unknown as DeviceFile,
  });
  const key = device.data?.key ?? '';
  const query = { product, device: key };
  const latest = useQuery({
    queryKey: ['latest', product, key], enabled: key !== '', refetchInterval: 5000,
    queryFn: async () => ((await ok(api.GET('/api/v1/latest', { params: { query } }))) as unknown as PageOf<Latest>).items[0]?.points ?? {},
  });
  const coverage = useCoverage(query, filters.get('gap'), key !== '');
  const events = useQuery({
    queryKey: ['events', product, key], enabled: key !== '',
    queryFn: async () => ((await ok(api.GET('/api/v1/events', { params: { query: { ...query, limit: EVENTS } } }))) as unknown as PageOf<Told>).items,
  });
  const attributes = useQuery({
    queryKey: ['attributes', product, key], enabled: key !== '',
    queryFn: async () => ((await ok(api.GET('/api/v1/attributes', { params: { query } }))) as unknown as PageOf<Told>).items,
  });
  const history = (point: string) => `/history?product=${encodeURIComponent(product)}&device=${encodeURIComponent(key)}&points=${encodeURIComponent(point)}`;
  const said = (value: unknown) => <span className="mono">{typeof value === 'number' ? figure(value) : typeof value === 'object' ? JSON.stringify(value) : String(value)}</span>;
  const there = coverage.of.filter((one) => one.count > 0);
  const all = { from: Math.min(...there.map((one) => one.firstTime ?? Infinity)), to: Math.max(...there.map((one) => one.lastTime ?? -Infinity)) };
  const coveredOf = (point: string) => there.find((one) => one.point === point);
  return (
    <Page
      title={name}
      actions={<>
        <Button component={Link} to={history('')} variant="default">{t('History')}</Button>
        {may && device.data && <Button variant="default" onClick={() => filters.set({ edit: '1' })}>{t('Change')}</Button>}
        {may && (
          <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
            await ok(api.DELETE('/api/v1/devices/{name}', { params: { path: { name }, query: { product } } }));
            await navigate('/devices');
            await client.invalidateQueries();
          }}>{t('Its history stays and comes back with a device of the same key. Further messages for it are refused.')}</Sure>
        )}
      </>}
    >
      {filters.get('edit') && may && device.data && <DeviceForm file={device.data} onClose={() => filters.set({ edit: null })} />}
      <Asked query={device}>
        {(file) => (
          <Pairs of={[
            [t('Product'), <Anchor key="p" component={Link} to={`/products?name=${encodeURIComponent(file.product)}`}>{file.product}</Anchor>],
            [t('Key'), <span key="k" className="mono">{file.key}</span>],
            [t('Asset id'), <span key="a" className="mono">{file.assetId}</span>],
            [t('Time zone'), file.timezone ?? '—'],
            ...Object.entries(file.attributes ?? {}).map(([name, value]): [string, React.ReactNode] => [name, said(value)]),
          ]} />
        )}
      </Asked>
      <section>
        <Group justify="space-between" mb="xs" align="flex-end">
          <Title order={2} size="h4">{t('Points: latest and coverage')}</Title>
          <Select label={t('Gaps longer than')} size="xs" w={170} clearable placeholder={t('by each point’s pace')} data={LENGTH_CHOICES} value={filters.get('gap') || null} onChange={(gap) => filters.set({ gap })} />
        </Group>
        <ProblemAlert error={coverage.error} title={t('Gaps are not known')} />
        <Asked query={latest}>
          {(points) => (
            <Rows
              label={t('Points: latest and coverage')} rows={Object.entries(points)} id={([point]) => point}
              columns={[
                { name: t('Point'), cell: ([point]) => <Anchor component={Link} to={history(point)}>{point}</Anchor> },
                { name: t('Latest value'), right: true, cell: ([, latest]) => said(latest.value) },
                { name: t('Quality'), right: true, cell: ([, latest]) => latest.quality ?? '—' },
                { name: t('At'), cell: ([, latest]) => <Time ms={latest.time} /> },
                { name: t('First'), cell: ([point]) => <Time ms={coveredOf(point)?.firstTime ?? undefined} /> },
                { name: t('Values'), right: true, cell: ([point]) => { const one = coveredOf(point); return one ? count(one.count) : '—'; } },
                { name: t('Coverage'), cell: ([point]) => { const one = coveredOf(point); return one ? <Coverage of={one} all={all} isPending={coverage.isPending} history={history(point)} /> : '—'; } },
              ]}
              empty={<Empty>{t('Nothing of it is stored yet.')}</Empty>}
            />
          )}
        </Asked>
      </section>
      <SimpleGrid cols={{ base: 1, lg: 2 }}>
        <section>
          <Title order={2} size="h4" mb="xs">{t('Events')}</Title>
          <Asked query={events}>
            {(events) => (
              <Stack gap="xs">
                <Rows
                  label={t('Events')} rows={events} id={(event) => `${event.time} ${event.event} ${event.receipt} ${JSON.stringify(event.output)}`}
                  columns={[{ name: t('Time'), cell: (e) => <Time ms={e.time} /> }, { name: t('Event'), cell: (e) => e.event }, { name: t('Output'), cell: (e) => said(e.output) }]}
                  empty={<Empty>{t('No events.')}</Empty>}
                />
                {events.length === EVENTS && <Text size="xs" className="quiet">{t('The first {n}.', { n: EVENTS })}</Text>}
              </Stack>
            )}
          </Asked>
        </section>
        <section>
          <Title order={2} size="h4" mb="xs">{t('Reported attributes')}</Title>
          <Asked query={attributes}>
            {(attributes) => (
              <Rows
                label={t('Reported attributes')} rows={attributes} id={(a) => String(a.attribute)}
                columns={[{ name: t('Attribute'), cell: (a) => a.attribute }, { name: t('Value'), cell: (a) => said(a.value) }, { name: t('Channel'), cell: (a) => <Group gap={4}><Anchor component={Link} to={`/channels/${encodeURIComponent(a.channel)}`}>{a.channel}</Anchor></Group> }]}
                empty={<Empty>{t('No attributes.')}</Empty>}
              />
            )}
          </Asked>
        </section>
      </SimpleGrid>
    </Page>
  );
}

/** When there are values and when there are none, all points over the same stretch of time. */
function Coverage({ of, all, isPending, history }: { of: Covered; all: { from: number; to: number }; isPending: boolean; history: string }) {
  const { t } = useWords();
  const [first, last] = [of.firstTime ?? 0, of.lastTime ?? 0];
  const than = of.than ?? '';
  const label = of.gaps === undefined ? (isPending ? '…' : t('too few values to tell'))
    : of.gaps === 0 ? t('no gaps longer than {than}', { than }) : t('{n} gaps longer than {than}, the longest {span}', { n: count(of.gaps), than, span: span(of.longestGap ?? 0) });
  const whole = Math.max(1, all.to - all.from);
  return (
    <Anchor component={Link} to={history} title={label} aria-label={label}>
      <svg className="strip" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden>
        {stretches(first, last, of.gapList ?? []).map(({ from, to }) => <rect key={from} x={(1000 * (from - all.from)) / whole} width={Math.max(3, (1000 * (to - from)) / whole)} y={0} height={10} />)}
      </svg>
      <Text size="xs" className="quiet">{label}</Text>
    </Anchor>
  );
}
