// Imports: files on their way, files that came, and what became of their rows.
import { Alert, Anchor, Button, Card, Group, Progress, Select, Stack, Text } from '@mantine/core';
import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';
import { Link, useParams } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, bytes, count, span } from '../time';
import { cancel, forget, stop, useUploads, type Upload } from '../uploads';
import { Asked, Empty, FilterText, Page, Pairs, Snippet, State, Sure, useFilters } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { Rows } from '../ui/rows';
import { conflictsOfImport } from './history-conflicts';

type ImportOf = Schemas['Import'];

const PAGE = 200;
const LOOK_MS = 2000;
const at = encodeURIComponent;
const logOf = (one: ImportOf) => `/channels/${at(one.channel)}/log?kind=transmission&text=${at(one.clientId)}`;
const rejectedOf = (one: ImportOf) => `/quarantine?tab=entries&client=${at(one.clientId)}`;

export default function Imports() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const client = useQueryClient();
  const [file, channel, state] = ['file', 'channel', 'state'].map(filters.get) as [string, string, string];
  const uploads = useUploads();
  const imports = useInfiniteQuery({
    queryKey: ['imports'],
    queryFn: ({ pageParam }) => ok(api.GET('/api/v1/imports', { params: { query: { limit: PAGE, ...(pageParam && { cursor: pageParam }) } } })),
    initialPageParam: '',
    getNextPageParam: (last) => last.next ?? undefined,
    refetchInterval: (query) => (query.state.data?.pages[0]?.items.some((one) => one.state === 'running') ? LOOK_MS : 5 * LOOK_MS),
  });
  const ended = uploads.filter((upload) => upload.state !== 'sending').length;
  useEffect(() => void client.invalidateQueries({ queryKey: ['imports'] }), [client, uploads.length, ended]);
  const fits = (one: ImportOf) => one.file.toLowerCase().includes(file.toLowerCase()) && one.channel.includes(channel) && (!state || (state === 'rejected' ? one.rows.rejected > 0 : one.state === state));
  const make = may && <Button component={Link} to={`/new-import${channel ? `?channel=${at(channel)}` : ''}`}>{t('Import a file')}</Button>;
  return (
    <Page title={t('Imports')} about={t('History that comes as files: CSV, NDJSON or Parquet. What is counted as stored is on disk.')} actions={make}>
      {uploads.map((upload) => <Sending key={upload.key} upload={upload} />)}
      <Group align="flex-end">
        <FilterText label={t('File contains')} value={file} onChange={(file) => filters.set({ file })} />
        <FilterText label={t('Channel')} value={channel} onChange={(channel) => filters.set({ channel })} />
        <Select
          label={t('State')} w={180} clearable value={state || null} onChange={(state) => filters.set({ state })}
          data={[{ value: 'running', label: t('running') }, { value: 'complete', label: t('complete') }, { value: 'interrupted', label: t('interrupted') }, { value: 'failed', label: t('failed') }, { value: 'rejected', label: t('with rejected rows') }]}
        />
      </Group>
      <Asked query={imports}>
        {({ pages }) => (
          <Rows
            label={t('Imports')} rows={pages.flatMap((page) => page.items).filter(fits)} id={(one) => String(one.id)}
            columns={[
              { name: t('File'), cell: (one) => <Anchor component={Link} to={`/imports/${one.id}`}>{one.file || t('import {n}', { n: one.id })}</Anchor> },
              { name: t('State'), cell: (one) => <><State state={one.state} />{one.error && <Text size="xs" maw={360} style={{ overflowWrap: 'anywhere' }}>{one.error}</Text>}</> },
              { name: t('Channel'), cell: (one) => <Anchor component={Link} to={`/channels/${at(one.channel)}`}>{one.channel}</Anchor> },
              { name: t('Begun'), cell: (one) => <Time ms={one.began} /> },
              { name: t('Rows stored'), right: true, cell: (one) => <Anchor component={Link} to={logOf(one)}>{count(one.rows.stored)}</Anchor> },
              { name: t('Rows rejected'), right: true, cell: (one) => (one.rows.rejected > 0 ? <Anchor component={Link} to={rejectedOf(one)}>{count(one.rows.rejected)}</Anchor> : '0') },
              { name: t('Rows empty'), right: true, cell: (one) => count(one.rows.empty) },
              { name: t('By'), cell: (one) => one.by },
            ]}
            empty={<Empty action={make}>{file || channel || state ? t('No import fits the filters.') : t('No file was imported yet. Rows of a file go the way of a channel’s messages.')}</Empty>}
          />
        )}
      </Asked>
      {imports.hasNextPage && <Group><Button variant="default" loading={imports.isFetchingNextPage} onClick={() => void imports.fetchNextPage()}>{t('More')}</Button></Group>}
    </Page>
  );
}

