// Events of a model: what may happen at a device, and what it then tells.
import { Button, Card, Group, NativeSelect, Stack, Text, TextInput } from '@mantine/core';
import { useWords } from '../i18n';
import { Kept, others } from '../ui/kept';
import { Elements, type Row } from './model-elements';

export interface EventRow {
  name: string;
  level: string;
  description: string;
  output: Row[];
  /** What the form has no fields for. */
  more: Record<string, unknown>;
}

type EventFile = { level?: string; output?: Record<string, Row['element']>; description?: string };

export function eventsOf(of: Record<string, EventFile> | undefined): EventRow[] {
  return Object.entries(of ?? {}).map(([name, event]) => ({
    name, level: event.level ?? 'info', description: event.description ?? '', more: others(event, ['level', 'output', 'description']),
    output: Object.entries(event.output ?? {}).map(([name, element]) => ({ name, element })),
  }));
}

export function eventFiles(rows: EventRow[]): Record<string, EventFile> {
  const file = ({ level, description, output, more }: EventRow): EventFile => ({
    ...more, level, ...(description && { description }), ...(output.length > 0 && { output: Object.fromEntries(output.filter((row) => row.name).map((row) => [row.name, row.element])) }),
  });
  return Object.fromEntries(rows.filter((row) => row.name).map((row) => [row.name, file(row)]));
}

export function Events({ rows, onChange, readOnly }: { rows: EventRow[]; onChange: (rows: EventRow[]) => void; readOnly: boolean }) {
  const { t } = useWords();
  const put = (at: number, members: Partial<EventRow>) => onChange(rows.map((row, other) => (other === at ? { ...row, ...members } : row)));
  return (
    <Stack>
      {rows.length === 0 && <Text size="sm" className="quiet">{t('None yet.')}</Text>}
      {rows.map((row, at) => {
        const who = row.name || t('event {n}', { n: at + 1 });
        return (
          <Card key={at} withBorder component="section" aria-label={who}>
            <Stack gap="sm">
              <Group align="flex-end">
                <TextInput label={t('Event {n}', { n: at + 1 })} value={row.name} readOnly={readOnly} onChange={(e) => put(at, { name: e.currentTarget.value })} />
                <NativeSelect label={t('Level of {of}', { of: who })} data={[{ value: 'info', label: t('information') }, { value: 'warn', label: t('warning') }, { value: 'error', label: t('error') }]} value={row.level} disabled={readOnly} onChange={(e) => put(at, { level: e.currentTarget.value })} />
                <TextInput label={t('Description of {of}', { of: who })} flex={1} value={row.description} readOnly={readOnly} onChange={(e) => put(at, { description: e.currentTarget.value })} />
                {!readOnly && <Button variant="default" onClick={() => onChange(rows.filter((_, other) => other !== at))} aria-label={t('Remove {of}', { of: who })}>{t('Remove')}</Button>}
              </Group>
              <Elements of="attribute" label={t('What {of} tells', { of: who })} add={t('Add what it tells')} rows={row.output} readOnly={readOnly} onChange={(output) => put(at, { output })} />
              <Kept of={row.more} />
            </Stack>
          </Card>
        );
      })}
      {!readOnly && <Group><Button variant="default" onClick={() => onChange([...rows, { name: '', level: 'info', description: '', output: [], more: {} }])}>{t('Add an event')}</Button></Group>}
    </Stack>
  );
}
