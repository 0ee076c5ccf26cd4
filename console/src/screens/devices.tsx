// Devices: a list of any length, bulk import, and those that were seen but are not registered.
import { Anchor, Button, Group, Select, Stack, Tabs, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { Cure, DeviceFile, Page as PageOf } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, count } from '../time';
import { Asked, Empty, FilterText, Page, useFilters } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { LongRows, Rows } from '../ui/rows';
import { useProducts } from './channels';
import { Cured } from './cured';
import { declare, type Outcome } from './declare';
import { DeviceForm } from './device-form';
import { Import, Report } from './objects';

export default function Devices() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const products = useProducts();
  const overview = useQuery({ queryKey: ['overview'], queryFn: () => ok(api.GET('/api/v1/overview')) });
  const tab = filters.get('tab') || 'registered';
  const [name, product, key] = [filters.get('name'), filters.get('product'), filters.get('key')];
  const make = may && <Button onClick={() => filters.set({ new: '1' })}>{t('New device')}</Button>;
  return (
    <Page title={t('Devices')} actions={<>{may && <Button variant="default" onClick={() => filters.set({ import: '1' })}>{t('Bulk import')}</Button>}{make}</>}>
      <Tabs value={tab} onChange={(tab) => filters.set({ tab: tab === 'registered' ? null : tab })} keepMounted={false}>
        <Tabs.List mb="sm"><Tabs.Tab value="registered">{t('Registered')}</Tabs.Tab><Tabs.Tab value="unknown">{t('Seen but unknown')}</Tabs.Tab></Tabs.List>
        <Tabs.Panel value="registered">
          <Stack>
            <Group align="flex-end">
              <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
              <FilterText label={t('Key')} value={key} onChange={(key) => filters.set({ key })} />
              <Select label={t('Product')} w={200} clearable searchable data={(products.data ?? []).map((p) => p.name)} value={product || null} onChange={(product) => filters.set({ product })} />
            </Group>
            <LongRows<DeviceFile>
              label={t('Devices')} name={['devices', name, product, key]} id={(device) => `${device.product}/${device.name}`}
              total={name || product || key ? undefined : overview.data?.devices}
              page={async (cursor) => (await ok(api.GET('/api/v1/devices', { params: { query: { limit: 200, ...(name && { name }), ...(product && { product }), ...(key && { key }), ...(cursor && { cursor }) } } }))) as unknown as PageOf<DeviceFile>}
              columns={[
                { name: t('Device'), width: '1.4fr', cell: (d) => <Anchor component={Link} to={`/devices/${encodeURIComponent(d.product)}/${encodeURIComponent(d.name)}`}>{d.name}</Anchor> },
                { name: t('Key'), width: '1.2fr', cell: (d) => <span className="mono">{d.key}</span> },
                { name: t('Product'), width: '1fr', cell: (d) => <Anchor component={Link} to={`/products?name=${encodeURIComponent(d.product)}`}>{d.product}</Anchor> },
                { name: t('Asset id'), width: '1.2fr', cell: (d) => <span className="mono">{d.assetId}</span> },
                { name: t('Time zone'), width: '0.8fr', cell: (d) => d.timezone ?? '' },
              ]}
              empty={<Empty action={make}>{name || product || key ? t('No device fits the filters.') : t('There is no device yet.')}</Empty>}
            />
          </Stack>
        </Tabs.Panel>
        <Tabs.Panel value="unknown"><Unknown /></Tabs.Panel>
      </Tabs>
      {filters.get('new') && <DeviceForm onClose={() => filters.set({ new: null })} />}
      {filters.get('import') && <Import title={t('Bulk import')} about={t('Devices as YAML, a JSON array or an object a line: kind, name, product, key. All of them are taken, or none.')} onClose={() => filters.set({ import: null })} />}
    </Page>
  );
}

/** Devices that messages named and nobody registered: the quarantine knows them. */
function Unknown() {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const products = useProducts();
  const [outcome, setOutcome] = useState<Outcome>();
  const [error, setError] = useState<unknown>();
  const causes = useQuery({
    queryKey: ['quarantine', 'causes', 1257],
    queryFn: async () => (await ok(api.GET('/api/v1/quarantine/causes', { params: { query: { code: 1257, limit: 1000 } } }))) as unknown as PageOf<Cure>,
  });
  const register = async (causes: Cure[]) => {
    setError(undefined);
    setOutcome(undefined);
    const named = new Map(causes.map((cause) => [`${cause.productKey} ${cause.deviceKey}`, cause]));
    const product = (cause: Cure) => (products.data ?? []).find((product) => product.key === cause.productKey)?.name;
    try {
      setOutcome(await declare(client, [...named.values()].map((cause) => ({ kind: 'Device', name: cause.deviceKey?.replace(/:/g, '-'), key: cause.deviceKey, product: product(cause) })), 'new'));
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Stack>
      <Text size="sm">{t('Messages named these devices, and none is registered. Their values wait in quarantine.')}</Text>
      <ProblemAlert error={error} />
      {outcome && <><Report outcome={{ ...outcome, cures: [] }} /><Cured cures={outcome.cures ?? []} /></>}
      <Asked query={causes}>
        {({ items: all }) => {
          const items = all.filter((cause) => cause.deviceKey);
          return <>
          {may && items.length > 1 && <Group><Button variant="default" onClick={() => void register(items)}>{t('Register all {n}', { n: count(items.length) })}</Button></Group>}
          <Rows
            label={t('Seen but unknown')} rows={items} id={(cause) => String(cause.id)}
            columns={[
              { name: t('Key'), cell: (c) => <span className="mono">{c.deviceKey}</span> },
              { name: t('Channel'), cell: (c) => <Anchor component={Link} to={`/channels/${encodeURIComponent(c.channel)}`}>{c.channel}</Anchor> },
              { name: t('Messages'), right: true, cell: (c) => <Anchor component={Link} to={`/quarantine?cause=${c.id}`}>{count(c.entries)}</Anchor> },
              { name: t('First'), cell: (c) => <Time ms={c.first} /> },
              { name: t('Last'), cell: (c) => <Time ms={c.last} /> },
              ...(may ? [{ name: t('Register'), cell: (c: Cure) => <Button size="compact-sm" onClick={() => void register([c])}>{t('Register')}</Button> }] : []),
            ]}
            empty={<Empty>{t('Every device that messages named is registered.')}</Empty>}
          />
          </>;
        }}
      </Asked>
    </Stack>
  );
}
