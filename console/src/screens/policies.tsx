// Policies: the list, and which are in force for a point.
import { Anchor, Autocomplete, Button, Card, Group, Select, Stack, Text, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { DeviceFile, Done, EffectivePolicy, Kept, ModelFile, PolicyFile, StorageRule } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time } from '../time';
import { others } from '../ui/kept';
import { Asked, Empty, FilterText, Page, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';
import { useProducts } from './channels';
import { DerivedOf } from './policy-reads';

/** What a policy file may say that this console has columns and fields for. */
export const KNOWN = ['kind', 'name', 'order', 'models', 'products', 'channels', 'processing', 'storage', 'analysis', 'afterCommit', 'description'];

export default function Policies() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const name = filters.get('name');
  const policies = useQuery({
    queryKey: ['policies', name],
    queryFn: async () => (await ok(api.GET('/api/v1/policies', { params: { query: { limit: 1000, ...(name && { name }) } } }))).items as unknown as PolicyFile[],
  });
  const make = may && <Button component={Link} to="/new-policy">{t('New policy')}</Button>;
  const about = (policy: PolicyFile) => {
    const told = [...(policy.models ?? []).map((name) => t('model {name}', { name })), ...(policy.products ?? []).map((name) => t('product {name}', { name })), ...(policy.channels ?? []).map((name) => t('channel {name}', { name }))];
    return told.length > 0 ? told.join(', ') : t('everything');
  };
  return (
    <Page title={t('Policies')} about={t('A policy says what is done to values on their way in, and how long they are kept. Those of lower order act first.')} actions={make}>
      <Group><FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} /></Group>
      <Asked query={policies}>
        {(policies) => (
          <Rows
            label={t('Policies')} rows={policies.toSorted((a, b) => (a.order ?? 0) - (b.order ?? 0))} id={(policy) => policy.name}
            columns={[
              { name: t('Order'), right: true, cell: (p) => p.order ?? 0 },
              { name: t('Policy'), cell: (p) => <><Anchor component={Link} to={`/policies/${encodeURIComponent(p.name)}`}>{p.name}</Anchor>{p.description && <Text size="xs" className="quiet">{p.description}</Text>}</> },
              { name: t('Is about'), cell: about },
              { name: t('Steps'), right: true, cell: (p) => p.processing?.length ?? 0 },
              { name: t('Rollups'), right: true, cell: (p) => { const n = (p.analysis?.length ?? 0) + (p.afterCommit?.length ?? 0); return n > 0 ? <Anchor component={Link} to={`/rollups?policy=${encodeURIComponent(p.name)}`}>{n}</Anchor> : 0; } },
              { name: t('Further parts'), cell: (p) => Object.keys(others(p, KNOWN)).join(', ') || '—' },
              { name: t('Keeps values'), cell: (p) => [p.storage ?? []].flat().map((rule) => keptFor(rule, t)).join('; ') || '—' },
            ]}
            empty={<Empty action={make}>{name ? t('No policy fits the filters.') : t('There is no policy: values are stored as they come, and kept for ever.')}</Empty>}
          />
        )}
      </Asked>
      <Effective />
    </Page>
  );
}

