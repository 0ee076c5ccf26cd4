// What a policy has computed once values are stored: rollups by windows, and reductions.
import { ActionIcon, Autocomplete, Button, Card, Group, MultiSelect, NativeSelect, NumberInput, Select, Stack, Switch, TagsInput, Text, TextInput } from '@mantine/core';
import type { ReactNode } from 'react';
import type { ReductionRule, RollupRule } from '../api/types';
import { useWords } from '../i18n';
import { Kept, others } from '../ui/kept';
import { kept } from './draft';

const FUNCTIONS = ['count', 'sum', 'min', 'max', 'avg', 'first', 'last', 'twa', 'durations', 'increase', 'stddev', 'firstTime', 'lastTime'];
const INTERVALS = ['1m', '5m', '10m', '15m', '30m', '1h', '6h', '1d', '1w', '1mo'];
const RESTARTS = ['1m', '10m', '1h', '6h', '12h', '1d'];
const ZONES = Intl.supportedValuesOf('timeZone');
const ROLLUP = ['rollup', 'points', 'interval', 'timeZone', 'functions', 'hold', 'lookback', 'quiet', 'within'];
const REDUCTION = ['reduction', 'points', 'rateOfChange', 'deadBand', 'swingingDoor', 'restart', 'quiet', 'within'];

export const tidyRollup = (rule: RollupRule) => ({ ...kept(rule, ROLLUP), functions: rule.functions });
export const tidyReduction = (rule: ReductionRule) => ({ ...kept(rule, REDUCTION), points: rule.points });

function Part({ title, onRemove, children }: { title: string; onRemove: () => void; children: ReactNode }) {
  const { t } = useWords();
  return (
    <Card withBorder padding="sm" component="section" aria-label={title}>
      <Stack gap="xs">
        <Group justify="space-between"><Text size="sm" fw={600}>{title}</Text><ActionIcon variant="default" size={28} aria-label={t('Remove {of}', { of: title })} onClick={onRemove}>✕</ActionIcon></Group>
        {children}
      </Stack>
    </Card>
  );
}

/** A length of time, as 30m. */
function Length({ label, placeholder, value, onChange }: { label: string; placeholder: string; value: string | undefined; onChange: (value: string | undefined) => void }) {
  return <TextInput label={label} w={130} placeholder={placeholder} value={value ?? ''} onChange={(e) => onChange(e.currentTarget.value || undefined)} />;
}

export function RollupRules({ rules, known, onChange }: { rules: RollupRule[]; known: string[]; onChange: (rules: RollupRule[]) => void }) {
  const { t } = useWords();
  return (
    <Stack gap="sm">
      {rules.length === 0 && <Text size="sm">{t('None: aggregates are folded when they are asked for.')}</Text>}
      {rules.map((rule, at) => {
        const n = at + 1;
        const put = (members: { [K in keyof RollupRule]?: RollupRule[K] | undefined }) => onChange(rules.map((other, place) => (place === at ? ({ ...rule, ...members } as RollupRule) : other)));
        const holds = rule.functions.some((name) => ['twa', 'durations', 'increase'].includes(name));
        return (
          <Part key={at} title={t('Rollup {n}', { n })} onRemove={() => onChange(rules.filter((_, place) => place !== at))}>
            <Group align="flex-end" gap="xs">
              <TextInput label={t('Name of rollup {n}', { n })} required w={180} value={rule.rollup} onChange={(e) => put({ rollup: e.currentTarget.value })} />
              <TagsInput label={t('Points of rollup {n}', { n })} w={240} data={known} placeholder={rule.points?.length ? '' : t('all that take a function')} value={rule.points ?? []} onChange={(points) => put({ points })} />
              <Autocomplete label={t('Windows of rollup {n}', { n })} required w={150} data={INTERVALS} value={rule.interval} onChange={(interval) => put({ interval })} />
            </Group>
            <Group align="flex-end" gap="xs">
              <MultiSelect label={t('Functions of rollup {n}', { n })} w={300} searchable data={FUNCTIONS} value={rule.functions} onChange={(functions) => put({ functions })} />
              <Select label={t('Zone of rollup {n}', { n })} w={200} searchable clearable limit={40} placeholder="UTC" data={ZONES} value={rule.timeZone ?? null} onChange={(timeZone) => put({ timeZone: timeZone ?? undefined })} />
            </Group>
            <Group align="flex-end" gap="xs">
              {(holds || rule.hold) && <Length label={t('A value holds {n}', { n })} placeholder="1h" value={rule.hold} onChange={(hold) => put({ hold })} />}
              {(holds || rule.lookback) && <Length label={t('Looks back {n}', { n })} placeholder={rule.hold ?? '1h'} value={rule.lookback} onChange={(lookback) => put({ lookback })} />}
              <Length label={t('Quiet for {n}', { n })} placeholder="5s" value={rule.quiet} onChange={(quiet) => put({ quiet })} />
              <Length label={t('At the latest {n}', { n })} placeholder="1m" value={rule.within} onChange={(within) => put({ within })} />
            </Group>
            <Kept of={others(rule, ROLLUP)} />
          </Part>
        );
      })}
      <Group><Button size="compact-sm" variant="default" onClick={() => onChange([...rules, { rollup: '', interval: '1h', functions: ['min', 'max', 'avg'] }])}>{t('+ rollup')}</Button></Group>
      <Text size="xs" className="quiet">{t('A window is computed once no value came for the quiet time, at the latest after the other. Names apart, a change computes it anew.')}</Text>
    </Stack>
  );
}

