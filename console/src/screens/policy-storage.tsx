// What a policy keeps: rules in a list, each about some points, or about events or attributes.
import { ActionIcon, Button, Card, Checkbox, Group, MultiSelect, NativeSelect, NumberInput, Stack, TagsInput, Text } from '@mantine/core';
import type { StorageRule } from '../api/types';
import { useWords } from '../i18n';
import { Kept, others } from '../ui/kept';
import { kept } from './draft';

const KNOWN = ['models', 'of', 'points', 'keep', 'changeOnly', 'keepDays', 'rawDays', 'by'];
const DAYS_MAX = 36_500;
const RAW_DAYS = 90;

/** As a person writes them: nothing, one rule, or a list; what a rule does not say is left out. */
export function tidyRules(rules: StorageRule | StorageRule[] | undefined): StorageRule | StorageRule[] | undefined {
  const tidied = [rules ?? []].flat().map((rule) => kept(rule, KNOWN));
  return tidied.length > 1 ? tidied : tidied[0];
}

export function StorageRules({ rules, models, known, onChange }: { rules: StorageRule[]; models: string[]; known: string[]; onChange: (rules: StorageRule[]) => void }) {
  const { t } = useWords();
  return (
    <Stack gap="sm">
      {rules.length === 0 && <Text size="sm">{t('No rule: what other policies do not take away is kept, for ever.')}</Text>}
      {rules.map((rule, at) => (
        <Rule
          key={at} rule={rule} n={at + 1} models={models} known={known} onChange={(rule) => onChange(rules.map((other, place) => (place === at ? rule : other)))}
          onRemove={() => onChange(rules.filter((_, place) => place !== at))}
        />
      ))}
      <Group><Button size="compact-sm" variant="default" onClick={() => onChange([...rules, { keepDays: 365 }])}>{t('+ storage rule')}</Button></Group>
    </Stack>
  );
}

/** The rule with a member set, or without it. */
const put = (rule: StorageRule, members: { [K in keyof StorageRule]?: StorageRule[K] | undefined }) => ({ ...rule, ...members }) as StorageRule;

function Rule({ rule, n, models, known, onChange, onRemove }: { rule: StorageRule; n: number; models: string[]; known: string[]; onChange: (rule: StorageRule) => void; onRemove: () => void }) {
  const { t } = useWords();
  const of = rule.of ?? 'points';
  const keep = rule.keep ?? 'raw';
  const days = (label: string, value: number | undefined, told: (days: number | undefined) => void) => (
    <NumberInput label={label} w={150} min={1} max={DAYS_MAX} allowDecimal={false} placeholder={t('for ever')} value={value ?? ''} onChange={(value) => told(value === '' ? undefined : Number(value))} />
  );
  const about = (of: 'points' | 'events' | 'attributes') => {
    if (of === 'points') return onChange(put(rule, { of: undefined }));
    // Only values of points are thinned.
    const { points: _, keep: __, changeOnly: ___, rawDays: ____, ...rest } = rule;
    return onChange({ ...rest, of });
  };
  return (
    <Card withBorder padding="sm" component="section" aria-label={t('Storage rule {n}', { n })}>
      <Stack gap="xs">
        <Group justify="space-between"><Text size="sm" fw={600}>{t('Storage rule {n}', { n })}</Text><ActionIcon variant="default" size={28} aria-label={t('Remove {of}', { of: t('Storage rule {n}', { n }) })} onClick={onRemove}>✕</ActionIcon></Group>
        <Group align="flex-end" gap="xs">
          <NativeSelect label={t('Is about {n}', { n })} value={of} onChange={(e) => about(e.currentTarget.value as 'points')} data={[{ value: 'points', label: t('values of points') }, { value: 'events', label: t('events') }, { value: 'attributes', label: t('earlier values of attributes') }]} />
          {of === 'points' && <TagsInput label={t('Points {n}', { n })} w={260} data={known} placeholder={rule.points?.length ? '' : t('those that no other rule names')} value={rule.points ?? []} onChange={(points) => onChange(put(rule, { points }))} />}
          <MultiSelect label={t('Models {n}', { n })} w={220} data={models} placeholder={rule.models?.length ? '' : t('all of the policy')} value={rule.models ?? []} onChange={(models) => onChange(put(rule, { models }))} />
        </Group>
        {of === 'points' && (
          <Group align="flex-end" gap="xs">
            <NativeSelect
              label={t('Which values {n}', { n })} value={keep} data={[{ value: 'raw', label: t('every one') }, { value: 'minute', label: t('the last of each minute') }, { value: 'both', label: t('every one, later by the minute') }]}
              onChange={(e) => { const { keep: _, rawDays: __, ...rest } = rule; const keep = e.currentTarget.value as 'raw'; onChange(keep === 'raw' ? rest : { ...rest, keep, ...((keep as string) === 'both' && { rawDays: RAW_DAYS }) }); }}
            />
            {keep === 'both' && days(t('Every one for days {n}', { n }), rule.rawDays, (rawDays) => onChange(put(rule, { rawDays })))}
            <Checkbox mb={8} label={t('Only where it changes {n}', { n })} checked={rule.changeOnly ?? false} onChange={(e) => onChange(put(rule, { changeOnly: e.currentTarget.checked || undefined }))} />
          </Group>
        )}
        <Group align="flex-end" gap="xs">
          {days(t('Kept for days {n}', { n }), rule.keepDays, (keepDays) => onChange(put(rule, { keepDays, ...(keepDays === undefined && { by: undefined }) })))}
          {/* With days of every value, all is counted by event time. */}
          {rule.keepDays !== undefined && (rule.rawDays === undefined || rule.by === 'import') && (
            <NativeSelect label={t('Counted from {n}', { n })} data={[{ value: 'event', label: t('the time of the value') }, { value: 'import', label: t('the arrival of its message') }]} value={rule.by ?? 'event'} onChange={(e) => onChange(put(rule, { by: e.currentTarget.value === 'import' ? 'import' : undefined }))} />
          )}
        </Group>
        <Kept of={others(rule, KNOWN)} />
      </Stack>
    </Card>
  );
}
