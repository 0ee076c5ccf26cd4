// One policy: its editor, with a preview of what a change would mean.
import { Alert, Button, Card, Checkbox, Group, MultiSelect, NativeSelect, NumberInput, SimpleGrid, Stack, Table, Text, TextInput, Textarea, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { api, ok } from '../api/client';
import type { ModelFile, PolicyFile, PolicyPreview } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { bytes, count } from '../time';
import { Asked, Page, Sure, Waiting } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { useProducts } from './channels';
import { declare } from './declare';
import { Turn, kept, useDraft } from './draft';
import { Kept, others } from '../ui/kept';
import { Deeds, KNOWN, Retention } from './policies';
import { DerivedChanges } from './policy-derived';
import { Steps } from './policy-steps';

const Editor = lazy(() => import('../ui/editor'));
const BEGUN: PolicyFile = { kind: 'Policy', name: '', processing: [] };
const DAYS = 365;

export function NewPolicy() {
  const { t } = useWords();
  return <Page title={t('New policy')}><PolicyEditor /></Page>;
}

export default function Policy() {
  const { t } = useWords();
  const { name = '' } = useParams();
  const may = useMay('operator');
  const navigate = useNavigate();
  const client = useQueryClient();
  const path = { params: { path: { name } } };
  const file = useQuery({ queryKey: ['policies', 'file', name], queryFn: async () => (await ok(api.GET('/api/v1/policies/{name}', path))) as unknown as PolicyFile });
  return (
    <Page
      title={name}
      actions={may && (
        <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
          await ok(api.DELETE('/api/v1/policies/{name}', path));
          await navigate('/policies');
          await client.invalidateQueries();
        }}>{t('It acts on what comes no more. What is stored stays as it is; what it kept for a time only is kept for ever.')}</Sure>
      )}
    >
      <Asked query={file}>{(file) => <PolicyEditor file={file} />}</Asked>
    </Page>
  );
}

function PolicyEditor({ file: given }: { file?: PolicyFile }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
  const draft = useDraft(given ?? BEGUN, (file) => kept(file, KNOWN));
  const [preview, setPreview] = useState<PolicyPreview>();
  const [busy, setBusy] = useState(false);
  const work = async (work: (policy: PolicyFile) => Promise<void>) => {
    setBusy(true);
    draft.setError(undefined);
    try {
      await work(draft.current());
    } catch (error) {
      setPreview(undefined);
      draft.setError(error);
    } finally {
      setBusy(false);
    }
  };
  const look = () => work(async (policy) => setPreview((await ok(api.POST('/api/v1/policy-preview', { body: [policy] as never }))) as unknown as PolicyPreview));
  const save = () => work(async (policy) => {
    await declare(client, [policy], given ? 'any' : 'new');
    tell(t('Saved. It holds for what comes from now on.'));
    await navigate(`/policies/${encodeURIComponent(policy.name)}`);
  });
  return (
    <SimpleGrid cols={{ base: 1, lg: 2 }}>
      <Stack>
        <Group justify="space-between">
          <Turn draft={draft} />
          {may && <Group gap="xs"><Button variant="default" loading={busy} onClick={() => void look()}>{t('Preview')}</Button><Button loading={busy} onClick={() => void save()}>{given ? t('Save') : t('Make the policy')}</Button></Group>}
        </Group>
        <ProblemAlert error={draft.error} />
        {draft.text === undefined
          ? <fieldset disabled={!may} style={{ border: 0, padding: 0, margin: 0, minWidth: 0 }}><Form file={draft.file} isNew={!given} onChange={draft.setFile} /></fieldset>
          : <Suspense fallback={<Waiting />}><Editor language="json" label={t('Policy')} value={draft.text} onChange={draft.setText} readOnly={!may} /></Suspense>}
      </Stack>
      <Stack>{preview ? <Previewed preview={preview} /> : <Text size="sm" className="quiet">{t('A preview tells which points would be processed otherwise, and what would be too old. It changes nothing.')}</Text>}</Stack>
    </SimpleGrid>
  );
}

