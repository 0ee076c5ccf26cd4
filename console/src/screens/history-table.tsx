// The values of a range as a table, each leading to where it came from.
import { Anchor, Button, Stack, Table, Text } from '@mantine/core';
import { useInfiniteQuery } from '@tanstack/react-query';
import { api, ok } from '../api/client';
import type { Conflict, Page as PageOf } from '../api/types';
import { useWords } from '../i18n';
import { Time } from '../time';
import { Asked, Empty } from '../ui/page';
import type { Picked } from './history-lineage';

type Row = { deviceKey: string; time: number } & Record<string, unknown>;

export function Values({ query, names, onPick, conflicts }: { query: Record<string, string>; names: string[]; onPick: (picked: Picked) => void; conflicts: Conflict[] }) {
  const { t } = useWords();
  const rows = useInfiniteQuery({
    queryKey: ['points', query],
    queryFn: async ({ pageParam }) => (await ok(api.GET('/api/v1/points', { params: { query: { ...query, quality: true, limit: 200, ...(pageParam && { cursor: pageParam }) } } }))) as unknown as PageOf<Row>,
    initialPageParam: '',
    getNextPageParam: (last) => last.next,
  });
  const clashes = new Set(conflicts.map((c) => `${c.deviceKey} ${c.point} ${c.time}`));
  return (
    <Asked query={rows}>
      {({ pages }) => pages[0]?.items.length === 0 ? <Empty>{t('Nothing is stored in this range.')}</Empty> : (
        <Stack>
          <Table.ScrollContainer minWidth={500} type="native" tabIndex={0} role="region" aria-label={t('Values')} mah={560}>
            <Table className="numbers" aria-label={t('Values')} striped stickyHeader verticalSpacing={4}>
              <Table.Thead><Table.Tr><Table.Th>{t('Time')}</Table.Th><Table.Th>{t('Device')}</Table.Th>{names.map((name) => <Table.Th key={name} ta="right">{name}</Table.Th>)}</Table.Tr></Table.Thead>
              <Table.Tbody>
                {pages.flatMap((page) => page.items).map((row) => (
                  <Table.Tr key={`${row.deviceKey} ${row.time}`}>
                    <Table.Td><Time ms={row.time} /></Table.Td><Table.Td>{row.deviceKey}</Table.Td>
                    {names.map((name) => {
                      const cell = row[name];
                      if (cell === undefined) return <Table.Td key={name} />;
                      const graded = cell !== null && typeof cell === 'object' && 'quality' in cell ? (cell as { value: unknown; quality: number }) : undefined;
                      const isClash = clashes.has(`${row.deviceKey} ${name} ${row.time}`);
                      return (
                        <Table.Td key={name} ta="right">
                          <Anchor component="button" type="button" size="sm" c="inherit" onClick={() => onPick({ device: row.deviceKey, point: name, time: row.time })}>{JSON.stringify(graded ? graded.value : cell)}</Anchor>
                          {graded && <Text size="xs" span> q{graded.quality}</Text>}{isClash && <Text size="xs" span title={t('overwritten by a different value')}> ⚠</Text>}
                        </Table.Td>
                      );
                    })}
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          {rows.hasNextPage && <Button variant="default" loading={rows.isFetchingNextPage} onClick={() => void rows.fetchNextPage()}>{t('More')}</Button>}
        </Stack>
      )}
    </Asked>
  );
}
