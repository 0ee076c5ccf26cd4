// The form of an import: a file, the channel that it comes in by, and what its columns are.
import { Alert, Autocomplete, Button, Card, FileButton, Group, NumberInput, Radio, Select, SimpleGrid, Stack, Table, TagsInput, Text, TextInput, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState, type DragEvent } from 'react';
import { useNavigate } from 'react-router';
import { api, ok } from '../api/client';
import type { ChannelFile, ModelFile } from '../api/types';
import { useWords } from '../i18n';
import { bytes } from '../time';
import { send } from '../uploads';
import { Page, useFilters } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { useWork } from '../ui/work';
import { useProducts } from './channels';
import { ENDINGS, headOf, kindOf, type Head } from './file-head';
import { PLAIN, guessed, roleOf, textOf, withRole, type Mapping } from './file-mapping';
import { Entries } from './rule-steps';

const ZONES = Intl.supportedValuesOf('timeZone');

export default function NewImport() {
  const { t } = useWords();
  const navigate = useNavigate();
  const filters = useFilters();
  const [file, setFile] = useState<File>();
  const [head, setHead] = useState<Head>();
  const [mapping, setMapping] = useState<Mapping>(PLAIN);
  const [skipRows, setSkipRows] = useState(Number(filters.get('skipRows')) || 0);
  const { busy, error, submit } = useWork();
  const { channel, channels, points } = useTarget(filters.get('channel'));
  useEffect(() => {
    if (head && head.columns.length > 0) setMapping(guessed(head.columns, points));
    // Guessed once the file and the points are known; what a person says afterwards stays.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [head, points.join()]);
  const take = async (taken: File | null | undefined) => {
    if (!taken) return;
    setFile(taken);
    setMapping(PLAIN);
    setHead(await headOf(taken).catch(() => undefined));
  };
  const begin = submit(async () => {
    if (!file) return;
    await send(file, { channel, mapping: textOf(mapping), skipRows });
    await navigate('/imports');
  });
  const isKnown = file !== undefined && kindOf(file.name) !== undefined;
  return (
    <Page title={t('Import a file')} about={t('Rows go the way of the channel’s messages: checked against the model, processed by policies, stored once. A bad row harms no other; it is in quarantine with its number.')}>
      <form onSubmit={begin}>
        <Stack>
          <Dropped file={file} onTake={(file) => void take(file)} />
          {file && !isKnown && <Alert color="orange" variant="light" role="alert" title={t('The ending does not say what the file is')}>{t('Name it .csv, .tsv, .txt, .ndjson, .jsonl or .json, also packed as .gz or .zst, or .parquet.')}</Alert>}
          <Select
            label={t('Channel')} required w={320} searchable placeholder={channels.length === 0 ? t('There is no channel yet.') : ''}
            data={channels.map((one) => ({ value: one.name, label: `${one.name} (${one.product})` }))} value={channel || null} onChange={(channel) => filters.set({ channel })}
          />
          {isKnown && channel && <Columns head={head} mapping={mapping} points={points} onChange={setMapping} />}
          {isKnown && channel && (
            <NumberInput
              label={t('Rows at the beginning that are left out')} description={t('To go on with an import that was interrupted: the rows that were answered. What is stored is not doubled anyway.')} w={420} min={0} allowDecimal={false} allowNegative={false}
              inputWrapperOrder={['label', 'input', 'description', 'error']} value={skipRows} onChange={(rows) => setSkipRows(Number(rows) || 0)}
            />
          )}
          <ProblemAlert error={error} />
          <Group><Button type="submit" loading={busy} disabled={!isKnown || !channel}>{t('Import')}</Button><Button variant="default" onClick={() => void navigate('/imports')}>{t('Cancel')}</Button></Group>
        </Stack>
      </form>
    </Page>
  );
}

/** The channel that is chosen, those there are, and the points that its model declares. */
function useTarget(asked: string) {
  const channels = useQuery({
    queryKey: ['channels', 'files'],
    queryFn: async () => (await ok(api.GET('/api/v1/channels', { params: { query: { limit: 1000 } } }))).items as unknown as ChannelFile[],
  });
  const products = useProducts();
  // Products that take raw bytes take no files.
  const all = (channels.data ?? []).filter((one) => products.data?.find((product) => product.name === one.product)?.format !== 'custom');
  const channel = asked || (all.length === 1 ? (all[0]?.name ?? '') : '');
  const product = all.find((one) => one.name === channel)?.product;
  const name = products.data?.find((one) => one.name === product)?.model;
  const model = useQuery({
    queryKey: ['model', name], enabled: name !== undefined,
    queryFn: async () => (await ok(api.GET('/api/v1/models/{name}', { params: { path: { name: name ?? '' } } }))) as unknown as ModelFile,
  });
  return { channel, channels: all, points: Object.keys(model.data?.measurepoints ?? {}) };
}

function Dropped({ file, onTake }: { file: File | undefined; onTake: (file: File | null | undefined) => void }) {
  const { t } = useWords();
  const [isOver, setOver] = useState(false);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    onTake(event.dataTransfer.files[0]);
  };
  return (
    <Card
      withBorder padding="xl" component="section" aria-label={t('File')} data-testid="drop" style={{ borderStyle: 'dashed', ...(isOver && { borderColor: 'var(--mantine-primary-color-filled)' }) }}
      onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)} onDrop={drop}
    >
      <Stack align="center" gap="xs">
        {file ? <Text fw={600} role="status">{file.name} · {bytes(file.size)}</Text> : <Text>{t('Drop a file here: CSV, NDJSON or Parquet, of any length')}</Text>}
        <FileButton onChange={onTake} accept={ENDINGS} inputProps={{ 'aria-label': t('File') }}>{(props) => <Button variant="default" {...props}>{t('Choose a file…')}</Button>}</FileButton>
      </Stack>
    </Card>
  );
}

