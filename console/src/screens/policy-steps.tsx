// What a policy does to values, step by step. A step that this form does not know is shown and kept.
import { ActionIcon, Button, Group, NativeSelect, NumberInput, Stack, TagsInput, Text, TextInput } from '@mantine/core';
import type { PolicyStep } from '../api/types';
import { useWords } from '../i18n';
import { Kept, others } from '../ui/kept';
import { BEGUN_SCRIPT, ScriptFields } from './policy-script';

type Kind = Exclude<keyof PolicyStep, 'points'>;
const BEGUN_STEPS: Record<Kind, Omit<PolicyStep, 'points'>> = {
  unit: { unit: { from: '', to: '' } }, scale: { scale: { factor: 1, offset: 0 } }, clamp: { clamp: {} }, range: { range: { otherwise: 'flag', quality: 1 } },
  rename: { rename: '' }, copy: { copy: '' }, expression: { expression: '' }, script: BEGUN_SCRIPT,
};

export function Steps({ steps, known, onChange }: { steps: PolicyStep[]; known: string[]; onChange: (steps: PolicyStep[]) => void }) {
  const { t } = useWords();
  const words: Record<Kind, string> = { unit: t('convert'), scale: t('scale'), clamp: t('clamp'), range: t('check the range'), rename: t('rename'), copy: t('copy'), expression: t('compute'), script: t('run a script') };
  const put = (at: number, step: PolicyStep) => onChange(steps.map((other, place) => (place === at ? step : other)));
  return (
    <Stack gap="xs">
      {steps.length === 0 && <Text size="sm">{t('Nothing: values are stored as they come.')}</Text>}
      {steps.map((step, at) => {
        const n = at + 1;
        const kind = Object.keys(step).find((key) => key !== 'points') ?? 'scale';
        const what = kind in words ? words[kind as Kind] : kind;
        return (
          <Group key={at} align="flex-end" gap="xs" role="group" aria-label={t('Step {n}: {what}', { n, what })}>
            <TagsInput label={`${n}. ${what}`} w={220} data={known} value={step.points} onChange={(points) => put(at, { ...step, points })} />
            {kind in words ? <Fields step={step} n={n} onChange={(members) => put(at, { ...step, ...members })} /> : <Kept of={others(step, ['points'])} />}
            <ActionIcon variant="default" size={36} aria-label={t('Remove {of}', { of: t('Step {n}: {what}', { n, what }) })} onClick={() => onChange(steps.filter((_, other) => other !== at))}>✕</ActionIcon>
          </Group>
        );
      })}
      <Group gap="xs">{(Object.keys(words) as Kind[]).map((kind) => <Button key={kind} size="compact-sm" variant="default" onClick={() => onChange([...steps, { points: [], ...BEGUN_STEPS[kind] }])}>+ {words[kind]}</Button>)}</Group>
    </Stack>
  );
}

function Fields({ step, n, onChange }: { step: PolicyStep; n: number; onChange: (members: Partial<PolicyStep>) => void }) {
  const { t } = useWords();
  const number = (label: string, value: number | undefined, told: (value: number | undefined) => void) => (
    <NumberInput label={label} w={100} hideControls value={value ?? ''} onChange={(value) => told(value === '' ? undefined : Number(value))} />
  );
  const text = (label: string, value: string, told: (value: string) => void, placeholder = '') => <TextInput label={label} w={150} value={value} placeholder={placeholder} onChange={(e) => told(e.currentTarget.value)} />;
  const { scale, unit, clamp, range, script } = step;
  if (script) return <ScriptFields script={script} n={n} onChange={(script) => onChange({ script })} />;
  const bounds = <T extends { min?: number; max?: number }>(of: T, told: (of: T) => void) => <>{number(t('Min {n}', { n }), of.min, (min) => told({ ...of, min }))}{number(t('Max {n}', { n }), of.max, (max) => told({ ...of, max }))}</>;
  if (scale) return <>{number(t('Factor {n}', { n }), scale.factor ?? 1, (factor) => onChange({ scale: { ...scale, factor: factor ?? 1 } }))}{number(t('Offset {n}', { n }), scale.offset ?? 0, (offset) => onChange({ scale: { ...scale, offset: offset ?? 0 } }))}</>;
  if (unit) return <>{text(t('From unit {n}', { n }), unit.from, (from) => onChange({ unit: { ...unit, from } }), '[degF]')}{text(t('To unit {n}', { n }), unit.to, (to) => onChange({ unit: { ...unit, to } }), 'Cel')}</>;
  if (clamp) return bounds(clamp, (clamp) => onChange({ clamp }));
  if (range) {
    return (
      <>
        {bounds(range, (range) => onChange({ range }))}
        <NativeSelect
          label={t('Otherwise {n}', { n })} value={range.otherwise} data={[{ value: 'flag', label: t('flag it') }, { value: 'drop', label: t('drop it') }, { value: 'quarantine', label: t('refuse the item') }]}
          onChange={(e) => { const { quality: _, ...rest } = range; const otherwise = e.currentTarget.value as 'flag'; onChange({ range: { ...rest, otherwise, ...(otherwise === 'flag' && { quality: 1 }) } }); }}
        />
        {range.otherwise === 'flag' && number(t('Quality {n}', { n }), range.quality, (quality) => onChange({ range: { ...range, quality: quality ?? 1 } }))}
      </>
    );
  }
  if (step.rename !== undefined) return text(t('Stored as {n}', { n }), step.rename, (rename) => onChange({ rename }));
  if (step.copy !== undefined) return text(t('Stored as well as {n}', { n }), step.copy, (copy) => onChange({ copy }));
  return <TextInput label={t('Expression {n}', { n })} w={260} classNames={{ input: 'mono' }} placeholder="P_avg * 2.0" value={step.expression ?? ''} onChange={(e) => onChange({ expression: e.currentTarget.value })} />;
}
