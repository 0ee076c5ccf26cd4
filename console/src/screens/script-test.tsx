// A test run of a script: bytes are decoded, or a document is encoded. Nothing is stored.
import { Button, Group, NativeSelect, Radio, Stack, Text, TextInput, Textarea, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Problem, api, ok } from '../api/client';
import type { Golden, Page as PageOf, Quarantined, ScriptFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { bytes, useTime } from '../time';
import { ProblemAlert, tell, tellProblem } from '../ui/problem';
import { useWork } from '../ui/work';
import { useProducts } from './channels';
import { Outcome, saveDraft, type Tested } from './script-outcome';
import { SampleChoice, hexOf, keepSample, type Input, type Typed } from './script-samples';

type What = 'decode' | 'encode';
const REPLY = JSON.stringify({ id: '1', code: 200, data: '' }, null, 2);

/** `file` is what is on the screen; `prepare` saves it, so that what runs is what is seen. */
export function Test({ name, file, prepare }: { name: string; file: ScriptFile; prepare: () => Promise<void> }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const [what, setWhat] = useState<What>('decode');
  const [typed, setTyped] = useState<Typed>({ form: 'hex', text: '' });
  const [reply, setReply] = useState(REPLY);
  const [title, setTitle] = useState('');
  const [tested, setTested] = useState<{ outcome: Tested; of: Golden }>();
  const { busy, error, work } = useWork();
  const input = () => ({ [typed.form]: typed.form === 'text' ? typed.text : typed.text.replace(/\s/g, '') }) as Input;
  const document = () => {
    try {
      return JSON.parse(reply) as unknown;
    } catch (error) {
      throw new Problem(0, 'bad-request', (error as Error).message, t('what is encoded is JSON'));
    }
  };
  const run = () => work(async () => {
    // A golden test made of it has the same time of receipt: what reads the clock gives the same.
    const time = Date.now();
    const body = { ...(what === 'decode' ? { decode: input() } : { encode: document() }), time };
    await prepare();
    const outcome = (await ok(api.POST('/api/v1/scripts/{name}/test', { params: { path: { name } }, body: body as never }))) as unknown as Tested;
    setTested({ outcome, of: { ...(what === 'decode' ? { decode: hexOf(input()) } : { encode: document() }), time } });
  });
  const keep = () => work(async () => {
    await keepSample(name, title, typed);
    await client.invalidateQueries({ queryKey: ['script', name, 'samples'] });
    tell(t('The sample is kept with the script.'));
  });
  return (
    <Stack>
      <Title order={2} size="h4">{t('Test run')}</Title>
      <Radio.Group label={t('What is tried')} value={what} onChange={(what) => { setWhat(what as What); setTested(undefined); }}>
        <Group mt={4}><Radio value="decode" label={t('Decode a message')} /><Radio value="encode" label={t('Encode a reply')} /></Group>
      </Radio.Group>
      {what === 'decode' ? (
        <>
          <Refused product={file.product} onTake={(base64, title) => { setTyped({ form: 'base64', text: base64 }); setTitle(title); }} />
          <SampleChoice script={name} chosen={title} onTake={(sample, typed) => { setTyped(typed); setTitle(sample); }} />
          <Radio.Group label={t('Payload as')} value={typed.form} onChange={(form) => setTyped({ ...typed, form: form as Typed['form'] })}><Group mt={4}><Radio value="hex" label={t('Hex')} /><Radio value="base64" label="Base64" /><Radio value="text" label={t('Text')} /></Group></Radio.Group>
          <Textarea label={t('Payload')} value={typed.text} onChange={(e) => setTyped({ ...typed, text: e.currentTarget.value })} autosize minRows={2} maxRows={8} classNames={{ input: 'mono' }} />
        </>
      ) : <Textarea label={t('Reply, JSON')} value={reply} onChange={(e) => setReply(e.currentTarget.value)} autosize minRows={4} maxRows={12} classNames={{ input: 'mono' }} />}
      <Group align="flex-end">
        <Button loading={busy} disabled={!may || (what === 'decode' ? !typed.text : !reply)} onClick={() => void run()}>{t('Run')}</Button>
        {may && what === 'decode' && (
          <>
            <TextInput label={t('Name of the sample')} value={title} onChange={(e) => setTitle(e.currentTarget.value)} w={180} maxLength={100} />
            <Button variant="default" disabled={!title || !typed.text || busy} onClick={() => void keep()}>{t('Keep as sample')}</Button>
          </>
        )}
      </Group>
      {!may && <Text size="sm" className="quiet">{t('Only an operator runs it.')}</Text>}
      <ProblemAlert error={error} />
      {tested && (
        <>
          <Outcome tested={tested.outcome} />
          {may && <AsGolden name={name} file={file} tested={tested.outcome} of={tested.of} title={title} />}
        </>
      )}
    </Stack>
  );
}

/** Makes a golden test of a run: the same input has to give the same from now on. */
function AsGolden({ name, file, tested, of, title }: { name: string; file: ScriptFile; tested: Tested; of: Golden; title: string }) {
  const { t } = useWords();
  const client = useQueryClient();
  const expect = tested.decoded ?? tested.encoded;
  if (expect === undefined || (file.golden ?? []).some((golden) => JSON.stringify([golden.decode, golden.encode]) === JSON.stringify([of.decode, of.encode]))) return null;
  const keep = async () => {
    try {
      await saveDraft(name, { ...file, golden: [...(file.golden ?? []), { ...(title && { name: title }), ...of, expect }] });
      await client.invalidateQueries({ queryKey: ['script', name] });
      tell(t('It is a golden test of the draft.'));
    } catch (error) {
      tellProblem(error);
    }
  };
  return <Group><Button size="compact-sm" variant="default" onClick={() => void keep()}>{t('Make it a golden test')}</Button></Group>;
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
