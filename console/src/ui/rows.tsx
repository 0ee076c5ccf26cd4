// Lists: a table of what is there, and one of any length that asks for more as one scrolls.
import { Button, Group, Table, Text } from '@mantine/core';
import { useInfiniteQuery } from '@tanstack/react-query';
import { useVirtualizer } from '@tanstack/react-virtual';
import { useCallback, useEffect, useRef, type ReactNode } from 'react';
import type { Page } from '../api/types';
import { useWords } from '../i18n';
import { Waiting } from './page';
import { ProblemAlert } from './problem';

export interface Column<T> {
  name: string;
  cell: (row: T) => ReactNode;
  right?: boolean;
  width?: string;
}

export function Rows<T>({ label, columns, rows, id, onSelect, empty }: {
  label: string; columns: Column<T>[]; rows: T[]; id: (row: T) => string; onSelect?: (row: T) => void; empty?: ReactNode;
}) {
  const { t } = useWords();
  if (rows.length === 0 && empty) return <>{empty}</>;
  return (
    <Table.ScrollContainer minWidth={500} type="native" tabIndex={0} role="region" aria-label={label}>
      <Table className="rows numbers" striped highlightOnHover verticalSpacing={6} aria-label={label}>
        <Table.Thead>
          <Table.Tr>
            {columns.map((column) => <Table.Th key={column.name} ta={column.right ? 'right' : 'left'}>{column.name}</Table.Th>)}
            {onSelect && <Table.Th><span className="quiet">{t('Details')}</span></Table.Th>}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map((row) => (
            <Table.Tr key={id(row)}>
              {columns.map((column) => <Table.Td key={column.name} ta={column.right ? 'right' : 'left'}>{column.cell(row)}</Table.Td>)}
              {onSelect && <Table.Td><Button size="compact-xs" variant="default" onClick={() => onSelect(row)}>{t('Show')}</Button></Table.Td>}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

const ROW_PX = 34;

/** Rows of any number: only what is seen is drawn. `onNear` is told when the last ones come near. */
export function VirtualRows<T>({ label, columns, rows, id, total, minWidth = 640, onNear }: {
  label: string; columns: Column<T>[]; rows: T[]; id: (row: T, at: number) => string; total?: number; minWidth?: number; onNear?: () => void;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: 12,
  });
  const seen = virtual.getVirtualItems();
  const last = seen.at(-1)?.index ?? 0;
  useEffect(() => {
    if (last >= rows.length - 30) onNear?.();
  }, [last, rows.length, onNear]);
  const grid = columns.map((column) => column.width ?? 'minmax(0, 1fr)').join(' ');
  const line = { display: 'grid', gridTemplateColumns: grid, gap: '0.8rem', padding: '0.4rem 0.6rem', fontSize: 14 };
  return (
    <div ref={scroller} style={{ height: 'min(62vh, 640px)', overflow: 'auto' }} tabIndex={0} role="region" aria-label={label}>
      <div role="table" aria-label={label} aria-rowcount={total ?? rows.length + 1} style={{ minWidth }}>
        <div role="rowgroup" style={{ position: 'sticky', top: 0, background: 'var(--mantine-color-body)', zIndex: 1, borderBottom: '1px solid var(--mantine-color-default-border)' }}>
          <div role="row" aria-rowindex={1} style={{ ...line, fontWeight: 700 }}>
            {columns.map((column) => <div role="columnheader" key={column.name} style={{ textAlign: column.right ? 'right' : 'left', overflowWrap: 'anywhere' }}>{column.name}</div>)}
          </div>
        </div>
        <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
          {seen.map((item) => {
            const row = rows[item.index];
            if (row === undefined) return null;
            return (
              <div
                role="row" key={id(row, item.index)} aria-rowindex={item.index + 2} data-testid="row"
                style={{ ...line, position: 'absolute', insetInline: 0, top: 0, transform: `translateY(${item.start}px)`, height: ROW_PX, borderBottom: '1px solid var(--mantine-color-default-border)' }}
              >
                {columns.map((column) => (
                  <div role="cell" key={column.name} style={{ overflow: 'hidden', textOverflow: 'ellipsis', whiteSpace: 'nowrap', textAlign: column.right ? 'right' : 'left' }}>{column.cell(row)}</div>
                ))}
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}

/** A list of any length: pages are asked for on the way. */
export function LongRows<T>({ label, columns, page, name, id, empty, total }: {
  label: string; columns: Column<T>[]; page: (cursor: string | undefined) => Promise<Page<T>>; name: unknown[]; id: (row: T) => string; empty: ReactNode; total?: number | undefined;
}) {
  const { t } = useWords();
  const query = useInfiniteQuery({
    queryKey: name,
    queryFn: ({ pageParam }) => page(pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next,
  });
  const rows = query.data?.pages.flatMap((page) => page.items) ?? [];
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = query;
  const more = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage]);
  if (query.error) return <ProblemAlert error={query.error} />;
  if (query.isPending) return <Waiting />;
  if (rows.length === 0) return <>{empty}</>;
  return (
    <>
      <VirtualRows label={label} columns={columns} rows={rows} id={id} total={hasNextPage ? -1 : rows.length + 1} onNear={more} />
      <Group justify="space-between">
        <Text size="sm" className="quiet" role="status">
          {hasNextPage
            ? t('{n} rows so far; scroll for more', { n: rows.length.toLocaleString('en-US') })
            : t('{n} rows', { n: rows.length.toLocaleString('en-US') })}
          {total !== undefined && ` · ${t('{n} in all', { n: total.toLocaleString('en-US') })}`}
        </Text>
        {isFetchingNextPage && <Waiting />}
      </Group>
    </>
  );
}
