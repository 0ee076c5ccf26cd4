// Values that were overwritten by different ones, with the messages that both came by; all of them, or
// those that one import brought.
import { Anchor, Button, Group, Stack, Table, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { Conflict, Page as PageOf } from '../api/types';
import { useWords } from '../i18n';
import { Time, count } from '../time';
import { Asked, Empty } from '../ui/page';
import type { Range } from './coverage';

const EACH = 1000;

export interface Conflicts {
  items: Conflict[];
  /** In all, not only of those listed. */
  total: number;
  hasMore: boolean;
}

/** Where the conflicts are listed that an import brought. */
export const conflictsOfImport = (id: number) => `/history?view=conflicts&import=${id}`;

/** The conflicts of a range, or of it those that an import brought: the first thousand of each device. */
export function useConflicts({ product, device, points = '', ...range }: Range, ofImport: string, isAsked: boolean) {
  const whose = { ...range, ...(product && { product }), ...(points && { points }), ...(ofImport && { import: Number(ofImport) }) };
  return useQuery({
    queryKey: ['conflicts', whose, device], enabled: isAsked,
    queryFn: async (): Promise<Conflicts> => {
      const asked = device.split(',').map(async (device) => (await ok(api.GET('/api/v1/conflicts', { params: { query: { ...whose, ...(device && { device }), limit: EACH } } }))) as unknown as PageOf<Conflict> & { total: number });
      const found = await Promise.all(asked);
      return { items: found.flatMap((page) => page.items), total: found.reduce((sum, page) => sum + page.total, 0), hasMore: found.some((page) => page.next !== undefined) };
    },
    placeholderData: (before) => before,
  });
}

/** Says that the list is of one import; `onAll` takes that back. */
export function OfImport({ id, onAll }: { id: string; onAll: () => void }) {
  const { t } = useWords();
  return (
    <Group gap="sm" mb="sm">
      <Text size="sm">{t('Only what this import brought: its value came later.')} <Anchor component={Link} size="sm" to={`/imports/${id}`}>{t('import {n}', { n: id })}</Anchor></Text>
      <Button size="compact-sm" variant="default" onClick={onAll}>{t('All conflicts')}</Button>
    </Group>
  );
}

export function ConflictTable({ query }: { query: ReturnType<typeof useConflicts> }) {
  const { t } = useWords();
  const receipt = (of: string) => <Anchor component={Link} size="sm" className="mono" to={`/storage?receipt=${encodeURIComponent(of)}`}>{of}</Anchor>;
  const channel = (of: string | undefined) => of && <Anchor component={Link} size="sm" to={`/channels/${encodeURIComponent(of)}`}>{of}</Anchor>;
  return (
    <Asked query={query}>
      {({ items, hasMore }) => items.length === 0 ? <Empty>{t('No value in this range was overwritten by a different one.')}</Empty> : (
        <Stack gap="xs">
          <Table.ScrollContainer minWidth={600} type="native" tabIndex={0} role="region" aria-label={t('Conflicts')} mah={560}>
            <Table className="numbers" aria-label={t('Conflicts')} striped stickyHeader>
              <Table.Thead><Table.Tr><Table.Th>{t('Device')}</Table.Th><Table.Th>{t('Point')}</Table.Th><Table.Th>{t('Time')}</Table.Th><Table.Th>{t('Overwritten')}</Table.Th><Table.Th>{t('Kept')}</Table.Th><Table.Th>{t('Receipts')}</Table.Th><Table.Th>{t('Channels')}</Table.Th></Table.Tr></Table.Thead>
              <Table.Tbody>
                {items.map((c, at) => (
                  <Table.Tr key={at}>
                    <Table.Td>{c.deviceKey}</Table.Td><Table.Td>{c.point}</Table.Td><Table.Td><Time ms={c.time} /></Table.Td><Table.Td>{JSON.stringify(c.overwritten)}</Table.Td><Table.Td>{JSON.stringify(c.kept)}</Table.Td>
                    <Table.Td>{receipt(c.overwrittenReceipt)} → {receipt(c.keptReceipt)}</Table.Td>
                    <Table.Td>{channel(c.overwrittenChannel)}{c.overwrittenChannel && c.keptChannel && ' → '}{channel(c.keptChannel)}</Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          {hasMore && <Text size="xs" className="quiet">{t('The first {n} of each device: choose a shorter range for the rest.', { n: count(EACH) })}</Text>}
        </Stack>
      )}
    </Asked>
  );
}