/** A file that this page sends. */
function Sending({ upload }: { upload: Upload }) {
  const { t } = useWords();
  const { rows } = upload.import ?? {};
  const isSending = upload.state === 'sending';
  const percent = upload.bytes > 0 ? (100 * upload.sent) / upload.bytes : 100;
  return (
    <Card withBorder component="section" aria-label={upload.file} data-testid="upload">
      <Stack gap="xs">
        <Group justify="space-between">
          <Group gap="sm"><State state={isSending ? 'running' : upload.state} /><Text fw={600}>{upload.import ? <Anchor component={Link} to={`/imports/${upload.import.id}`}>{upload.file}</Anchor> : upload.file}</Text><Text size="sm" className="quiet">{upload.channel}</Text></Group>
          {isSending
            ? <Button size="compact-sm" variant="default" onClick={() => cancel(upload.key)}>{t('Cancel')}</Button>
            : <Button size="compact-sm" variant="default" onClick={() => forget(upload.key)}>{t('Close')}</Button>}
        </Group>
        {isSending && <Progress value={Math.max(1, percent)} aria-label={t('Sent of {file}', { file: upload.file })} />}
        <Text size="sm" className="numbers" role="status">
          {isSending && `${t('{bytes} of {max}', { bytes: bytes(upload.sent), max: bytes(upload.bytes) })} · `}
          {rows ? t('{n} rows stored, {m} rejected, {k} empty', { n: count(rows.stored), m: count(rows.rejected), k: count(rows.empty) }) : ''}
          {isSending && ` · ${t('It goes on while you look at other screens; closing this page ends it.')}`}
        </Text>
        {upload.state === 'cancelled' && <Text size="sm">{t('It was ended here. What is stored stays stored; send the file again to have all of it.')}</Text>}
        <ProblemAlert error={upload.error} title={t('{file} was not imported', { file: upload.file })} />
      </Stack>
    </Card>
  );
}

export function ImportPage() {
  const { t } = useWords();
  const may = useMay('operator');
  const { id = '' } = useParams();
  const query = useQuery({
    queryKey: ['imports', 'one', id],
    queryFn: () => ok(api.GET('/api/v1/imports/{id}', { params: { path: { id: Number(id) } } })),
    refetchInterval: (query) => (query.state.data?.state === 'running' ? LOOK_MS : false),
  });
  const isRunning = may && query.data?.state === 'running';
  return <Page title={query.data?.file || t('import {n}', { n: id })} actions={isRunning && (
    <Sure label={t('Cancel the import')} title={t('Cancel {name}?', { name: query.data?.file ?? '' })} onSure={async () => { await stop(Number(id)); await query.refetch(); }}>{t('It ends after the rows that it is at. What is stored stays stored; send the file again to have all of it.')}</Sure>
  )}><Asked query={query}>{(one) => <Details one={one} />}</Asked></Page>;
}

function Details({ one }: { one: ImportOf }) {
  const { t } = useWords();
  const may = useMay('operator');
  const { rows } = one;
  const compared = (found: ImportOf['conflicts']) => (!found ? '–' : found.complete ? count(found.values) : t('{n} so far; the rest is still compared', { n: count(found.values) }));
  const again = <Button component={Link} to={`/new-import?channel=${at(one.channel)}&skipRows=${rows.answered}`}>{t('Go on with the file')}</Button>;
  return (
    <Stack>
      <Group gap="sm"><State state={one.state} /><Text size="sm" className="numbers"><Time ms={one.began} />{one.ended != null && <> – <Time ms={one.ended} /> · {span(one.ended - one.began)}</>}</Text></Group>
      {one.error && (
        <Alert color={one.state === 'failed' ? 'red' : 'orange'} variant="light" role="alert" title={one.state === 'interrupted' ? t('It was interrupted') : t('It did not come to its end')}>
          <Stack gap="xs" align="flex-start">
            <Text size="sm">{one.error}</Text>
            <Text size="sm"><b>{t('What to do')}:</b> {rows.answered > 0 ? t('Choose the same file again: {n} rows from its beginning are answered and can be left out. What is stored is not doubled.', { n: count(rows.answered) }) : t('Correct that and send the file again.')}</Text>
            {may && again}
          </Stack>
        </Alert>
      )}
      {rows.rejected > 0 && (
        <Alert color="yellow" variant="light" title={t('{n} rows are in quarantine', { n: count(rows.rejected) })}>
          <Text size="sm">{t('Each says the number of its row and why. What a declaration cures can be driven in again; else correct the file and send it once more.')} <Anchor component={Link} size="sm" to={rejectedOf(one)}>{t('Show them')}</Anchor></Text>
        </Alert>
      )}
      <Card withBorder component="section" aria-label={t('What became of its rows')}>
        <Pairs of={[
          [t('Rows stored'), <Anchor key="s" component={Link} to={logOf(one)}>{count(rows.stored)}</Anchor>],
          [t('Rows rejected'), rows.rejected > 0 ? <Anchor key="r" component={Link} to={rejectedOf(one)}>{count(rows.rejected)}</Anchor> : '0'],
          [t('Rows empty'), count(rows.empty)],
          [t('Rows answered from the beginning'), count(rows.answered)],
          [t('Values'), count(rows.values)],
          [t('Values that were there already'), compared(one.repeated)],
          [t('Values other than what stood there'), one.conflicts?.values ? <Anchor key="o" component={Link} to={conflictsOfImport(one.id)}>{compared(one.conflicts)}</Anchor> : compared(one.conflicts)],
          [t('Messages'), <Anchor key="m" component={Link} to={logOf(one)}>{count(rows.messages)}</Anchor>],
          [t('Channel'), <Anchor key="c" component={Link} to={`/channels/${at(one.channel)}`}>{one.channel}</Anchor>],
          [t('Client'), <span key="k" className="mono">{one.clientId}</span>],
          [t('By'), one.by],
        ]} />
      </Card>
      <Snippet title={t('On the command line')} text={`backtide import show ${one.id}\nbacktide conflicts --import ${one.id}\nbacktide quarantine ls --client ${one.clientId}`} />
    </Stack>
  );
}
