// Elements of a model: points, attributes, what an event tells, members of a struct. A table, and below a
// row what only its type has.
import { ActionIcon, Button, Checkbox, Group, NativeSelect, NumberInput, Stack, Table, Text, TextInput, VisuallyHidden } from '@mantine/core';
import { Fragment, useState, type ReactNode } from 'react';
import type { DataType } from '../api/types';
import { useWords } from '../i18n';
import { Kept, others } from '../ui/kept';

export const TYPES = ['double', 'float', 'int', 'long', 'bool', 'string', 'enum', 'timestamp', 'date', 'datetime', 'array', 'struct', 'map', 'file'];
const ITEMS = ['int', 'long', 'float', 'double', 'string'];
const WITH_QUALITY = ['double', 'float', 'int', 'long'];
const SIGNALS = ['', 'AI', 'DI', 'PI', 'Generic'];
/** What only some types have. */
const BY_TYPE = ['values', 'maxLength', 'items', 'maxItems', 'members'];
const KNOWN = ['type', 'unit', 'signal', 'quality', 'conflict', 'description', 'required', ...BY_TYPE];
const BEGUN: Record<string, Partial<DataType>> = { enum: { values: { '0': 'off', '1': 'on' } }, array: { items: 'double' }, struct: { members: { x: { type: 'double' } } } };

export interface Row {
  name: string;
  element: DataType;
}

export const rowsOf = (of: Record<string, DataType> | undefined): Row[] => Object.entries(of ?? {}).map(([name, element]) => ({ name, element }));
export const named = (rows: Row[]) => Object.fromEntries(rows.filter((row) => row.name).map((row) => [row.name, row.element]));