/** What policies mean for one point. */
function Effective() {
  const { t } = useWords();
  const filters = useFilters();
  const [product, device, point] = ['product', 'device', 'point'].map(filters.get) as [string, string, string];
  const products = useProducts();
  const model = (products.data ?? []).find((one) => one.name === product)?.model;
  const points = useQuery({
    queryKey: ['model', model], enabled: model !== undefined,
    queryFn: async () => (await ok(api.GET('/api/v1/models/{name}', { params: { path: { name: model ?? '' } } }))) as unknown as ModelFile,
  });
  const devices = useQuery({
    queryKey: ['devices', 'keys', product, device], enabled: product !== '',
    queryFn: async () => ((await ok(api.GET('/api/v1/devices', { params: { query: { product, limit: 50 } } }))).items as unknown as DeviceFile[]).map((d) => d.key ?? d.name),
  });
  const isAsked = product !== '' && device !== '' && point !== '';
  const effective = useQuery({
    queryKey: ['policies', 'effective', product, device, point], enabled: isAsked,
    queryFn: async () => (await ok(api.GET('/api/v1/effective-policy', { params: { query: { product, device, point } } }))) as unknown as EffectivePolicy,
  });
  return (
    <Card withBorder component="section" aria-label={t('In force for a point')}>
      <Stack>
        <Title order={2} size="h4">{t('In force for a point')}</Title>
        <Group align="flex-end">
          <Select label={t('Product')} w={200} searchable data={(products.data ?? []).map((p) => p.name)} value={product || null} onChange={(product) => filters.set({ product, device: null, point: null })} />
          <Autocomplete label={t('Device')} w={200} data={devices.data ?? []} value={device} onChange={(device) => filters.set({ device })} disabled={!product} />
          <Select label={t('Point')} w={200} searchable data={Object.keys(points.data?.measurepoints ?? {})} value={point || null} onChange={(point) => filters.set({ point })} disabled={!product} />
        </Group>
        {isAsked && (
          <Asked query={effective}>
            {(found) => (
              <Stack data-testid="effective" role="status">
                <Text size="sm">{t('Revision {n} of all policies', { n: found.revision })} · <Retention of={found.storage} /></Text>
                {found.processing.map(({ channel, steps }) => (
                  <section key={channel}>
                    <Text size="sm" fw={600}>{t('By channel {name}', { name: channel })}</Text>
                    <Deeds steps={steps} />
                  </section>
                ))}
                <DerivedOf derived={found.derived} />
              </Stack>
            )}
          </Asked>
        )}
      </Stack>
    </Card>
  );
}

function keptFor(rule: StorageRule, t: (text: string, values?: Record<string, string | number>) => string): string {
  const days = rule.keepDays === undefined ? t('kept for ever') : rule.by === 'import' ? t('{n} days from their arrival', { n: rule.keepDays }) : t('{n} days from their time', { n: rule.keepDays });
  const what = rule.of === 'events' ? t('events') : rule.of === 'attributes' ? t('attributes') : (rule.points ?? []).join(', ');
  const how = [...(rule.keep === 'minute' || rule.keep === 'both' ? [t('by the minute')] : []), ...(rule.changeOnly ? [t('only changes')] : [])];
  return [what && `${what}:`, [...how, days].join(', ')].filter(Boolean).join(' ');
}

export function Retention({ of }: { of: Kept | undefined }) {
  const { t } = useWords();
  if (!of) return <>{t('kept for ever')}</>;
  if (of.keepDays === undefined || of.from === undefined) return <>{of.does} (<Anchor component={Link} size="sm" to={`/policies/${encodeURIComponent(of.policy)}`}>{of.policy}</Anchor>)</>;
  const how = [...(of.keep === 'raw' ? [] : [t('by the minute')]), ...(of.changeOnly ? [t('only changes')] : [])];
  return <>{how.map((one) => `${one}, `)}{of.by === 'import' ? t('kept for {n} days from arrival', { n: of.keepDays }) : t('kept for {n} days by their time', { n: of.keepDays })} (<Anchor component={Link} size="sm" to={`/policies/${encodeURIComponent(of.policy)}`}>{of.policy}</Anchor>), {t('now from')} <Time ms={of.from} /></>;
}

/** What is done to a value, in order. */
export function Deeds({ steps }: { steps: Done[] }) {
  const { t } = useWords();
  if (steps.length === 0) return <Text size="sm">{t('Stored as it comes.')}</Text>;
  return (
    <ol style={{ margin: 0, paddingInlineStart: '1.4rem' }}>
      {steps.map((step) => (
        <li key={`${step.policy} ${step.step}`}>
          <Text size="sm"><span className="mono">{step.point}</span>: {step.does} · <Anchor component={Link} size="sm" to={`/policies/${encodeURIComponent(step.policy)}`}>{step.policy}</Anchor>, {t('step {n}', { n: step.step })}</Text>
        </li>
      ))}
    </ol>
  );
}
