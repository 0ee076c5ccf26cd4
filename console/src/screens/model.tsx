// A model: its elements in a table that can be edited, and the same as text.
import { ActionIcon, Button, Checkbox, Group, NativeSelect, Stack, Switch, Table, Tabs, Text, TextInput, Textarea } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { api, ok } from '../api/client';
import type { DataType, ModelFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Asked, Page, Sure, Waiting } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { declare, declareText, type Outcome } from './declare';
import { Report } from './objects';

const Editor = lazy(() => import('../ui/editor'));

const TYPES = ['double', 'float', 'int', 'long', 'bool', 'string', 'enum', 'timestamp', 'date', 'datetime', 'array', 'struct', 'map', 'file'];
const WITH_QUALITY = ['double', 'float', 'int', 'long'];
const SIGNALS = ['', 'AI', 'DI', 'PI'];

export default function Model() {
  const { name = '' } = useParams();
  const { t } = useWords();
  const isNew = name === 'new';
  const model = useQuery({
    queryKey: ['model', name],
    queryFn: async () => (await ok(api.GET('/api/v1/models/{name}', { params: { path: { name } } }))) as unknown as ModelFile,
    enabled: !isNew,
  });
  if (isNew) return <Edited key="new" title={t('New model')} file={{ kind: 'Model', name: '', measurepoints: {} }} isNew />;
  return <Asked query={model}>{(file) => <Edited key={name} title={name} file={file} isNew={false} />}</Asked>;
}

interface Row {
  name: string;
  element: DataType;
}

const rowsOf = (of: Record<string, DataType> | undefined): Row[] => Object.entries(of ?? {}).map(([name, element]) => ({ name, element }));
const named = (rows: Row[]) => Object.fromEntries(rows.filter((row) => row.name).map((row) => [row.name, row.element]));

function Edited({ title, file, isNew }: { title: string; file: ModelFile; isNew: boolean }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useState(file.name);
  const [description, setDescription] = useState(file.description ?? '');
  const [passthrough, setPassthrough] = useState(file.passthrough ?? false);
  const [points, setPoints] = useState(rowsOf(file.measurepoints));
  const [attributes, setAttributes] = useState(rowsOf(file.attributes));
  const [text, setText] = useState<string>();
  const [error, setError] = useState<unknown>();
  const [outcome, setOutcome] = useState<Outcome>();
  const made = (): ModelFile => {
    const { description: _, passthrough: __, attributes: ___, ...rest } = file;
    return {
      ...rest, name, measurepoints: named(points),
      ...(attributes.length > 0 && { attributes: named(attributes) }), ...(description && { description }), ...(passthrough && { passthrough }),
    };
  };
  const take = (made: ModelFile) => {
    setName(made.name);
    setDescription(made.description ?? '');
    setPassthrough(made.passthrough ?? false);
    setPoints(rowsOf(made.measurepoints));
    setAttributes(rowsOf(made.attributes));
  };
  const save = async () => {
    setError(undefined);
    setOutcome(undefined);
    try {
      const outcome = text === undefined ? await declare(client, [made()], isNew ? 'new' : 'any') : await declareText(client, text);
      setOutcome(outcome);
      tell(t('Saved.'));
      if (isNew) await navigate(`/models/${encodeURIComponent(outcome.objects[0]?.name ?? name)}`, { replace: true });
    } catch (error) {
      setError(error);
    }
  };
  const change = (tab: string | null) => {
    if (tab === 'text') setText(JSON.stringify(made(), null, 2));
    else if (text !== undefined) {
      try {
        take(JSON.parse(text) as ModelFile);
        setText(undefined);
      } catch (error) {
        setError(error);
      }
    }
  };
  return (
    <Page
      title={title}
      actions={may && (
        <>
          <Button onClick={() => void save()}>{t('Save')}</Button>
          {!isNew && (
            <Sure label={t('Delete')} title={t('Delete {name}?', { name: file.name })} onSure={async () => {
              await ok(api.DELETE('/api/v1/models/{name}', { params: { path: { name: file.name } } }));
              await navigate('/models');
              await client.invalidateQueries();
            }}>{t('A model that products use cannot be deleted.')}</Sure>
          )}
        </>
      )}
    >
      <ProblemAlert error={error} />
      {outcome && <Report outcome={outcome} />}
      <Group align="flex-start" grow maw={900}>
        <TextInput label={t('Name')} required value={name} onChange={(e) => setName(e.currentTarget.value)} readOnly={!isNew} />
        <Textarea label={t('Description')} value={description} onChange={(e) => setDescription(e.currentTarget.value)} autosize />
      </Group>
      <Switch label={t('Takes points that it does not declare')} checked={passthrough} onChange={(e) => setPassthrough(e.currentTarget.checked)} />
      <Tabs defaultValue="points" onChange={change} keepMounted={false}>
        <Tabs.List mb="sm">
          <Tabs.Tab value="points">{t('Points')} ({points.length})</Tabs.Tab>
          <Tabs.Tab value="attributes">{t('Attributes')} ({attributes.length})</Tabs.Tab>
          <Tabs.Tab value="text">{t('As text, with events')}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="points"><Elements label={t('Points')} rows={points} onChange={setPoints} isPoint readOnly={!may} /></Tabs.Panel>
        <Tabs.Panel value="attributes"><Elements label={t('Attributes')} rows={attributes} onChange={setAttributes} readOnly={!may} /></Tabs.Panel>
        <Tabs.Panel value="text"><Suspense fallback={<Waiting />}><Editor language="json" label={t('Model')} value={text ?? ''} onChange={setText} readOnly={!may} /></Suspense></Tabs.Panel>
      </Tabs>
    </Page>
  );
}

