// Golden tests of a script: inputs with the outcome that every version must give.
import { ActionIcon, Button, Group, NativeSelect, Stack, Text, TextInput } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Problem, api, ok } from '../api/client';
import type { Golden, ScriptFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { ProblemAlert, tell } from '../ui/problem';
import { Outcome, saveDraft, type Tested } from './script-outcome';
import { hexOf, payloadOf, useSamples } from './script-samples';

export function GoldenTests({ name, file }: { name: string; file: ScriptFile }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const [tests, setTests] = useState<{ name: string; decode: string; expect: string; fails: string; rest: Golden }[]>(() => (file.golden ?? []).map((golden) => ({ name: golden.name ?? '', decode: golden.decode ?? '', expect: golden.expect === undefined ? '' : JSON.stringify(golden.expect), fails: golden.fails ?? '', rest: golden })));
  const [tested, setTested] = useState<Tested>();
  const [error, setError] = useState<unknown>();
  const made = (): Golden[] => tests.map(({ name, decode, expect, fails, rest }) => ({ ...(rest.encode !== undefined && { encode: rest.encode }), ...(rest.time !== undefined && { time: rest.time }), ...(name && { name }), ...(decode && { decode }), ...(fails ? { fails } : { expect: JSON.parse(expect) as unknown }) }));
  const plainly = async (work: () => Promise<void>) => {
    setError(undefined);
    try {
      await work();
    } catch (error) {
      setError(error);
    }
  };
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
  const samples = useSamples(name);
  // A sample as the bytes of a further test; what is expected is for a person to say.
  const takeSample = (sample: string) => plainly(async () => {
    const hex = hexOf(await payloadOf(name, sample));
    setTests([...tests, { name: sample, decode: hex, expect: '', fails: '', rest: {} }]);
  });
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
        {samples.length > 0 && <NativeSelect aria-label={t('Add a test of a sample')} data={[{ value: '', label: t('Add a test of a sample…') }, ...samples.map((sample) => sample.name)]} value="" onChange={(e) => { if (e.currentTarget.value) void takeSample(e.currentTarget.value); }} />}
        <Button variant="default" disabled={tests.length === 0} onClick={() => void run()}>{t('Run them')}</Button>
        <Button onClick={() => void save()}>{t('Save draft')}</Button>
      </Group>}
      {tested && <Outcome tested={tested} />}
    </Stack>
  );
}
