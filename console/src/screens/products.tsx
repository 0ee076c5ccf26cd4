import { Anchor, Button, Group, Modal, Radio, Select, Stack, TextInput, Textarea } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { ModelFile, ProductFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Asked, Copy, Empty, FilterText, Page, Sure, useFilters } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { Rows } from '../ui/rows';
import { declare } from './declare';

export default function Products() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const client = useQueryClient();
  const [name, model] = [filters.get('name'), filters.get('model')];
  const products = useQuery({
    queryKey: ['products', name, model],
    queryFn: async () => (await ok(api.GET('/api/v1/products', { params: { query: { limit: 1000, ...(name && { name }), ...(model && { model }) } } }))).items as unknown as ProductFile[],
  });
  const make = may && <Button onClick={() => filters.set({ new: '1' })}>{t('New product')}</Button>;
  return (
    <Page title={t('Products')} about={t('A product is a kind of device: its model, its format, and the key that topics carry.')} actions={make}>
      <Group>
        <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
        <FilterText label={t('Model')} value={model} onChange={(model) => filters.set({ model })} />
      </Group>
      <Asked query={products}>
        {(products) => (
          <Rows
            label={t('Products')} rows={products} id={(p) => p.name}
            columns={[
              { name: t('Product'), cell: (p) => p.name },
              { name: t('Key'), cell: (p) => <Group gap="xs" wrap="nowrap"><span className="mono">{p.key}</span><Copy value={p.key ?? ''} label={t('Copy {what}', { what: p.key ?? '' })} /></Group> },
              { name: t('Model'), cell: (p) => <Anchor component={Link} to={`/models/${encodeURIComponent(p.model)}`}>{p.model}</Anchor> },
              { name: t('Format'), cell: (p) => (p.format === 'custom' ? <Anchor component={Link} to={`/scripts?product=${encodeURIComponent(p.name)}`}>{t('custom, by its script')}</Anchor> : 'JSON') },
              { name: t('Devices'), cell: (p) => <Anchor component={Link} to={`/devices?product=${encodeURIComponent(p.name)}`}>{t('its devices')}</Anchor> },
              { name: t('Channels'), cell: (p) => <Anchor component={Link} to={`/channels?product=${encodeURIComponent(p.name)}`}>{t('its channels')}</Anchor> },
              { name: t('Description'), cell: (p) => p.description ?? '' },
              ...(may ? [{
                name: t('Delete'), cell: (p: ProductFile) => (
                  <Sure size="compact-xs" label={t('Delete')} title={t('Delete {name}?', { name: p.name })} onSure={async () => {
                    await ok(api.DELETE('/api/v1/products/{name}', { params: { path: { name: p.name } } }));
                    await client.invalidateQueries();
                  }}>{t('A product that has devices, channels or a script cannot be deleted.')}</Sure>
                ),
              }] : []),
            ]}
            empty={<Empty action={make}>{name || model ? t('No product fits the filters.') : t('There is no product yet.')}</Empty>}
          />
        )}
      </Asked>
      {filters.get('new') && <NewProduct onClose={() => filters.set({ new: null })} />}
    </Page>
  );
}

function NewProduct({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const [name, setName] = useState('');
  const [key, setKey] = useState('');
  const [model, setModel] = useState<string | null>(null);
  const [format, setFormat] = useState('json');
  const [description, setDescription] = useState('');
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const models = useQuery({
    queryKey: ['models', 'all'],
    queryFn: async () => (await ok(api.GET('/api/v1/models', { params: { query: { limit: 1000 } } }))).items as unknown as ModelFile[],
  });
  const make = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(undefined);
    try {
      await declare(client, [{ kind: 'Product', name, model, format, ...(key && { key }), ...(description && { description }) }], 'new');
      tell(t('The product is made.'));
      onClose();
    } catch (error) {
      setError(error);
      setBusy(false);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t('New product')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void make(event)}>
        <Stack>
          <TextInput label={t('Name')} required value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <TextInput label={t('Key')} description={t('Letters, digits, - _ : . and made up unless given')} value={key} onChange={(e) => setKey(e.currentTarget.value)} />
          <Select label={t('Model')} required searchable allowDeselect={false} data={(models.data ?? []).map((m) => m.name)} value={model} onChange={setModel} nothingFoundMessage={t('Make a model first.')} />
          <Radio.Group label={t('Data format')} value={format} onChange={setFormat}>
            <Group mt="xs"><Radio value="json" label="JSON" /><Radio value="custom" label={t('custom: bytes that a script decodes')} /></Group>
          </Radio.Group>
          <Textarea label={t('Description')} value={description} onChange={(e) => setDescription(e.currentTarget.value)} autosize />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit" loading={busy}>{t('Make the product')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}
