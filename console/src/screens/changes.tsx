// The change feed: which ranges of time of which devices were computed anew, the last first.
import { Anchor, Group, Select, Stack, Switch, Text } from '@mantine/core';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import { useWords } from '../i18n';
import { Time, count } from '../time';
import { Asked, Empty, FilterText, Snippet, useFilters } from '../ui/page';
import { Rows } from '../ui/rows';
import { useProducts } from './channels';
import { historyOf, useDerived } from './rollups';

const SHOWN = 500;
const LIVE_MS = 2000;

export function Changes() {
  const { t } = useWords();
  const filters = useFilters();
  const [rollup, product, device, from, to] = ['rollup', 'product', 'device', 'from', 'to'].map(filters.get) as [string, string, string, string, string];
  const isLive = filters.get('live') !== '';
  const products = useProducts();
  const derived = useDerived();
  const query = { ...(rollup && { rollup }), ...(product && { product }), ...(device && { device }), ...(from && { from }), ...(to && { to }) };
  const changes = useQuery({
    queryKey: ['changes', query],
    queryFn: async () => (await ok(api.GET('/api/v1/changes', { params: { query: { ...query, limit: SHOWN, tail: true } } }))).items,
    refetchInterval: isLive ? LIVE_MS : false, placeholderData: keepPreviousData,
  });
  const isFiltered = Object.keys(query).length > 0;
  return (
    <Stack>
      <Group align="flex-end">
        <Select label={t('Rollup')} w={200} clearable searchable data={[...new Set((derived.data ?? []).map((one) => one.name))]} value={rollup || null} onChange={(rollup) => filters.set({ rollup })} />
        <Select label={t('Product')} w={180} clearable searchable data={(products.data ?? []).map((one) => one.name)} value={product || null} onChange={(product) => filters.set({ product })} />
        <FilterText label={t('Device')} w={160} value={device} onChange={(device) => filters.set({ device })} />
        <FilterText label={t('From')} value={from} onChange={(from) => filters.set({ from })} placeholder="2014-01-01T00:00Z" w={175} />
        <FilterText label={t('To')} value={to} onChange={(to) => filters.set({ to })} placeholder="2015-01-01T00:00Z" w={175} />
        <Switch label={t('As it happens')} checked={isLive} onChange={(e) => filters.set({ live: e.currentTarget.checked ? '1' : null })} />
      </Group>
      <Asked query={changes}>
        {(changes) => (
          <>
            <Rows
              label={t('Changes')} rows={changes.toReversed()} id={(one) => String(one.sequence)}
              columns={[
                { name: t('Sequence'), right: true, cell: (one) => String(one.sequence) },
                { name: t('Computed'), cell: (one) => <Time ms={one.time} /> },
                { name: t('Rollup'), cell: (one) => <Anchor component="button" type="button" size="sm" onClick={() => filters.set({ rollup: one.rollup })}>{one.rollup}</Anchor> },
                { name: t('Device'), cell: (one) => one.deviceKey },
                { name: t('From'), cell: (one) => <Time ms={one.from} /> },
                { name: t('To'), cell: (one) => <Time ms={one.to} /> },
                { name: t('Points'), cell: (one) => one.points.join(', ') },
                {
                  name: t('Values'), cell: (one) => {
                    const name = products.data?.find((product) => product.key === one.productKey)?.name;
                    if (name === undefined || one.points.length === 0) return '—';
                    const range = `&device=${encodeURIComponent(one.deviceKey)}&from=${new Date(one.from).toISOString()}&to=${new Date(one.to).toISOString()}`;
                    return <Anchor component={Link} size="sm" to={historyOf({ name: one.rollup, product: name, points: one.points }, range)}>{t('Show')}</Anchor>;
                  },
                },
              ]}
              empty={<Empty>{isFiltered ? t('No change fits the filters.') : t('Nothing was computed yet. Once a rollup is, each range that became another is told here.')}</Empty>}
            />
            {changes.length >= SHOWN && <Text size="xs" className="quiet">{t('The last {n} changes; choose a range of time or a device for others.', { n: count(SHOWN) })}</Text>}
          </>
        )}
      </Asked>
      <Snippet title={t('Follow it')} text={`curl -H "Authorization: Bearer $TOKEN" '${location.origin}/api/v1/changes?after=0'\nbacktide rollup changes`} />
    </Stack>
  );
}