/** `of` says what the elements are: a point has signal and quality, a member may be needed. */
export function Elements({ label, rows, onChange, of, add, readOnly }: { label: string; rows: Row[]; onChange: (rows: Row[]) => void; of: 'point' | 'attribute' | 'member'; add: string; readOnly: boolean }) {
  const { t } = useWords();
  const [open, setOpen] = useState<number>();
  const put = (at: number, row: Row) => onChange(rows.map((old, other) => (other === at ? row : old)));
  const set = (at: number, row: Row, members: Partial<DataType>) => put(at, { ...row, element: without({ ...row.element, ...members }) });
  const retype = (at: number, row: Row, type: string) => {
    const rest = others(row.element, ['type', ...BY_TYPE, ...(WITH_QUALITY.includes(type) ? [] : ['quality'])]);
    put(at, { ...row, element: { ...rest, type, ...BEGUN[type] } });
    if (BEGUN[type]) setOpen(at);
  };
  const isPoint = of === 'point';
  const columns = 5 + (isPoint ? 2 : of === 'member' ? 1 : 0);
  return (
    <Stack>
      <Table.ScrollContainer minWidth={of === 'member' ? 480 : 760} type="native" tabIndex={0} role="region" aria-label={label}>
        <Table aria-label={label} verticalSpacing={4}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>{t('Identifier')}</Table.Th><Table.Th>{t('Type')}</Table.Th><Table.Th>{t('Unit')}</Table.Th>
              {isPoint && <Table.Th>{t('Signal')}</Table.Th>}{isPoint && <Table.Th>{t('Quality')}</Table.Th>}{of === 'member' && <Table.Th>{t('Needed')}</Table.Th>}
              <Table.Th>{t('Details')}</Table.Th><Table.Th><span className="quiet">{t('Remove')}</span></Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {rows.map((row, at) => {
              const who = row.name || t('row {n}', { n: at + 1 });
              const { element } = row;
              return (
                <Fragment key={at}>
                  <Table.Tr>
                    <Table.Td><TextInput aria-label={t('Identifier of {of}', { of: who })} value={row.name} readOnly={readOnly} onChange={(e) => put(at, { ...row, name: e.currentTarget.value })} /></Table.Td>
                    <Table.Td><NativeSelect aria-label={t('Type of {of}', { of: who })} data={TYPES.includes(element.type) ? TYPES : [element.type, ...TYPES]} value={element.type} disabled={readOnly} onChange={(e) => retype(at, row, e.currentTarget.value)} /></Table.Td>
                    <Table.Td><TextInput aria-label={t('Unit of {of}', { of: who })} w={90} value={element.unit ?? ''} readOnly={readOnly} onChange={(e) => set(at, row, { unit: e.currentTarget.value })} /></Table.Td>
                    {isPoint && <Table.Td><NativeSelect aria-label={t('Signal of {of}', { of: who })} data={SIGNALS} value={element.signal ?? ''} disabled={readOnly} onChange={(e) => set(at, row, { signal: e.currentTarget.value })} /></Table.Td>}
                    {isPoint && <Table.Td><Checkbox aria-label={t('Quality of {of}', { of: who })} mt={8} checked={element.quality ?? false} disabled={readOnly || !WITH_QUALITY.includes(element.type)} onChange={(e) => set(at, row, { quality: e.currentTarget.checked })} /></Table.Td>}
                    {of === 'member' && <Table.Td><Checkbox aria-label={t('{of} is needed', { of: who })} mt={8} checked={element['required'] === true} disabled={readOnly} onChange={(e) => set(at, row, { required: e.currentTarget.checked })} /></Table.Td>}
                    <Table.Td><Button variant="default" size="xs" mt={3} aria-expanded={open === at} onClick={() => setOpen(open === at ? undefined : at)}><VisuallyHidden>{t('Details of {of}', { of: who })}: </VisuallyHidden><Said of={element} /><span aria-hidden> {open === at ? '▴' : '▾'}</span></Button></Table.Td>
                    <Table.Td><ActionIcon variant="default" size={36} aria-label={t('Remove {of}', { of: who })} disabled={readOnly} onClick={() => { setOpen(undefined); onChange(rows.filter((_, other) => other !== at)); }}>✕</ActionIcon></Table.Td>
                  </Table.Tr>
                  {open === at && <Table.Tr><Table.Td colSpan={columns}><Details who={who} element={element} isPoint={isPoint} readOnly={readOnly} onChange={(members) => set(at, row, members)} /></Table.Td></Table.Tr>}
                </Fragment>
              );
            })}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {rows.length === 0 && <Text size="sm" className="quiet">{t('None yet.')}</Text>}
      {!readOnly && <Group><Button variant="default" size={of === 'member' ? 'compact-sm' : 'sm'} onClick={() => onChange([...rows, { name: '', element: { type: 'double' } }])}>{add}</Button></Group>}
    </Stack>
  );
}

/** Without members that say nothing. */
function without(element: DataType): DataType {
  return Object.fromEntries(Object.entries(element).filter(([name, value]) => name === 'type' || (value !== undefined && value !== '' && value !== false))) as DataType;
}

/** What the details hold, in short. */
function Said({ of }: { of: DataType }) {
  const { t } = useWords();
  const told: ReactNode[] = [
    of.values && t('{n} values', { n: Object.keys(of.values).length }),
    of['members'] !== undefined && t('{n} members', { n: Object.keys(of['members'] as object).length }),
    of['items'] !== undefined && t('of {type}', { type: String(of['items']) }),
    of.maxLength !== undefined && t('up to {n} bytes', { n: of.maxLength }),
    of['conflict'] !== undefined && String(of['conflict']),
    of.description && t('described'),
  ].filter(Boolean);
  return <>{told.length > 0 ? told.join(', ') : t('none')}</>;
}