function Columns({ head, mapping, points, onChange }: { head: Head | undefined; mapping: Mapping; points: string[]; onChange: (mapping: Mapping) => void }) {
  const { t } = useWords();
  const columns = head?.columns ?? [];
  const put = (members: Partial<Mapping>) => onChange({ ...mapping, ...members });
  const column = (label: string, member: 'deviceColumn' | 'timeColumn' | 'pointColumn' | 'valueColumn' | 'qualityColumn', usual: string) => (
    <Autocomplete label={label} data={columns} placeholder={usual} value={mapping[member] ?? ''} onChange={(name) => put({ [member]: name || undefined })} />
  );
  return (
    <Card withBorder component="section" aria-label={t('What the columns are')}>
      <Stack gap="sm">
        <Title order={2} size="h4">{t('What the columns are')}</Title>
        {columns.length === 0 && <Text size="sm">{t('A browser cannot look into this file: name its columns where they are not called as usual.')}</Text>}
        <Radio.Group label={t('Layout')} value={mapping.long ? 'long' : 'wide'} onChange={(layout) => put({ long: layout === 'long' })}>
          <Group mt="xs"><Radio value="wide" label={t('wide: a column for each point')} /><Radio value="long" label={t('long: a row for each point')} /></Group>
        </Radio.Group>
        <Radio.Group label={t('Device')} value={mapping.device === undefined ? 'column' : 'one'} onChange={(how) => put({ device: how === 'one' ? '' : undefined })}>
          <Group mt="xs"><Radio value="column" label={t('a column has the device key')} /><Radio value="one" label={t('all rows are of one device')} /></Group>
        </Radio.Group>
        <SimpleGrid cols={{ base: 1, sm: 2, lg: 3 }}>
          {mapping.device === undefined ? column(t('Device column'), 'deviceColumn', 'deviceKey') : <TextInput label={t('Device key')} required value={mapping.device} onChange={(e) => put({ device: e.currentTarget.value })} />}
          {column(t('Time column'), 'timeColumn', 'time')}
          <Select label={t('Zone of times without an offset')} searchable clearable limit={40} placeholder={t('all have an offset, or are milliseconds')} data={ZONES} value={mapping.timezone ?? null} onChange={(timezone) => put({ timezone: timezone ?? undefined })} />
          {mapping.long && <>{column(t('Point column'), 'pointColumn', 'point')}{column(t('Value column'), 'valueColumn', 'value')}{column(t('Quality column'), 'qualityColumn', 'quality')}</>}
          <TagsInput label={t('Texts that are as good as empty')} placeholder={mapping.absent.length > 0 ? '' : 'NaN'} value={mapping.absent} onChange={(absent) => put({ absent })} />
        </SimpleGrid>
        {columns.length > 0 && <Roles head={head} mapping={mapping} points={points} onChange={onChange} />}
        {(mapping.long || columns.length === 0) && (
          <>
            <Entries label={t('Points of other names')} name={t('In the file')} value={t('Point')} of={mapping.map} onChange={(map) => put({ map })} />
            <TagsInput label={mapping.long ? t('Points that are left out') : t('Columns that are left out')} value={mapping.drop} onChange={(drop) => put({ drop })} />
          </>
        )}
      </Stack>
    </Card>
  );
}

/** Each column with its first values and what becomes of it. */
function Roles({ head, mapping, points, onChange }: { head: Head | undefined; mapping: Mapping; points: string[]; onChange: (mapping: Mapping) => void }) {
  const { t } = useWords();
  const told = (column: string) => {
    const role = roleOf(column, mapping);
    const words = { device: t('device key'), time: t('time'), drop: t('left out'), name: t('name of the point'), value: t('value'), grade: t('quality') };
    if (role.is === 'quality') return t('quality of {point}', { point: role.point });
    return role.is === 'point' ? role.point : words[role.is];
  };
  const chosen = (column: string) => {
    const role = roleOf(column, mapping);
    return role.is === 'point' ? `:${role.point}` : role.is;
  };
  const options = (column: string) => {
    const role = roleOf(column, mapping);
    const unknown = role.is === 'point' && !points.includes(role.point) ? [{ value: `:${role.point}`, label: t('{point}: the model has no such point', { point: role.point }) }] : [];
    return [{ value: 'device', label: t('device key') }, { value: 'time', label: t('time') }, { value: 'drop', label: t('left out') }, ...points.map((point) => ({ value: `:${point}`, label: point })), ...unknown];
  };
  return (
    <Table.ScrollContainer minWidth={500} type="native" tabIndex={0} role="region" aria-label={t('Columns')}>
      <Table aria-label={t('Columns')} verticalSpacing={4} className="numbers">
        <Table.Thead><Table.Tr><Table.Th>{t('Column')}</Table.Th><Table.Th>{t('Becomes')}</Table.Th><Table.Th>{t('First values')}</Table.Th></Table.Tr></Table.Thead>
        <Table.Tbody>
          {(head?.columns ?? []).map((column) => (
            <Table.Tr key={column}>
              <Table.Td className="mono">{column}</Table.Td>
              <Table.Td>
                {mapping.long || roleOf(column, mapping).is === 'quality'
                  ? told(column)
                  : <Select aria-label={t('{column} becomes', { column })} size="xs" w={260} searchable allowDeselect={false} data={options(column)} value={chosen(column)} onChange={(role) => role && onChange(withRole(mapping, column, role))} />}
              </Table.Td>
              <Table.Td className="mono">{head?.rows.slice(0, 3).map((row) => row[column] ?? '').join(' · ')}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
