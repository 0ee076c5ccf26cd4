// A script: its draft in the editor with test runs beside it, its versions, its golden tests.
import { ActionIcon, Alert, Badge, Button, Card, Group, NativeSelect, Radio, SimpleGrid, Stack, Table, Tabs, Text, TextInput, Textarea, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useEffect, useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { Problem, api, ok } from '../api/client';
import type { Cure, Golden, Page as PageOf, Quarantined, Reason, ScriptFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { bytes, count, useTime } from '../time';
import { Asked, Page, Sure, Waiting } from '../ui/page';
import { Reasons } from '../ui/payload';
import { Code, ProblemAlert, tell, tellProblem } from '../ui/problem';
import { useProducts } from './channels';
import { Cured } from './cured';

const Editor = lazy(() => import('../ui/editor'));
const Differences = lazy(() => import('../ui/differences'));

interface Tested {
  script: string;
  decoded?: unknown;
  encoded?: string;
  failure?: { message?: string; line?: number; column?: number };
  console?: string;
  cpuMs?: number;
  heapBytes?: number;
  model?: { code: number; items: number; good: number; rejected: Reason[] };
  golden?: { name: string; passed: boolean; [more: string]: unknown }[];
}

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
        }}>{t('Its draft and all its versions go. Messages of its product are refused from then on.')}</Sure>
      )}
    >
      <Asked query={status}>
        {(status) => (
          <>
            <Group gap="sm">
              <Badge variant="light" color={status.live ? 'green' : 'gray'}>{status.live ? t('version {n} runs', { n: status.live }) : t('not published')}</Badge>
              {status.draft && <Badge variant="light" color="blue">{t('has a draft')}</Badge>}
              <Text size="sm">{t('Product')} {status.product}</Text>
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

async function saveDraft(name: string, file: ScriptFile) {
  const { kind: _, name: __, ...body } = file;
  await ok(api.PUT('/api/v1/scripts/{name}/draft', { params: { path: { name } }, body: body as never }));
}

function Edited({ name, file, hasDraft, onCures }: { name: string; file: ScriptFile; hasDraft: boolean; onCures: (cures: Cure[]) => void }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const [source, setSource] = useState(file.source);
  useEffect(() => setSource(file.source), [file.source]);
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const isChanged = source !== file.source;
  const path = { params: { path: { name } } };
  const work = async (work: () => Promise<void>) => {
    setBusy(true);
    setError(undefined);
    try {
      await work();
      await client.invalidateQueries({ queryKey: ['script', name] });
    } catch (error) {
      setError(error);
    } finally {
      setBusy(false);
    }
  };
  const save = () => work(async () => { await saveDraft(name, { ...file, source }); tell(t('The draft is saved. Nothing that runs has changed.')); });
  const publish = () => work(async () => {
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
      <Test name={name} product={file.product} prepare={async () => { if (isChanged && may) { await saveDraft(name, { ...file, source }); await client.invalidateQueries({ queryKey: ['script', name, 'status'] }); } }} />
    </SimpleGrid>
  );
}

interface Sample { name: string; form: 'hex' | 'base64' | 'text'; text: string }
const KEPT = 'backtide.samples';

function samplesOf(script: string): Sample[] {
  try {
    return (JSON.parse(localStorage.getItem(`${KEPT}.${script}`) ?? '[]') as Sample[]);
  } catch {
    return [];
  }
}

/** A test run, with a library of samples that this browser keeps. */
function Test({ name, product, prepare }: { name: string; product: string; prepare: () => Promise<void> }) {
  const { t } = useWords();
  const may = useMay('operator');
  const [form, setForm] = useState<Sample['form']>('hex');
  const [text, setText] = useState('');
  const [title, setTitle] = useState('');
  const [samples, setSamples] = useState(() => samplesOf(name));
  const [tested, setTested] = useState<Tested>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await prepare();
      const decode = { [form]: form === 'text' ? text : text.replace(/\s/g, '') };
      setTested((await ok(api.POST('/api/v1/scripts/{name}/test', { params: { path: { name } }, body: { decode } as never }))) as unknown as Tested);
    } catch (error) {
      setError(error);
    } finally {
      setBusy(false);
    }
  };
  const keep = (samples: Sample[]) => {
    setSamples(samples);
    localStorage.setItem(`${KEPT}.${name}`, JSON.stringify(samples));
  };
  return (
    <Stack>
      <Title order={2} size="h4">{t('Test run')}</Title>
      <Refused product={product} onTake={(base64, title) => { setForm('base64'); setText(base64); setTitle(title); }} />
      {samples.length > 0 && <NativeSelect label={t('Sample payloads')} data={[{ value: '', label: t('choose…') }, ...samples.map((sample) => sample.name)]} value="" onChange={(e) => {
        const sample = samples.find((sample) => sample.name === e.currentTarget.value);
        if (sample) { setForm(sample.form); setText(sample.text); setTitle(sample.name); }
      }} />}
      <Radio.Group label={t('Payload as')} value={form} onChange={(form) => setForm(form as Sample['form'])}><Group mt={4}><Radio value="hex" label={t('Hex')} /><Radio value="base64" label="Base64" /><Radio value="text" label={t('Text')} /></Group></Radio.Group>
      <Textarea label={t('Payload')} value={text} onChange={(e) => setText(e.currentTarget.value)} autosize minRows={2} maxRows={8} classNames={{ input: 'mono' }} />
      <Group align="flex-end">
        <Button loading={busy} disabled={!may || !text} onClick={() => void run()}>{t('Run')}</Button>
        <TextInput label={t('Name of the sample')} value={title} onChange={(e) => setTitle(e.currentTarget.value)} w={180} />
        <Button variant="default" disabled={!title || !text} onClick={() => keep([...samples.filter((sample) => sample.name !== title), { name: title, form, text }])}>{t('Keep as sample')}</Button>
      </Group>
      <ProblemAlert error={error} />
      {tested && <Outcome tested={tested} />}
    </Stack>
  );
}

const REFUSED = 20;

/** Messages that scripts could not decode: the samples that matter most. */
function Refused({ product, onTake }: { product: string; onTake: (base64: string, title: string) => void }) {
  const { t } = useWords();
  const time = useTime();
  const key = (useProducts().data ?? []).find((one) => one.name === product)?.key;
  const refused = useQuery({
    queryKey: ['quarantine', 'undecoded', key], enabled: key !== undefined, staleTime: 0,
    queryFn: async () => ((await ok(api.GET('/api/v1/quarantine', { params: { query: { code: 1202, limit: 1000 } } }))) as unknown as PageOf<Quarantined>).items.filter((entry) => entry.productKey === key && !entry.truncated).slice(-REFUSED).toReversed(),
  });
  if (!refused.data?.length) return null;
  const take = async (id: string) => {
    try {
      const entry = (await ok(api.GET('/api/v1/quarantine/{id}', { params: { path: { id } } }))) as unknown as Quarantined;
      onTake(entry.payloadBase64 ?? '', `${entry.channel} ${time(entry.time)}`);
    } catch (error) {
      tellProblem(error);
    }
  };
  return <NativeSelect label={t('Messages in quarantine that were not decoded')} data={[{ value: '', label: t('choose…') }, ...refused.data.map((entry) => ({ value: entry.id, label: `${time(entry.time)} · ${bytes(entry.bytes)} · ${entry.reason}` }))]} value="" onChange={(e) => { if (e.currentTarget.value) void take(e.currentTarget.value); }} />;
}

function Outcome({ tested }: { tested: Tested }) {
  const { t } = useWords();
  return (
    <Card withBorder data-testid="tested" role="status">
      <Stack gap="xs">
        <Text size="sm" className="quiet">{tested.script}{tested.cpuMs !== undefined && ` · ${tested.cpuMs.toFixed(2)} ms CPU`}{tested.heapBytes !== undefined && ` · ${bytes(tested.heapBytes)}`}</Text>
        {tested.failure && <Alert color="red" variant="light" title={t('The script failed')}>{tested.failure.message ?? JSON.stringify(tested.failure)}{tested.failure.line ? ` (${t('line {line}, column {column}', { line: tested.failure.line, column: tested.failure.column ?? 1 })})` : ''}</Alert>}
        {tested.decoded !== undefined && <><Text size="sm" fw={600}>{t('Decoded')}</Text><pre className="mono pre" tabIndex={0} aria-label={t('Decoded')}>{JSON.stringify(tested.decoded, null, 2)}</pre></>}
        {tested.console && <><Text size="sm" fw={600}>{t('Console')}</Text><pre className="mono pre" tabIndex={0} aria-label={t('Console')}>{tested.console}</pre></>}
        {tested.model && <><Text size="sm"><b>{t('What the model says')}:</b> <Code code={tested.model.code} /> · {t('{n} of {m} items would be stored', { n: tested.model.good, m: tested.model.items })}</Text><Reasons reasons={tested.model.rejected} /></>}
        {tested.golden && <GoldenOutcome golden={tested.golden} />}
      </Stack>
    </Card>
  );
}

function GoldenOutcome({ golden }: { golden: NonNullable<Tested['golden']> }) {
  const { t } = useWords();
  return (
    <Table aria-label={t('Golden tests')}>
      <Table.Tbody>
        {golden.map(({ name, passed, ...more }) => (
          <Table.Tr key={name}><Table.Td>{passed ? `✓ ${t('passed')}` : `✗ ${t('failed')}`}</Table.Td><Table.Td>{name}</Table.Td><Table.Td className="mono">{passed ? '' : JSON.stringify(more)}</Table.Td></Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}

function Versions({ name, hasDraft, onCures }: { name: string; hasDraft: boolean; onCures: (cures: Cure[]) => void }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const path = { params: { path: { name } } };
  const [shown, setShown] = useState<{ from: string; to: string }>();
  const versions = useQuery({ queryKey: ['script', name, 'versions'], queryFn: () => ok(api.GET('/api/v1/scripts/{name}/versions', path)) });
  return (
    <Asked query={versions}>
      {({ items }) => (
        <Stack>
          <Table aria-label={t('Versions')}>
            <Table.Thead><Table.Tr><Table.Th>{t('Version')}</Table.Th><Table.Th>{t('Published')}</Table.Th><Table.Th>{t('Size')}</Table.Th><Table.Th>{t('Golden tests')}</Table.Th><Table.Th>{t('Do')}</Table.Th></Table.Tr></Table.Thead>
            <Table.Tbody>
              {hasDraft && items.length > 0 && <Table.Tr><Table.Td>{t('draft')}</Table.Td><Table.Td /><Table.Td /><Table.Td /><Table.Td><Button size="compact-sm" variant="default" onClick={() => setShown({ from: 'live', to: 'draft' })}>{t('Compare with the one that runs')}</Button></Table.Td></Table.Tr>}
              {items.map((version) => (
                <Table.Tr key={version.version}>
                  <Table.Td>{version.version} {version.live && <Badge color="green" variant="light">{t('runs')}</Badge>}</Table.Td>
                  <Table.Td>{version.published}</Table.Td><Table.Td>{bytes(version.sourceBytes)}</Table.Td><Table.Td>{version.golden}</Table.Td>
                  <Table.Td>
                    {!version.live && (
                      <Group gap="xs">
                        <Button size="compact-sm" variant="default" onClick={() => setShown({ from: 'live', to: String(version.version) })}>{t('Compare with the one that runs')}</Button>
                        {may && <Sure size="compact-sm" color="orange" label={t('Run this version')} title={t('Run version {n}?', { n: version.version })} onSure={async () => {
                          const published = await ok(api.POST('/api/v1/scripts/{name}/rollback', { params: { path: { name }, query: { to: version.version } } }));
                          onCures((published as unknown as { cures?: Cure[] }).cures ?? []);
                          await client.invalidateQueries({ queryKey: ['script', name] });
                        }}>{t('Messages from now on are decoded by it.')}</Sure>}
                      </Group>
                    )}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
          {shown && <Suspense fallback={<Waiting />}><Compared key={`${shown.from} ${shown.to}`} name={name} {...shown} /></Suspense>}
        </Stack>
      )}
    </Asked>
  );
}

function Compared({ name, from, to }: { name: string; from: string; to: string }) {
  const { t } = useWords();
  const sourceOf = async (version: string) => {
    const path = { params: { path: { name } } };
    const file = await ok(version === 'live' ? api.GET('/api/v1/scripts/{name}', path) : version === 'draft' ? api.GET('/api/v1/scripts/{name}/draft', path) : api.GET('/api/v1/scripts/{name}/versions/{version}', { params: { path: { name, version: Number(version) } } }));
    return (file as unknown as ScriptFile).source;
  };
  const both = useQuery({ queryKey: ['script', name, 'both', from, to], queryFn: () => Promise.all([sourceOf(from), sourceOf(to)]) });
  return <Asked query={both}>{([a, b]) => <Differences label={t('From {from} to {to}', { from, to })} from={a} to={b} />}</Asked>;
}

function GoldenTests({ name, file }: { name: string; file: ScriptFile }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const [tests, setTests] = useState<{ name: string; decode: string; expect: string; fails: string; rest: Golden }[]>(() => (file.golden ?? []).map((golden) => ({ name: golden.name ?? '', decode: golden.decode ?? '', expect: golden.expect === undefined ? '' : JSON.stringify(golden.expect), fails: golden.fails ?? '', rest: golden })));
  const [tested, setTested] = useState<Tested>();
  const [error, setError] = useState<unknown>();
  const made = (): Golden[] => tests.map(({ name, decode, expect, fails, rest }) => ({ ...(rest.encode !== undefined && { encode: rest.encode }), ...(rest.time !== undefined && { time: rest.time }), ...(name && { name }), ...(decode && { decode }), ...(fails ? { fails } : { expect: JSON.parse(expect) as unknown }) }));
  const work = async (work: (golden: Golden[]) => Promise<void>) => {
    setError(undefined);
    try {
      await work(made());
    } catch (error) {
      setError(error instanceof SyntaxError ? new Problem(0, 'bad-request', error.message, t('what is expected is JSON')) : error);
    }
  };
  const save = () => work(async (golden) => {
    await saveDraft(name, { ...file, golden });
    await client.invalidateQueries({ queryKey: ['script', name] });
    tell(t('The draft is saved. Nothing that runs has changed.'));
  });
  const run = () => work(async (golden) => setTested((await ok(api.POST('/api/v1/scripts/{name}/test', { params: { path: { name } }, body: { golden } as never }))) as unknown as Tested));
  const put = (at: number, members: Partial<(typeof tests)[number]>) => setTests(tests.map((test, other) => (other === at ? { ...test, ...members } : test)));
  return (
    <Stack>
      <Text size="sm">{t('Inputs with the outcome that every version must give. Publishing runs them, and one that fails is a refusal.')}</Text>
      {tests.map((test, at) => {
        const n = at + 1;
        return (
          <Group key={at} align="flex-end" wrap="nowrap">
            <TextInput label={t('Name of test {n}', { n })} value={test.name} onChange={(e) => put(at, { name: e.currentTarget.value })} />
            <TextInput label={t('Bytes of test {n}, hex', { n })} value={test.decode} onChange={(e) => put(at, { decode: e.currentTarget.value })} />
            <TextInput label={t('Expects, JSON')} flex={1} value={test.expect} onChange={(e) => put(at, { expect: e.currentTarget.value })} />
            <TextInput label={t('Or fails with')} value={test.fails} onChange={(e) => put(at, { fails: e.currentTarget.value })} />
            <ActionIcon variant="default" size={36} aria-label={t('Remove {of}', { of: test.name || String(n) })} onClick={() => setTests(tests.filter((_, other) => other !== at))}>✕</ActionIcon>
          </Group>
        );
      })}
      <ProblemAlert error={error} />
      {may && <Group>
        <Button variant="default" onClick={() => setTests([...tests, { name: '', decode: '', expect: '', fails: '', rest: {} }])}>{t('Add a test')}</Button>
        <Button variant="default" disabled={tests.length === 0} onClick={() => void run()}>{t('Run them')}</Button>
        <Button onClick={() => void save()}>{t('Save draft')}</Button>
      </Group>}
      {tested && <Outcome tested={tested} />}
    </Stack>
  );
}
