// One policy: its editor, with a preview of what a change would mean.
import { Button, Card, Group, MultiSelect, NumberInput, SimpleGrid, Stack, Text, TextInput, Textarea, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { api, ok } from '../api/client';
import type { ModelFile, PolicyFile, PolicyPreview, ReductionRule, RollupRule } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Asked, Page, Sure } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { useProducts } from './channels';
import { declare } from './declare';
import { Edited, Turn, kept, useDraft } from './draft';
import { Kept, others } from '../ui/kept';
import { useWork } from '../ui/work';
import { KNOWN } from './policies';
import { ReductionRules, RollupRules, tidyReduction, tidyRollup } from './policy-derived';
import { Previewed } from './policy-preview';
import { Steps } from './policy-steps';
import { StorageRules, tidyRules } from './policy-storage';
import { DerivedTable, useDerived } from './rollups';

const BEGUN: PolicyFile = { kind: 'Policy', name: '', processing: [] };

function tidy(file: PolicyFile): PolicyFile {
  const { storage, analysis, afterCommit, ...rest } = file;
  const rules = tidyRules(storage);
  return kept({
    ...rest, ...(rules && { storage: rules }), ...(analysis && { analysis: analysis.map(tidyRollup) as RollupRule[] }), ...(afterCommit && { afterCommit: afterCommit.map(tidyReduction) as ReductionRule[] }),
  }, KNOWN);
}

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
      <Derived policy={name} />
      <Asked query={file}>{(file) => <PolicyEditor file={file} />}</Asked>
    </Page>
  );
}

/** How what it has computed stands. */
function Derived({ policy }: { policy: string }) {
  const { t } = useWords();
  const own = (useDerived().data ?? []).filter((one) => one.policy === policy);
  if (own.length === 0) return null;
  return <section aria-label={t('How its rollups stand')}><Title order={2} size="h5" mb="xs">{t('How its rollups stand')}</Title><DerivedTable rows={own} /></section>;
}

function PolicyEditor({ file: given }: { file?: PolicyFile }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
  const draft = useDraft(given ?? BEGUN, tidy);
  const [preview, setPreview] = useState<PolicyPreview>();
  const { busy, work } = useWork({ error: draft.error, setError: (error) => {
    // What was shown is of something else.
    if (error !== undefined) setPreview(undefined);
    draft.setError(error);
  } });
  const look = () => work(async () => setPreview((await ok(api.POST('/api/v1/policy-preview', { body: [draft.current()] as never }))) as unknown as PolicyPreview));
  const save = () => work(async () => {
    const policy = draft.current();
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
        <Edited draft={draft} label={t('Policy')} readOnly={!may}><Form file={draft.file} isNew={!given} onChange={draft.setFile} /></Edited>
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
  const rules = [file.storage ?? []].flat();
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
      <Card withBorder component="section" aria-label={t('Storage')}>
        <Stack gap="sm"><Title order={2} size="h5">{t('Storage')}</Title><StorageRules rules={rules} models={chosen.map((model) => model.name)} known={known} onChange={(storage) => put({ storage })} /></Stack>
      </Card>
      <Card withBorder component="section" aria-label={t('Rollups')}>
        <Stack gap="sm"><Title order={2} size="h5">{t('Rollups')}</Title><RollupRules rules={file.analysis ?? []} known={known} onChange={(analysis) => put({ analysis })} /></Stack>
      </Card>
      <Card withBorder component="section" aria-label={t('Reductions')}>
        <Stack gap="sm"><Title order={2} size="h5">{t('Reductions')}</Title><ReductionRules rules={file.afterCommit ?? []} known={known} onChange={(afterCommit) => put({ afterCommit })} /></Stack>
      </Card>
      <Kept of={others(file, KNOWN)} />
    </Stack>
  );
}
