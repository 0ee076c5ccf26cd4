// Products: the list, and the way to what each is made of.
import { Anchor, Button, Group } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { ProductFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Asked, Copy, Empty, FilterText, Page, Sure, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';
import { ProductForm } from './product-form';

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
  const changed = may ? products.data?.find((one) => one.name === filters.get('edit')) : undefined;
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
                name: t('Do'), cell: (p: ProductFile) => (
                  <Group gap="xs" wrap="nowrap">
                  <Button size="compact-xs" variant="default" onClick={() => filters.set({ edit: p.name })}>{t('Change')}</Button>
                  <Sure size="compact-xs" label={t('Delete')} title={t('Delete {name}?', { name: p.name })} onSure={async () => {
                    await ok(api.DELETE('/api/v1/products/{name}', { params: { path: { name: p.name } } }));
                    await client.invalidateQueries();
                  }}>{t('A product that has devices, channels or a script cannot be deleted.')}</Sure>
                  </Group>
                ),
              }] : []),
            ]}
            empty={<Empty action={make}>{name || model ? t('No product fits the filters.') : t('There is no product yet.')}</Empty>}
          />
        )}
      </Asked>
      {filters.get('new') && <ProductForm onClose={() => filters.set({ new: null })} />}
      {changed && <ProductForm key={changed.name} file={changed} onClose={() => filters.set({ edit: null })} />}
    </Page>
  );
}
