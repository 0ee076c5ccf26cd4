import { Anchor, Button, Group } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { ModelFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { count } from '../time';
import { Asked, Empty, FilterText, Page, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';
import { Import } from './objects';

export default function Models() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const name = filters.get('name');
  const models = useQuery({
    queryKey: ['models', name],
    queryFn: async () => (await ok(api.GET('/api/v1/models', { params: { query: { limit: 1000, ...(name && { name }) } } }))).items as unknown as ModelFile[],
  });
  const make = may && <Button component={Link} to="/models/new">{t('New model')}</Button>;
  return (
    <Page
      title={t('Models')} about={t('A model says which points, events and attributes a device may report, and of what type.')}
      actions={<>{may && <Button variant="default" onClick={() => filters.set({ import: '1' })}>{t('Import')}</Button>}{make}</>}
    >
      <Group><FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} /></Group>
      <Asked query={models}>
        {(models) => (
          <Rows
            label={t('Models')} rows={models} id={(model) => model.name}
            columns={[
              { name: t('Model'), cell: (m) => <Anchor component={Link} to={`/models/${encodeURIComponent(m.name)}`}>{m.name}</Anchor> },
              { name: t('Points'), right: true, cell: (m) => count(Object.keys(m.measurepoints ?? {}).length) },
              { name: t('Events'), right: true, cell: (m) => count(Object.keys(m.events ?? {}).length) },
              { name: t('Attributes'), right: true, cell: (m) => count(Object.keys(m.attributes ?? {}).length) },
              { name: t('Products'), cell: (m) => <Anchor component={Link} to={`/products?model=${encodeURIComponent(m.name)}`}>{t('its products')}</Anchor> },
              { name: t('Description'), cell: (m) => m.description ?? '' },
            ]}
            empty={<Empty action={make}>{name ? t('No model fits the filters.') : t('There is no model yet.')}</Empty>}
          />
        )}
      </Asked>
      {filters.get('import') && <Import title={t('Import')} about={t('Object files of YAML or JSON, or a thing model as JSON: the vendor’s, keyed by identifier, or one of lists with identifier and dataType.')} onClose={() => filters.set({ import: null })} />}
    </Page>
  );
}
