// The parts of a rule's form that grow: conditions, steps, named texts.
import { ActionIcon, Autocomplete, Button, Card, Group, NativeSelect, Stack, TagsInput, Text, TextInput } from '@mantine/core';
import { Suspense, lazy, type ReactNode } from 'react';
import type { Comparison, RuleStep } from '../api/types';
import { useWords } from '../i18n';
import { Waiting } from '../ui/page';

const Editor = lazy(() => import('../ui/editor'));

const SCRIPT = 'function transform(message) {\n  const row = message.payload[0];\n  return message;\n}\n';

function Remove({ of, onClick }: { of: string; onClick: () => void }) {
  const { t } = useWords();
  return <ActionIcon variant="default" size={36} aria-label={t('Remove {of}', { of })} onClick={onClick}>✕</ActionIcon>;
}

/** A map of texts: a row of two fields for each. */
export function Entries({ label, name, value, of, onChange }: { label: string; name: string; value: string; of: Record<string, string>; onChange: (of: Record<string, string>) => void }) {
  const { t } = useWords();
  const rows = Object.entries(of);
  const put = (rows: [string, string][]) => onChange(Object.fromEntries(rows));
  return (
    <Stack gap={6} role="group" aria-label={label}>
      {rows.map(([key, text], at) => (
        <Group key={at} gap="xs" wrap="nowrap" align="flex-end">
          <TextInput flex={1} label={t('{name} {n}', { name, n: at + 1 })} value={key} onChange={(e) => put(rows.map((row, other) => (other === at ? [e.currentTarget.value, row[1]] : row)))} />
          <TextInput flex={2} label={t('{name} {n}', { name: value, n: at + 1 })} value={text} onChange={(e) => put(rows.map((row, other) => (other === at ? [row[0], e.currentTarget.value] : row)))} />
          <Remove of={key || String(at + 1)} onClick={() => put(rows.filter((_, other) => other !== at))} />
        </Group>
      ))}
      <Group><Button size="compact-sm" variant="default" disabled={'' in of} onClick={() => put([...rows, ['', '']])}>{t('Add: {what}', { what: label })}</Button></Group>
    </Stack>
  );
}