/** Members that only some types have, by the type; shown as one JSON text. */
function moreOf({ type: _, unit: __, signal: ___, quality: ____, ...more }: DataType) {
  return more;
}

function Elements({ label, rows, onChange, isPoint = false, readOnly }: { label: string; rows: Row[]; onChange: (rows: Row[]) => void; isPoint?: boolean; readOnly: boolean }) {
  const { t } = useWords();
  const put = (at: number, row: Row) => onChange(rows.map((old, other) => (other === at ? row : old)));
  const set = (at: number, row: Row, members: Partial<DataType>) => {
    const element = { ...row.element, ...members } as DataType;
    for (const key of Object.keys(element)) if (element[key] === undefined || element[key] === '') delete element[key];
    put(at, { ...row, element });
  };
  const start: Record<string, Partial<DataType>> = { enum: { values: { '0': 'off', '1': 'on' } }, array: { items: 'double' }, struct: { members: { x: { type: 'double' } } } };
  return (
    <Stack>
      <Table.ScrollContainer minWidth={760} type="native" tabIndex={0} role="region" aria-label={label}>
        <Table aria-label={label} verticalSpacing={4}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>{t('Identifier')}</Table.Th><Table.Th>{t('Type')}</Table.Th><Table.Th>{t('Unit')}</Table.Th>
              {isPoint && <Table.Th>{t('Signal')}</Table.Th>}{isPoint && <Table.Th>{t('Quality')}</Table.Th>}
              <Table.Th>{t('More')}</Table.Th><Table.Th><span className="quiet">{t('Remove')}</span></Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {rows.map((row, at) => {
              const of = row.name || t('row {n}', { n: at + 1 });
              return (
                <Table.Tr key={at}>
                  <Table.Td><TextInput aria-label={t('Identifier of {of}', { of })} value={row.name} readOnly={readOnly} onChange={(e) => put(at, { ...row, name: e.currentTarget.value })} /></Table.Td>
                  <Table.Td><NativeSelect aria-label={t('Type of {of}', { of })} data={TYPES} value={row.element.type} disabled={readOnly} onChange={(e) => put(at, { ...row, element: { type: e.currentTarget.value, ...(row.element.unit && { unit: row.element.unit }), ...start[e.currentTarget.value] } })} /></Table.Td>
                  <Table.Td><TextInput aria-label={t('Unit of {of}', { of })} w={90} value={row.element.unit ?? ''} readOnly={readOnly} onChange={(e) => set(at, row, { unit: e.currentTarget.value })} /></Table.Td>
                  {isPoint && <Table.Td><NativeSelect aria-label={t('Signal of {of}', { of })} data={SIGNALS} value={row.element.signal ?? ''} disabled={readOnly} onChange={(e) => set(at, row, { signal: e.currentTarget.value })} /></Table.Td>}
                  {isPoint && <Table.Td><Checkbox aria-label={t('Quality of {of}', { of })} mt={8} checked={row.element.quality ?? false} disabled={readOnly || !WITH_QUALITY.includes(row.element.type)} onChange={(e) => put(at, { ...row, element: { ...row.element, quality: e.currentTarget.checked } })} /></Table.Td>}
                  <Table.Td><MoreMembers label={t('More of {of}', { of })} value={moreOf(row.element)} readOnly={readOnly} onChange={(more) => {
                    const { type, unit, signal, quality } = row.element;
                    put(at, { ...row, element: { type, ...(unit && { unit }), ...(signal && { signal }), ...(quality && { quality }), ...more } });
                  }} /></Table.Td>
                  <Table.Td><ActionIcon variant="default" size={36} aria-label={t('Remove {of}', { of })} disabled={readOnly} onClick={() => onChange(rows.filter((_, other) => other !== at))}>✕</ActionIcon></Table.Td>
                </Table.Tr>
              );
            })}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {!readOnly && <Group><Button variant="default" onClick={() => onChange([...rows, { name: '', element: { type: 'double' } }])}>{isPoint ? t('Add a point') : t('Add an attribute')}</Button></Group>}
      <Text size="xs" className="quiet">{t('More holds what only some types have, as JSON: values of an enum, members of a struct, items of an array, maxLength, conflict, description.')}</Text>
    </Stack>
  );
}

function MoreMembers({ label, value, onChange, readOnly }: { label: string; value: Record<string, unknown>; onChange: (value: Record<string, unknown>) => void; readOnly: boolean }) {
  const told = Object.keys(value).length > 0 ? JSON.stringify(value) : '';
  const [text, setText] = useState<string>();
  const [isBad, setBad] = useState(false);
  const leave = () => {
    if (text === undefined) return;
    try {
      onChange(text.trim() ? (JSON.parse(text) as Record<string, unknown>) : {});
      setText(undefined);
      setBad(false);
    } catch {
      setBad(true);
    }
  };
  return <TextInput aria-label={label} className="mono" miw={200} value={text ?? told} readOnly={readOnly} error={isBad} onChange={(e) => setText(e.currentTarget.value)} onBlur={leave} />;
}
