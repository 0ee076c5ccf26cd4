// A script: its draft in the editor with test runs beside it, its versions, its golden tests.
import { Anchor, Badge, Button, Group, SimpleGrid, Stack, Tabs, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useEffect, useState } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import { Problem, api, ok } from '../api/client';
import type { Cure, ScriptFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { count } from '../time';
import { Asked, Page, Sure, Waiting } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { useWork } from '../ui/work';
import { Cured } from './cured';
import { GoldenTests } from './script-golden';
import { saveDraft } from './script-outcome';
import { Test } from './script-test';
import { Versions } from './script-versions';

const Editor = lazy(() => import('../ui/editor'));

export default function Script() {
  const { t } = useWords();
  const { name = '', tab = 'editor' } = useParams();
  const navigate = useNavigate();
  const client = useQueryClient();
  const may = useMay('operator');
  const path = { params: { path: { name } } };
  const [cures, setCures] = useState<Cure[]>([]);
  const status = useQuery({ queryKey: ['script', name, 'status'], queryFn: () => ok(api.GET('/api/v1/scripts/{name}/status', path)) });
  const file = useQuery({
    queryKey: ['script', name, 'edited', status.data?.draft],
    enabled: status.data !== undefined,
    // Saving a draft must not take the editor away.
    placeholderData: (before) => before,
    queryFn: async () => (await ok(status.data?.draft ? api.GET('/api/v1/scripts/{name}/draft', path) : api.GET('/api/v1/scripts/{name}', path))) as unknown as ScriptFile,
  });
  const base = `/scripts/${encodeURIComponent(name)}`;
  return (
    <Page
      title={name}
      actions={may && (
        <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
          await ok(api.DELETE('/api/v1/scripts/{name}', path));
          await navigate('/scripts');
          await client.invalidateQueries();
        }}>{t('Its draft, all its versions and its samples go. Messages of its product are refused from then on.')}</Sure>
      )}
    >
      <Asked query={status}>
        {(status) => (
          <>
            <Group gap="sm">
              <Badge variant="light" color={status.live ? 'green' : 'gray'}>{status.live ? t('version {n} runs', { n: status.live }) : t('not published')}</Badge>
              {status.draft && <Badge variant="light" color="blue">{t('has a draft')}</Badge>}
              <Text size="sm">{t('Product')} <Anchor component={Link} size="sm" to={`/products?name=${encodeURIComponent(status.product)}`}>{status.product}</Anchor></Text>
              {status.running != null && <Running of={status.running as Figures} />}
            </Group>
            <Cured cures={cures} />
            <Tabs value={tab} onChange={(tab) => void navigate(tab === 'editor' ? base : `${base}/${tab}`)} keepMounted={false}>
              <Tabs.List mb="sm"><Tabs.Tab value="editor">{t('Editor')}</Tabs.Tab><Tabs.Tab value="versions">{t('Versions')} ({status.versions})</Tabs.Tab><Tabs.Tab value="golden">{t('Golden tests')}</Tabs.Tab></Tabs.List>
              <Tabs.Panel value="editor"><Asked query={file}>{(file) => <Edited name={name} file={file} hasDraft={status.draft != null} onCures={setCures} />}</Asked></Tabs.Panel>
              <Tabs.Panel value="versions"><Versions name={name} hasDraft={status.draft != null} onCures={setCures} /></Tabs.Panel>
              <Tabs.Panel value="golden"><Asked query={file}>{(file) => <GoldenTests key={status.draft ?? 'live'} name={name} file={file} />}</Asked></Tabs.Panel>
            </Tabs>
          </>
        )}
      </Asked>
    </Page>
  );
}

interface Figures { calls: number; failures: number; kills: number; cpuP99Us: number }

/** What the calls of the version that runs came to. */
function Running({ of }: { of: Figures }) {
  const { t } = useWords();
  return <Text size="sm" className="numbers">{t('{n} calls, {m} failed, {k} stopped by a limit', { n: count(of.calls), m: count(of.failures), k: count(of.kills) })} · {t('99 % within {ms} ms of CPU', { ms: (of.cpuP99Us / 1000).toFixed(2) })}</Text>;
}

function Edited({ name, file, hasDraft, onCures }: { name: string; file: ScriptFile; hasDraft: boolean; onCures: (cures: Cure[]) => void }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const [source, setSource] = useState(file.source);
  useEffect(() => setSource(file.source), [file.source]);
  const { busy, error, work } = useWork();
  const isChanged = source !== file.source;
  const path = { params: { path: { name } } };
  const change = (act: () => Promise<void>) => work(async () => {
    await act();
    await client.invalidateQueries({ queryKey: ['script', name] });
  });
  const save = () => change(async () => { await saveDraft(name, { ...file, source }); tell(t('The draft is saved. Nothing that runs has changed.')); });
  const publish = () => change(async () => {
    if (isChanged) await saveDraft(name, { ...file, source });
    const published = await ok(api.POST('/api/v1/scripts/{name}/publish', path));
    onCures((published as unknown as { cures?: Cure[] }).cures ?? []);
    tell(t('Published. It runs at once.'));
  });
  const problem = error ? Problem.from(error) : undefined;
  return (
    <SimpleGrid cols={{ base: 1, lg: 2 }}>
      <Stack>
        <Suspense fallback={<Waiting />}>
          <Editor language="javascript" label={t('Source of {name}', { name })} value={source} onChange={setSource} readOnly={!may} mark={problem?.line ? { line: problem.line, ...(problem.column && { column: problem.column }), message: problem.detail } : undefined} />
        </Suspense>
        <ProblemAlert error={error} />
        {may && (
          <Group>
            <Button variant="default" loading={busy} disabled={!isChanged} onClick={() => void save()}>{t('Save draft')}</Button>
            <Button loading={busy} disabled={!isChanged && !hasDraft} onClick={() => void publish()}>{t('Publish')}</Button>
            {hasDraft && <Sure label={t('Drop draft')} title={t('Drop the draft of {name}?', { name })} onSure={async () => {
              await ok(api.DELETE('/api/v1/scripts/{name}/draft', path));
              await client.invalidateQueries();
            }}>{t('What was changed since the version that runs is lost.')}</Sure>}
          </Group>
        )}
      </Stack>
      <Test name={name} file={{ ...file, source }} prepare={async () => { if (isChanged && may) { await saveDraft(name, { ...file, source }); await client.invalidateQueries({ queryKey: ['script', name, 'status'] }); } }} />
    </SimpleGrid>
  );
}
