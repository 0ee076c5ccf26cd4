// Sample payloads of a script, kept by the gateway: chosen for a test run, saved from one, deleted.
import { ActionIcon, Group, NativeSelect } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { api, ok, type Schemas } from '../api/client';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { bytes } from '../time';
import { tellProblem } from '../ui/problem';

export type Input = Schemas['ScriptInput'];

export interface Typed {
  form: 'hex' | 'base64' | 'text';
  text: string;
}

const inputOf = ({ form, text }: Typed) => ({ [form]: text }) as Input;

export function typedOf(input: Input): Typed {
  const [form, text] = Object.entries(input)[0] ?? ['hex', ''];
  return { form: form as Typed['form'], text: String(text) };
}

/** Bytes as hex digits, whatever they were written as. */
export function hexOf(input: Input): string {
  const { form, text } = typedOf(input);
  if (form === 'hex') return text.replace(/\s/g, '');
  const all = form === 'text' ? new TextEncoder().encode(text) : Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  return [...all].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

const key = (script: string) => ['script', script, 'samples'];

export function useSamples(script: string): Schemas['ScriptSample'][] {
  const samples = useQuery({ queryKey: key(script), queryFn: () => ok(api.GET('/api/v1/scripts/{name}/samples', { params: { path: { name: script } } })) });
  return samples.data?.items ?? [];
}

export async function payloadOf(script: string, sample: string): Promise<Input> {
  const found = await ok(api.GET('/api/v1/scripts/{name}/samples/{sample}', { params: { path: { name: script, sample } } }));
  if (!found.payload) throw new Error('a sample has a payload');
  return found.payload;
}

export async function keepSample(script: string, sample: string, typed: Typed) {
  await ok(api.PUT('/api/v1/scripts/{name}/samples/{sample}', { params: { path: { name: script, sample } }, body: { payload: inputOf(typed) } }));
}

/** The library: one is taken, or deleted. */
export function SampleChoice({ script, chosen, onTake }: { script: string; chosen: string; onTake: (sample: string, typed: Typed) => void }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const samples = useSamples(script);
  if (samples.length === 0) return null;
  const work = async (work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      tellProblem(error);
    }
  };
  const take = (sample: string) => work(async () => onTake(sample, typedOf(await payloadOf(script, sample))));
  const remove = () => work(async () => {
    await ok(api.DELETE('/api/v1/scripts/{name}/samples/{sample}', { params: { path: { name: script, sample: chosen } } }));
    await client.invalidateQueries({ queryKey: key(script) });
  });
  return (
    <Group align="flex-end" gap="xs" wrap="nowrap">
      <NativeSelect
        label={t('Sample payloads')} flex={1} data={[{ value: '', label: t('choose…') }, ...samples.map((sample) => ({ value: sample.name, label: `${sample.name} · ${bytes(sample.bytes)}` }))]}
        value={samples.some((sample) => sample.name === chosen) ? chosen : ''} onChange={(e) => { if (e.currentTarget.value) void take(e.currentTarget.value); }}
      />
      {may && samples.some((sample) => sample.name === chosen) && <ActionIcon variant="default" size={36} aria-label={t('Delete the sample {name}', { name: chosen })} onClick={() => void remove()}>✕</ActionIcon>}
    </Group>
  );
}
