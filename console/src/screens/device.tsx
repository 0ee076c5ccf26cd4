// A device: what it is, its latest values, what is there of its history, events and attributes.
import { Anchor, Button, Group, SimpleGrid, Stack, Title, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from 'react-router';
import { api, ok } from '../api/client';
import type { DeviceFile, Page as PageOf } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, count, figure, span } from '../time';
import { Asked, Empty, Page, Pairs, Sure } from '../ui/page';
import { gapsOf, stretchesOf, type Sampled } from '../ui/gaps';
import { Rows } from '../ui/rows';

interface Latest { deviceKey: string; points: Record<string, { time: number; value: unknown; quality?: number }> }
interface Told { deviceKey: string; time: number; event?: string; attribute?: string; output?: unknown; value?: unknown; channel: string; receipt: string }

const EVENTS = 50;
const COVERAGE = 400;

export default function Device() {
  const { t } = useWords();
  const { product = '', name = '' } = useParams();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
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
  const coverage = useQuery({
    queryKey: ['coverage', product, key], enabled: key !== '',
    queryFn: () => ok(api.GET('/api/v1/points/extremes', { params: { query: { ...query, buckets: COVERAGE } } })),
  });
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
  const series = coverage.data?.series ?? [];
  const all = { from: Math.min(...series.map((one) => one.times[0] ?? Infinity)), to: Math.max(...series.map((one) => one.times.at(-1) ?? -Infinity)) };
  return (
    <Page
      title={name}
      actions={<>
        <Button component={Link} to={history('')} variant="default">{t('History')}</Button>
        {may && (
          <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
            await ok(api.DELETE('/api/v1/devices/{name}', { params: { path: { name }, query: { product } } }));
            await navigate('/devices');
            await client.invalidateQueries();
          }}>{t('Its history stays and comes back with a device of the same key. Further messages for it are refused.')}</Sure>
        )}
      </>}
    >
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
        <Title order={2} size="h4" mb="xs">{t('Points: latest and coverage')}</Title>
        <Asked query={latest}>
          {(points) => (
            <Rows
              label={t('Points: latest and coverage')} rows={Object.entries(points)} id={([point]) => point}
              columns={[
                { name: t('Point'), cell: ([point]) => <Anchor component={Link} to={history(point)}>{point}</Anchor> },
                { name: t('Latest value'), right: true, cell: ([, latest]) => said(latest.value) },
                { name: t('Quality'), right: true, cell: ([, latest]) => latest.quality ?? '—' },
                { name: t('At'), cell: ([, latest]) => <Time ms={latest.time} /> },
                ...[(['First', t('First')] as const), (['Values', t('Values')] as const)].map(([what, name]) => ({
                  name, right: what === 'Values',
                  cell: ([point]: [string, unknown]) => {
                    const series = coverage.data?.series.find((series) => series.point === point);
                    if (!series) return '—';
                    return what === 'First' ? <Time ms={series.times[0]} /> : count(series.count);
                  },
                })),
                {
                  name: t('Coverage'),
                  cell: ([point]) => {
                    const one = series.find((one) => one.point === point);
                    return one ? <Coverage of={one} all={all} history={history(point)} /> : '—';
                  },
                },
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
function Coverage({ of, all, history }: { of: Sampled; all: { from: number; to: number }; history: string }) {
  const { t } = useWords();
  const gaps = gapsOf(of);
  const longest = Math.max(0, ...gaps.map((gap) => gap.to - gap.from));
  const label = gaps.length === 0 ? t('no gaps') : t('{n} gaps, the longest {span}', { n: gaps.length, span: span(longest) });
  const whole = Math.max(1, all.to - all.from);
  return (
    <Anchor component={Link} to={history} title={label} aria-label={label}>
      <svg className="strip" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden>
        {stretchesOf(of).map(({ from, to }) => <rect key={from} x={(1000 * (from - all.from)) / whole} width={Math.max(3, (1000 * (to - from)) / whole)} y={0} height={10} />)}
      </svg>
      <Text size="xs" className="quiet">{label}</Text>
    </Anchor>
  );
}
