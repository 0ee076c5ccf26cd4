import { Anchor, Button, Group, Modal, NativeSelect, Select, Stack, TextInput } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { Link, useNavigate } from 'react-router';
import { api, ok } from '../api/client';
import type { ScriptFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Asked, Empty, FilterText, Page, useFilters } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { Rows } from '../ui/rows';
import { useProducts } from './channels';

export default function Scripts() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const [name, product] = [filters.get('name'), filters.get('product')];
  const products = useProducts();
  const scripts = useQuery({
    queryKey: ['scripts', name, product],
    queryFn: async () => (await ok(api.GET('/api/v1/scripts', { params: { query: { limit: 1000, ...(name && { name }), ...(product && { product }) } } }))).items as unknown as (ScriptFile & { name: string })[],
  });
  const make = may && <Button onClick={() => filters.set({ new: '1' })}>{t('New script')}</Button>;
  return (
    <Page title={t('Scripts')} about={t('The script of a custom product turns the bytes of its devices into envelopes, and replies into bytes.')} actions={make}>
      <Group align="flex-end">
        <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
        <Select label={t('Product')} w={200} clearable searchable data={(products.data ?? []).map((p) => p.name)} value={product || null} onChange={(product) => filters.set({ product })} />
      </Group>
      <Asked query={scripts}>
        {(scripts) => (
          <Rows
            label={t('Scripts')} rows={scripts} id={(s) => s.name}
            columns={[
              { name: t('Script'), cell: (s) => <Anchor component={Link} to={`/scripts/${encodeURIComponent(s.name)}`}>{s.name}</Anchor> },
              { name: t('Product'), cell: (s) => <Anchor component={Link} to={`/products?name=${encodeURIComponent(s.product)}`}>{s.product}</Anchor> },
              { name: t('Dialect'), cell: (s) => <span className="mono">{s.dialect}</span> },
              { name: t('Golden tests'), right: true, cell: (s) => s.golden?.length ?? 0 },
              { name: t('Description'), cell: (s) => s.description ?? '' },
            ]}
            empty={<Empty action={make}>{name || product ? t('No script fits the filters.') : t('There is no script yet.')}</Empty>}
          />
        )}
      </Asked>
      {filters.get('new') && <NewScript onClose={() => filters.set({ new: null })} />}
    </Page>
  );
}

const DIALECTS = ['rawDataToJsonStr', 'rawDataToProtocol', 'decodeUplink', 'Decoder', 'Decode'];
const START: Record<string, string> = {
  rawDataToJsonStr: `// Gets an array of numbers 0 to 255, returns the JSON text of an envelope.
function rawDataToJsonStr(bytes) {
  var value = (bytes[0] << 8 | bytes[1]) / 10;
  return JSON.stringify({
    id: '1', version: '1.0', method: 'integration.measurepoint.post',
    params: [{ deviceKey: 'DEVICE', time: Date.now(), measurepoints: { POINT: value } }]
  });
}
`,
  rawDataToProtocol: `// Gets an array of numbers 0 to 255, returns an envelope.
function rawDataToProtocol(bytes) {
  return {
    id: '1', version: '1.0', method: 'integration.measurepoint.post',
    params: [{ deviceKey: 'DEVICE', time: Date.now(), measurepoints: { POINT: bytes[0] } }]
  };
}
`,
  decodeUplink: 'function decodeUplink(input) {\n  return { data: { POINT: input.bytes[0] } };\n}\n',
  Decoder: 'function Decoder(bytes, port) {\n  return { POINT: bytes[0] };\n}\n',
  Decode: 'function Decode(fPort, bytes, variables) {\n  return { POINT: bytes[0] };\n}\n',
};
const VALUES_ALONE = ['decodeUplink', 'Decoder', 'Decode'];

function NewScript({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const navigate = useNavigate();
  const client = useQueryClient();
  const products = useProducts();
  const [name, setName] = useState('');
  const [product, setProduct] = useState<string | null>(null);
  const [dialect, setDialect] = useState('rawDataToJsonStr');
  const [error, setError] = useState<unknown>();
  const make = async (event: FormEvent) => {
    event.preventDefault();
    setError(undefined);
    try {
      const body = { product, dialect, source: START[dialect], ...(VALUES_ALONE.includes(dialect) && { mapping: { device: 'DEVICE' } }) };
      await ok(api.PUT('/api/v1/scripts/{name}/draft', { params: { path: { name } }, body: body as never }));
      await client.invalidateQueries();
      await navigate(`/scripts/${encodeURIComponent(name)}`);
    } catch (error) {
      setError(error);
    }
  };
  const custom = (products.data ?? []).filter((p) => p.format === 'custom').map((p) => p.name);
  return (
    <Modal opened onClose={onClose} title={t('New script')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void make(event)}>
        <Stack>
          <TextInput label={t('Name')} required value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <Select label={t('Product')} description={t('Of format custom')} required searchable allowDeselect={false} data={custom} value={product} onChange={setProduct} nothingFoundMessage={t('Make a custom product first.')} />
          <NativeSelect label={t('Dialect')} data={DIALECTS} value={dialect} onChange={(e) => setDialect(e.currentTarget.value)} />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit">{t('Make a draft')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}