type How = 'none' | 'deadBand' | 'swingingDoor';

export function ReductionRules({ rules, known, onChange }: { rules: ReductionRule[]; known: string[]; onChange: (rules: ReductionRule[]) => void }) {
  const { t } = useWords();
  return (
    <Stack gap="sm">
      {rules.length === 0 && <Text size="sm">{t('None: nothing is said of how values follow each other.')}</Text>}
      {rules.map((rule, at) => {
        const n = at + 1;
        const put = (members: { [K in keyof ReductionRule]?: ReductionRule[K] | undefined }) => onChange(rules.map((other, place) => (place === at ? ({ ...rule, ...members } as ReductionRule) : other)));
        const how: How = rule.deadBand ? 'deadBand' : rule.swingingDoor ? 'swingingDoor' : 'none';
        const deviation = (rule.deadBand ?? rule.swingingDoor)?.deviation;
        const reduce = (how: How, deviation: number) => put({ deadBand: how === 'deadBand' ? { deviation } : undefined, swingingDoor: how === 'swingingDoor' ? { deviation } : undefined });
        return (
          <Part key={at} title={t('Reduction {n}', { n })} onRemove={() => onChange(rules.filter((_, place) => place !== at))}>
            <Group align="flex-end" gap="xs">
              <TextInput label={t('Name of reduction {n}', { n })} required w={180} value={rule.reduction} onChange={(e) => put({ reduction: e.currentTarget.value })} />
              <TagsInput label={t('Points of reduction {n}', { n })} w={240} data={known} value={rule.points} onChange={(points) => put({ points })} />
            </Group>
            <Group align="flex-end" gap="xs">
              <NativeSelect label={t('Keeps {n}', { n })} value={how} onChange={(e) => reduce(e.currentTarget.value as How, deviation ?? 1)} data={[{ value: 'swingingDoor', label: t('what bends the line (swinging door)') }, { value: 'deadBand', label: t('what is further away (dead band)') }, { value: 'none', label: t('every value') }]} />
              {how !== 'none' && <NumberInput label={t('Deviation {n}', { n })} w={130} min={0} hideControls value={deviation ?? ''} onChange={(value) => reduce(how, Number(value))} />}
              <Autocomplete label={t('Begins anew every {n}', { n })} w={150} placeholder="1d" data={RESTARTS} value={rule.restart ?? ''} onChange={(restart) => put({ restart: restart || undefined })} />
            </Group>
            <Group align="flex-end" gap="xs">
              <Switch mb={8} label={t('Flags what changes too fast {n}', { n })} checked={rule.rateOfChange !== undefined} onChange={(e) => put({ rateOfChange: e.currentTarget.checked ? { most: 1, per: '1m' } : undefined })} />
              {rule.rateOfChange && <>
                <NumberInput label={t('At most {n}', { n })} w={120} min={0} hideControls value={rule.rateOfChange.most} onChange={(most) => put({ rateOfChange: { per: '1m', ...rule.rateOfChange, most: Number(most) } })} />
                <TextInput label={t('In {n}', { n })} w={100} value={rule.rateOfChange.per} onChange={(e) => put({ rateOfChange: { most: 1, ...rule.rateOfChange, per: e.currentTarget.value } })} />
              </>}
            </Group>
            <Group align="flex-end" gap="xs">
              <Length label={t('Quiet for {n}', { n })} placeholder="5s" value={rule.quiet} onChange={(quiet) => put({ quiet })} />
              <Length label={t('At the latest {n}', { n })} placeholder="1m" value={rule.within} onChange={(within) => put({ within })} />
            </Group>
            <Kept of={others(rule, REDUCTION)} />
          </Part>
        );
      })}
      <Group><Button size="compact-sm" variant="default" onClick={() => onChange([...rules, { reduction: '', points: [], swingingDoor: { deviation: 1 } }])}>{t('+ reduction')}</Button></Group>
      <Text size="xs" className="quiet">{t('Raw values stay as they are: a reduction says of each whether it is kept, and is read by its name.')}</Text>
    </Stack>
  );
}