function Form({ file, isNew, onChange }: { file: PolicyFile; isNew: boolean; onChange: (file: PolicyFile) => void }) {
  const { t } = useWords();
  const products = useProducts();
  const models = useQuery({
    queryKey: ['models', 'all'],
    queryFn: async () => (await ok(api.GET('/api/v1/models', { params: { query: { limit: 1000 } } }))).items as unknown as ModelFile[],
  });
  const channels = useQuery({
    queryKey: ['channels', 'names'],
    queryFn: async () => (await ok(api.GET('/api/v1/channels', { params: { query: { limit: 1000 } } }))).items.map((channel) => (channel as { name: string }).name),
  });
  const put = (members: Partial<PolicyFile>) => onChange({ ...file, ...members });
  const chosen = (models.data ?? []).filter((model) => !file.models?.length || file.models.includes(model.name));
  const known = [...new Set(chosen.flatMap((model) => Object.keys(model.measurepoints ?? {})))];
  const { storage } = file;
  // Several rules are edited as text; of one, what has no field here stays as it is.
  const rule = Array.isArray(storage) ? undefined : storage;
  const many = Array.isArray(storage) ? { storage } : {};
  /** Without an end, and with whatever else the policy says of storage. */
  const forever = (): PolicyFile => {
    const { storage: _, ...rest } = file;
    const other = others(rule, ['keepDays', 'by']);
    return Object.keys(other).length > 0 ? { ...rest, storage: other } : rest;
  };
  return (
    <Stack>
      <SimpleGrid cols={{ base: 1, sm: 2 }}>
        <TextInput label={t('Name')} required readOnly={!isNew} value={file.name} onChange={(e) => put({ name: e.currentTarget.value })} />
        <NumberInput label={t('Order')} allowDecimal={false} value={file.order ?? 0} onChange={(order) => put({ order: Number(order) })} />
        <MultiSelect label={t('Models')} searchable data={(models.data ?? []).map((model) => model.name)} value={file.models ?? []} onChange={(models) => put({ models })} />
        <MultiSelect label={t('Products')} searchable data={(products.data ?? []).map((product) => product.name)} value={file.products ?? []} onChange={(products) => put({ products })} />
        <MultiSelect label={t('Channels')} searchable data={channels.data ?? []} value={file.channels ?? []} onChange={(channels) => put({ channels })} />
        <Textarea label={t('Description')} autosize value={file.description ?? ''} onChange={(e) => put({ description: e.currentTarget.value })} />
      </SimpleGrid>
      <Card withBorder component="section" aria-label={t('Processing')}>
        <Stack gap="sm"><Title order={2} size="h5">{t('Processing')}</Title><Steps steps={file.processing ?? []} known={known} onChange={(processing) => put({ processing })} /></Stack>
      </Card>
      <Card withBorder component="section" aria-label={t('How long values are kept')}>
        <Stack gap="sm">
          <Title order={2} size="h5">{t('How long values are kept')}</Title>
          <Checkbox label={t('Only for a time')} checked={rule?.keepDays !== undefined} disabled={Array.isArray(storage)} onChange={(e) => onChange(e.currentTarget.checked ? { ...file, storage: { ...rule, keepDays: DAYS } } : forever())} />
          {rule?.keepDays !== undefined && (
            <Group align="flex-end">
              <NumberInput label={t('Days')} w={120} min={1} max={36500} allowDecimal={false} value={rule.keepDays} onChange={(days) => put({ storage: { ...rule, keepDays: Number(days) } })} />
              <NativeSelect label={t('Counted from')} data={[{ value: 'event', label: t('the time of the value') }, { value: 'import', label: t('the arrival of its message') }]} value={rule.by ?? 'event'} onChange={(e) => put({ storage: { ...rule, by: e.currentTarget.value as 'event' | 'import' } })} />
            </Group>
          )}
          <Kept of={{ ...others(rule, ['keepDays', 'by']), ...many }} />
        </Stack>
      </Card>
      <Kept of={others(file, KNOWN)} />
    </Stack>
  );
}

function Previewed({ preview }: { preview: PolicyPreview }) {
  const { t } = useWords();
  const isNothing = preview.processing.length === 0 && preview.storage.length === 0 && !preview.derived?.length;
  return (
    <Stack data-testid="preview" role="status">
      <Text fw={600}>{t('Preview: nothing has changed')}</Text>
      {isNothing && <Text size="sm">{t('No point would be processed otherwise, and nothing would be too old.')}</Text>}
      {preview.storage.map((one) => (
        <Alert key={one.product} color={one.rows > 0 ? 'orange' : 'blue'} variant="light" title={t('Product {name}', { name: one.product })}>
          <Text size="sm">{t('Before:')} <Retention of={one.before} /></Text>
          <Text size="sm">{t('After:')} <Retention of={one.after} /></Text>
          <Text size="sm"><b>{t('About {n} of {m} rows would go', { n: count(one.rows), m: count(one.rowsInAll) })}</b>{one.segments > 0 && ` · ${t('{n} segments whole, {size}', { n: one.segments, size: bytes(one.bytes) })}`}</Text>
        </Alert>
      ))}
      {preview.processing.length > 0 && (
        <Table.ScrollContainer minWidth={400} type="native" tabIndex={0} role="region" aria-label={t('Points that would be processed otherwise')}>
          <Table aria-label={t('Points that would be processed otherwise')} verticalSpacing={4}>
            <Table.Thead><Table.Tr><Table.Th>{t('Point')}</Table.Th><Table.Th>{t('Channel')}</Table.Th><Table.Th ta="right">{t('Devices')}</Table.Th><Table.Th>{t('Before')}</Table.Th><Table.Th>{t('After')}</Table.Th></Table.Tr></Table.Thead>
            <Table.Tbody>
              {preview.processing.map((one) => (
                <Table.Tr key={`${one.channel} ${one.point}`}><Table.Td>{one.point}</Table.Td><Table.Td>{one.channel}</Table.Td><Table.Td ta="right">{count(one.devices)}</Table.Td><Table.Td><Deeds steps={one.before} /></Table.Td><Table.Td><Deeds steps={one.after} /></Table.Td></Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <DerivedChanges changes={preview.derived} />
      {preview.more > 0 && <Text size="sm">{t('and {n} more', { n: count(preview.more) })}</Text>}
    </Stack>
  );
}
