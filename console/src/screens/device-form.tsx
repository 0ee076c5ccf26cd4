// A device: registered by a form, or changed by one. Its attributes are those of its model.
import { Autocomplete, Button, Group, Modal, NativeSelect, NumberInput, Select, Stack, Text, TextInput } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { api, ok } from '../api/client';
import type { DataType, DeviceFile, ModelFile } from '../api/types';
import { useWords } from '../i18n';
import { Kept, others } from '../ui/kept';
import { ProblemAlert, tell } from '../ui/problem';
import { useWork } from '../ui/work';
import { useProducts } from './channels';
import { declare } from './declare';

const ZONES = ['UTC', ...Intl.supportedValuesOf('timeZone')];
const NUMBERS = ['double', 'float', 'int', 'long', 'timestamp'];
const PLAIN = [...NUMBERS, 'bool', 'string', 'enum', 'date', 'datetime'];

export function DeviceForm({ file, onClose }: { file?: DeviceFile; onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const products = useProducts();
  const names = (products.data ?? []).map((p) => p.name);
  const [name, setName] = useState(file?.name ?? '');
  const [key, setKey] = useState(file?.key ?? '');
  const [given, setProduct] = useState<string | null>(file?.product ?? null);
  const product = given ?? (names.length === 1 ? (names[0] ?? null) : null);
  const [timezone, setTimezone] = useState(file?.timezone ?? '');
  const [attributes, setAttributes] = useState(file?.attributes ?? {});
  const { busy, error, submit } = useWork();
  const modelName = (products.data ?? []).find((one) => one.name === product)?.model;
  const model = useQuery({
    queryKey: ['model', modelName], enabled: modelName !== undefined,
    queryFn: async () => (await ok(api.GET('/api/v1/models/{name}', { params: { path: { name: modelName ?? '' } } }))) as unknown as ModelFile,
  });
  const known = Object.entries(model.data?.attributes ?? {}).filter(([, of]) => PLAIN.includes(of.type));
  const put = (name: string, value: unknown) => setAttributes((before) => (value === undefined ? others(before, [name]) : { ...before, [name]: value }));
  const save = submit(async () => {
    const { timezone: _, attributes: __, ...rest } = file ?? { kind: 'Device' as const, name, product: product ?? '', ...(key && { key }) };
    await declare(client, [{ ...rest, ...(timezone && { timezone }), ...(Object.keys(attributes).length > 0 && { attributes }) }], file ? 'any' : 'new');
    tell(file ? t('Saved.') : t('The device is registered.'));
    onClose();
  });
  return (
    <Modal opened onClose={onClose} title={file ? t('Change {name}', { name: file.name }) : t('New device')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={save}>
        <Stack>
          <TextInput label={t('Name')} required readOnly={file !== undefined} value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <TextInput label={t('Key')} description={t('What messages call it; made up unless given')} readOnly={file !== undefined} value={key} onChange={(e) => setKey(e.currentTarget.value)} />
          <Select label={t('Product')} required searchable allowDeselect={false} disabled={file !== undefined} data={names} value={product} onChange={setProduct} nothingFoundMessage={t('Make a product first.')} />
          <Autocomplete label={t('Time zone')} data={ZONES} limit={20} value={timezone} onChange={setTimezone} />
          {known.length > 0 && <Text size="sm" fw={600}>{t('Attributes')}</Text>}
          {known.map(([name, of]) => <AttributeField key={name} name={name} of={of} value={attributes[name]} onChange={(value) => put(name, value)} />)}
          <Kept of={others(attributes, known.map(([name]) => name))} />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit" loading={busy}>{file ? t('Save') : t('Register the device')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}

/** A field by the type of an attribute; emptied it is declared no more. */
function AttributeField({ name, of, value, onChange }: { name: string; of: DataType; value: unknown; onChange: (value: unknown) => void }) {
  const label = of.unit ? `${name} (${of.unit})` : name;
  const description = of.description ?? '';
  if (NUMBERS.includes(of.type)) return <NumberInput label={label} description={description} hideControls allowDecimal={of.type === 'double' || of.type === 'float'} value={typeof value === 'number' ? value : ''} onChange={(value) => onChange(value === '' ? undefined : Number(value))} />;
  if (of.type === 'bool') return <NativeSelect label={label} description={description} data={[{ value: '', label: '—' }, 'true', 'false']} value={value === undefined ? '' : String(value)} onChange={(e) => onChange(e.currentTarget.value === '' ? undefined : e.currentTarget.value === 'true')} />;
  if (of.type === 'enum') {
    // As it was declared: a number stays one.
    const isNumber = Object.keys(of.values ?? {}).every((value) => /^-?\d+$/.test(value));
    return <NativeSelect label={label} description={description} data={[{ value: '', label: '—' }, ...Object.entries(of.values ?? {}).map(([value, text]) => ({ value, label: text ? `${value}: ${text}` : value }))]} value={value === undefined ? '' : String(value)} onChange={(e) => onChange(e.currentTarget.value === '' ? undefined : isNumber ? Number(e.currentTarget.value) : e.currentTarget.value)} />;
  }
  return <TextInput label={label} description={description} value={typeof value === 'string' ? value : ''} onChange={(e) => onChange(e.currentTarget.value || undefined)} />;
}