function Details({ who, element, isPoint, readOnly, onChange }: { who: string; element: DataType; isPoint: boolean; readOnly: boolean; onChange: (members: Partial<DataType>) => void }) {
  const { t } = useWords();
  const number = (label: string, member: string, help: string) => (
    <NumberInput label={label} description={help} w={240} min={1} allowDecimal={false} readOnly={readOnly} value={(element[member] as number | undefined) ?? ''} onChange={(value) => onChange({ [member]: value === '' ? undefined : Number(value) })} />
  );
  return (
    <Stack gap="sm" pl="md" pb="sm" role="group" aria-label={t('Details of {of}', { of: who })}>
      <Group align="flex-start">
        <TextInput label={t('Description of {of}', { of: who })} miw={320} value={element.description ?? ''} readOnly={readOnly} onChange={(e) => onChange({ description: e.currentTarget.value })} />
        {isPoint && (
          <NativeSelect
            label={t('Two different values at one time')} disabled={readOnly} value={(element['conflict'] as string | undefined) ?? ''} onChange={(e) => onChange({ conflict: e.currentTarget.value })}
            data={[{ value: '', label: t('as the channel says') }, { value: 'keep-last', label: t('the last to come counts') }, { value: 'keep-first', label: t('the first to come counts') }, { value: 'higher-quality', label: t('the one of better quality counts') }]}
          />
        )}
      </Group>
      {element.type === 'string' && number(t('Length at most (bytes)'), 'maxLength', t('Empty: the usual length of a text.'))}
      {element.type === 'array' && (
        <Group align="flex-start">
          <NativeSelect label={t('Items are')} data={ITEMS} value={String(element['items'] ?? 'double')} disabled={readOnly} onChange={(e) => onChange({ items: e.currentTarget.value })} />
          {number(t('Items at most'), 'maxItems', t('Empty: the most an array may have.'))}
        </Group>
      )}
      {element.type === 'enum' && <EnumValues of={element.values ?? {}} readOnly={readOnly} onChange={(values) => onChange({ values })} />}
      {element.type === 'struct' && <Members who={who} of={element['members'] as Record<string, DataType> | undefined} readOnly={readOnly} onChange={(members) => onChange({ members })} />}
      <Kept of={others(element, KNOWN)} />
    </Stack>
  );
}

/** Rows of their own: while a person types, two may be called the same. */
function EnumValues({ of, onChange, readOnly }: { of: Record<string, string>; onChange: (values: Record<string, string>) => void; readOnly: boolean }) {
  const { t } = useWords();
  const [rows, setRows] = useState(() => Object.entries(of));
  const put = (rows: [string, string][]) => {
    setRows(rows);
    onChange(Object.fromEntries(rows.filter(([value]) => value !== '')));
  };
  return (
    <Stack gap="xs">
      <Text size="sm" fw={500}>{t('Values it may have')}</Text>
      {rows.map(([value, text], at) => (
        <Group key={at} gap="xs" align="flex-end">
          <TextInput label={t('Value {n}', { n: at + 1 })} w={110} value={value} readOnly={readOnly} onChange={(e) => { const next = e.currentTarget.value; put(rows.map((row, other) => (other === at ? [next, row[1]] : row))); }} />
          <TextInput label={t('Meaning {n}', { n: at + 1 })} value={text} readOnly={readOnly} onChange={(e) => { const next = e.currentTarget.value; put(rows.map((row, other) => (other === at ? [row[0], next] : row))); }} />
          {!readOnly && <ActionIcon variant="default" size={36} aria-label={t('Remove {of}', { of: value || String(at + 1) })} onClick={() => put(rows.filter((_, other) => other !== at))}>✕</ActionIcon>}
        </Group>
      ))}
      {!readOnly && <Group><Button size="compact-sm" variant="default" onClick={() => put([...rows, [String(rows.length), '']])}>{t('Add a value')}</Button></Group>}
    </Stack>
  );
}

function Members({ who, of, onChange, readOnly }: { who: string; of: Record<string, DataType> | undefined; onChange: (members: Record<string, DataType>) => void; readOnly: boolean }) {
  const { t } = useWords();
  const [rows, setRows] = useState(() => rowsOf(of));
  return (
    <Elements
      of="member" label={t('Members of {of}', { of: who })} add={t('Add a member')} rows={rows} readOnly={readOnly}
      onChange={(rows) => {
        setRows(rows);
        onChange(named(rows));
      }}
    />
  );
}