/** A number, a boolean or a text, as one types it. */
function constant(text: string): boolean | number | string {
  if (text === 'true' || text === 'false') return text === 'true';
  return text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** Comparisons by the name of a value; all must hold. */
export function Conditions({ of, known, onChange }: { of: Record<string, Comparison>; known: string[]; onChange: (of: Record<string, Comparison>) => void }) {
  const { t } = useWords();
  const rows = Object.entries(of).flatMap(([name, held]) => Object.entries(held).map(([how, value]) => ({ name, how, value: String(value) })));
  const put = (rows: { name: string; how: string; value: string }[]) => {
    const made: Record<string, Record<string, unknown>> = {};
    for (const row of rows) (made[row.name] ??= {})[row.how] = row.how === 'equals' || row.how === 'not' ? constant(row.value) : Number(row.value);
    onChange(made as Record<string, Comparison>);
  };
  const change = (at: number, members: Partial<(typeof rows)[number]>) => put(rows.map((row, other) => (other === at ? { ...row, ...members } : row)));
  const hows = [{ value: 'above', label: '>' }, { value: 'atLeast', label: '≥' }, { value: 'below', label: '<' }, { value: 'atMost', label: '≤' }, { value: 'equals', label: '=' }, { value: 'not', label: '≠' }];
  return (
    <Stack gap={6} role="group" aria-label={t('Conditions')}>
      {rows.map((row, at) => (
        <Group key={at} gap="xs" wrap="nowrap" align="flex-end">
          <Autocomplete flex={2} label={t('Value {n}', { n: at + 1 })} data={known} value={row.name} onChange={(name) => change(at, { name })} />
          <NativeSelect w={70} label={t('Is {n}', { n: at + 1 })} data={hows} value={row.how} onChange={(e) => change(at, { how: e.currentTarget.value })} />
          <TextInput flex={1} label={t('Than {n}', { n: at + 1 })} value={row.value} onChange={(e) => change(at, { value: e.currentTarget.value })} />
          <Remove of={row.name || String(at + 1)} onClick={() => put(rows.filter((_, other) => other !== at))} />
        </Group>
      ))}
      <Group><Button size="compact-sm" variant="default" disabled={'' in of} onClick={() => put([...rows, { name: '', how: 'above', value: '0' }])}>{t('Add a condition')}</Button></Group>
    </Stack>
  );
}

type Kind = keyof RuleStep;

export function Steps({ steps, known, onChange }: { steps: RuleStep[]; known: string[]; onChange: (steps: RuleStep[]) => void }) {
  const { t } = useWords();
  const begun: Record<Kind, RuleStep> = { keep: { keep: '' }, scale: { scale: { '': { factor: 1, offset: 0 } } }, rename: { rename: { '': '' } }, set: { set: { '': '' } }, select: { select: [] }, script: { script: SCRIPT } };
  const words: Record<Kind, string> = { keep: t('keep rows where'), scale: t('scale'), rename: t('rename'), set: t('set a value'), select: t('leave out all others'), script: t('script') };
  const put = (at: number, step: RuleStep) => onChange(steps.map((other, place) => (place === at ? step : other)));
  const hasScript = steps.some((step) => step.script !== undefined);
  const move = (at: number) => {
    const [before, here] = [steps[at - 1], steps[at]];
    if (before && here) onChange(steps.map((step, place) => (place === at - 1 ? here : place === at ? before : step)));
  };
  return (
    <Stack gap="xs">
      {steps.length === 0 && <Text size="sm">{t('Nothing: the row goes on as it is.')}</Text>}
      {steps.map((step, at) => {
        const kind = (Object.keys(step)[0] ?? 'keep') as Kind;
        return (
          <Card withBorder padding="xs" key={at} component="section" aria-label={t('Step {n}: {what}', { n: at + 1, what: words[kind] })}>
            <Group justify="space-between" mb={6}>
              <Text size="sm" fw={600}>{at + 1}. {words[kind]}</Text>
              <Group gap={4}>
                {at > 0 && kind !== 'script' && <ActionIcon variant="default" size={28} aria-label={t('Move step {n} up', { n: at + 1 })} onClick={() => move(at)}>↑</ActionIcon>}
                <ActionIcon variant="default" size={28} aria-label={t('Remove {of}', { of: t('Step {n}: {what}', { n: at + 1, what: words[kind] }) })} onClick={() => onChange(steps.filter((_, other) => other !== at))}>✕</ActionIcon>
              </Group>
            </Group>
            <Fields step={step} known={known} onChange={(step) => put(at, step)} />
          </Card>
        );
      })}
      <Group gap="xs">
        {(Object.keys(begun) as Kind[]).map((kind) => (
          <Button key={kind} size="compact-sm" variant="default" disabled={hasScript} onClick={() => onChange([...steps, begun[kind]])}>+ {words[kind]}</Button>
        ))}
      </Group>
      <Text size="xs" className="quiet">{t('Expressions are CEL over the values of the row, such as P_avg / pow(Ws_avg, 3). A script is the last step.')}</Text>
    </Stack>
  );
}

function Fields({ step, known, onChange }: { step: RuleStep; known: string[]; onChange: (step: RuleStep) => void }): ReactNode {
  const { t } = useWords();
  if (step.keep !== undefined) return <TextInput aria-label={t('Expression')} placeholder="P_avg > 0" classNames={{ input: 'mono' }} value={step.keep} onChange={(e) => onChange({ keep: e.currentTarget.value })} />;
  if (step.select) return <TagsInput aria-label={t('Values that stay')} data={known} value={step.select} onChange={(select) => onChange({ select })} />;
  if (step.rename) return <Entries label={t('Names')} name={t('From name')} value={t('To name')} of={step.rename} onChange={(rename) => onChange({ rename })} />;
  if (step.set) return <Entries label={t('Values')} name={t('New value')} value={t('Expression')} of={step.set} onChange={(set) => onChange({ set })} />;
  if (step.script !== undefined) return <Suspense fallback={<Waiting />}><Editor language="javascript" label={t('Script')} value={step.script} onChange={(script) => onChange({ script })} /></Suspense>;
  const rows = Object.entries(step.scale ?? {});
  const put = (rows: [string, { factor?: number; offset?: number }][]) => onChange({ scale: Object.fromEntries(rows) });
  const change = (at: number, row: [string, { factor?: number; offset?: number }]) => put(rows.map((other, place) => (place === at ? row : other)));
  return (
    <Stack gap={6}>
      {rows.map(([name, scale], at) => (
        <Group key={at} gap="xs" wrap="nowrap" align="flex-end">
          <Autocomplete flex={2} label={t('Value {n}', { n: at + 1 })} data={known} value={name} onChange={(name) => change(at, [name, scale])} />
          <TextInput flex={1} type="number" step="any" label={t('Factor {n}', { n: at + 1 })} value={String(scale.factor ?? 1)} onChange={(e) => change(at, [name, { ...scale, factor: Number(e.currentTarget.value) }])} />
          <TextInput flex={1} type="number" step="any" label={t('Offset {n}', { n: at + 1 })} value={String(scale.offset ?? 0)} onChange={(e) => change(at, [name, { ...scale, offset: Number(e.currentTarget.value) }])} />
          <Remove of={name || String(at + 1)} onClick={() => put(rows.filter((_, other) => other !== at))} />
        </Group>
      ))}
      <Group><Button size="compact-sm" variant="default" disabled={'' in (step.scale ?? {})} onClick={() => put([...rows, ['', { factor: 1, offset: 0 }]])}>{t('Add: {what}', { what: t('Values') })}</Button></Group>
    </Stack>
  );
}
