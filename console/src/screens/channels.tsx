// Message Integration: the list of channels, and making one.
import { Anchor, Button, Group, Modal, Radio, Select, Stack, Switch, Text, TextInput, Textarea } from '@mantine/core';
import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useNavigate } from 'react-router';
import { api, ok } from '../api/client';
import type { ProductFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Ago, count } from '../time';
import { Asked, Empty, FilterText, Page, Sparkline, State, useFilters } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { Rows } from '../ui/rows';
import { useWork } from '../ui/work';
import { declare } from './declare';

export default function Channels() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const [product, state, name] = ['product', 'state', 'name'].map(filters.get) as [string, string, string];
  const products = useProducts();
  const channels = useInfiniteQuery({
    queryKey: ['activity', product, state, name],
    queryFn: ({ pageParam }) => ok(api.GET('/api/v1/activity', {
      params: { query: { ...(product && { product }), ...(state && { state }), ...(name && { name }), limit: 200, ...(pageParam && { cursor: pageParam }) } },
    })),
    initialPageParam: '',
    getNextPageParam: (last) => last.next ?? undefined,
    refetchInterval: 5000,
  });
  const isMaking = filters.get('new') !== '';
  const make = may && <Button onClick={() => filters.set({ new: '1' })}>{t('New message channel')}</Button>;
  return (
    <Page title={t('Message Integration')} about={t('A channel is how history comes in for one product: four strings that paste into any MQTT client.')} actions={make}>
      <Group align="flex-end">
        <FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} />
        <Select label={t('Product')} w={200} clearable searchable data={(products.data ?? []).map((p) => p.name)} value={product || null} onChange={(product) => filters.set({ product })} />
        <Select label={t('State')} w={140} clearable data={[{ value: 'open', label: t('open') }, { value: 'paused', label: t('paused') }, { value: 'held', label: t('held') }]} value={state || null} onChange={(state) => filters.set({ state })} />
      </Group>
      <Asked query={channels}>
        {({ pages }) => (
          <Rows
            label={t('Channels')} rows={pages.flatMap((page) => page.items)} id={(channel) => channel.name}
            columns={[
              { name: t('Channel'), cell: (c) => <><Anchor component={Link} to={`/channels/${encodeURIComponent(c.name)}`}>{c.name}</Anchor>{c.description && <Text size="xs" className="quiet">{c.description}</Text>}</> },
              { name: t('State'), cell: (c) => <State state={c.state} /> },
              { name: t('Product'), cell: (c) => <Anchor component={Link} to={`/products?name=${encodeURIComponent(c.product)}`}>{c.product}</Anchor> },
              { name: t('Mode'), cell: (c) => (c.mode === 'lenient' ? t('lenient') : t('strict')) },
              { name: t('Clients'), right: true, cell: (c) => <Anchor component={Link} to={`/channels/${encodeURIComponent(c.name)}/log?kind=connection`}>{count(c.clients)}</Anchor> },
              { name: t('Last message'), cell: (c) => <Ago ms={c.lastMessage ?? undefined} /> },
              { name: t('Last 24 hours'), cell: (c) => <Sparkline hours={c.hours} label={t('{n} messages, {m} refused', { n: c.messages, m: c.refused })} /> },
              { name: t('Refused'), right: true, cell: (c) => <Anchor component={Link} to={`/channels/${encodeURIComponent(c.name)}/log?kind=error`}>{c.messages ? `${((100 * c.refused) / c.messages).toFixed(1)} %` : '—'}</Anchor> },
            ]}
            empty={<Empty action={make}>{name || state || product ? t('No channel fits the filters.') : t('There is no channel yet.')}</Empty>}
          />
        )}
      </Asked>
      {channels.hasNextPage && <Button variant="default" onClick={() => void channels.fetchNextPage()}>{t('More')}</Button>}
      {isMaking && <NewChannel products={products.data ?? []} onClose={() => filters.set({ new: null })} />}
    </Page>
  );
}

export function useProducts() {
  return useQuery({
    queryKey: ['products', 'all'],
    queryFn: async () => (await ok(api.GET('/api/v1/products', { params: { query: { limit: 1000 } } }))).items as unknown as ProductFile[],
  });
}

function NewChannel({ products, onClose }: { products: ProductFile[]; onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useState('');
  const [product, setProduct] = useState<string | null>(products.length === 1 ? (products[0]?.name ?? null) : null);
  const [mode, setMode] = useState('strict');
  const [stampArrival, setStampArrival] = useState(false);
  const [description, setDescription] = useState('');
  const { busy, error, submit } = useWork();
  const format = products.find((p) => p.name === product)?.format ?? 'json';
  const make = submit(async () => {
    await declare(client, [{ kind: 'Channel', name, product, mode, ...(stampArrival && { stampArrival }), ...(description && { description }) }], 'new');
    await navigate(`/channels/${encodeURIComponent(name)}`);
  });
  return (
    <Modal opened onClose={onClose} title={t('New message channel')} size="lg" closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={make}>
        <Stack>
          <TextInput label={t('Integration mode')} value={t('offline messages')} readOnly description={t('Backfilled history, stored as of its own time')} />
          <TextInput label={t('Channel name')} required value={name} onChange={(e) => setName(e.currentTarget.value)} maxLength={64} description={t('1 to 64 letters of any script, digits, - _ .')} data-autofocus />
          <Group grow align="flex-start">
            <TextInput label={t('Protocol')} value="MQTT 3.1.1, 5.0" readOnly />
            <Select label={t('Target product')} required searchable allowDeselect={false} data={products.map((p) => p.name)} value={product} onChange={setProduct} nothingFoundMessage={t('Make a product first.')} />
            <TextInput label={t('Data format')} value={format === 'json' ? 'JSON' : t('custom, by the product’s script')} readOnly description={t('as the product says')} />
          </Group>
          <Radio.Group label={t('One bad item in a message')} value={mode} onChange={setMode}>
            <Group mt="xs">
              <Radio value="strict" label={t('refuses the message (strict)')} />
              <Radio value="lenient" label={t('is refused by itself (lenient)')} />
            </Group>
          </Radio.Group>
          <Switch label={t('Items without a time get that of their arrival')} checked={stampArrival} onChange={(e) => setStampArrival(e.currentTarget.checked)} />
          <Textarea label={t('Description')} value={description} onChange={(e) => setDescription(e.currentTarget.value)} autosize minRows={2} />
          <ProblemAlert error={error} />
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>{t('Cancel')}</Button>
            <Button type="submit" loading={busy}>{t('Make the channel')}</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
