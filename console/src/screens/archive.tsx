// One archive: how it stands, the days that are due, the files it has, what it is made of; run, start, stop, secret.
import { Alert, Anchor, Button, Card, Group, SimpleGrid, Stack, Tabs, Text, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import type { ArchiveFile, ArchiveStanding, Page as PageOf } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, bytes, count, span } from '../time';
import { Asked, Empty, FilterText, Page, Pairs, Snippet, State, Sure, useFilters } from '../ui/page';
import { tell, tellProblem } from '../ui/problem';
import { LongRows, Rows } from '../ui/rows';
import { SecretModal } from '../ui/secret';
import { ArchiveEditor } from './archive-editor';
import { archiveTo } from './archives';

const TABS = ['status', 'due', 'files', 'edit'];

export function NewArchive() {
  const { t } = useWords();
  const navigate = useNavigate();
  return <Page title={t('New archive')}><ArchiveEditor onSaved={(name) => void navigate(archiveTo(name))} /></Page>;
}

export default function Archive() {
  const { t } = useWords();
  const { name = '', tab: asked } = useParams();
  const tab = asked && TABS.includes(asked) ? asked : 'status';
  const navigate = useNavigate();
  const client = useQueryClient();
  const may = useMay('operator');
  const isAdmin = useMay('admin');
  const path = { params: { path: { name } } };
  const [isTelling, setTelling] = useState(false);
  const standing = useQuery({
    queryKey: ['archives', name, 'status'],
    queryFn: async () => (await ok(api.GET('/api/v1/archives/{name}/status', path))) as unknown as ArchiveStanding,
    refetchInterval: 2000,
  });
  const file = useQuery({
    queryKey: ['archives', name, 'file'],
    queryFn: async () => (await ok(api.GET('/api/v1/archives/{name}', path))) as unknown as ArchiveFile,
  });
  const act = async (work: () => Promise<unknown>, said: string) => {
    try {
      await work();
      await client.invalidateQueries({ queryKey: ['archives'] });
      tell(said);
    } catch (error) {
      tellProblem(error);
    }
  };
  const isS3 = file.data?.to.s3 !== undefined;
  return (
    <Page
      title={name}
      {...(file.data?.description && { about: file.data.description })}
      actions={may && standing.data && file.data && <>
        <Button disabled={standing.data.state === 'running'} onClick={() => void act(() => ok(api.POST('/api/v1/archives/{name}/runs', path)), t('It runs.'))}>{t('Run now')}</Button>
        {isAdmin && isS3 && <Button variant="default" onClick={() => setTelling(true)}>{t('Secret…')}</Button>}
        {file.data.schedule && (standing.data.state === 'stopped'
          ? <Button variant="default" onClick={() => void act(() => ok(api.POST('/api/v1/archives/{name}/start', path)), t('It runs by its schedule.'))}>{t('Start')}</Button>
          : <Sure label={t('Stop')} title={t('Stop {name}?', { name })} color="orange" onSure={async () => {
              await ok(api.POST('/api/v1/archives/{name}/stop', path));
              await client.invalidateQueries({ queryKey: ['archives'] });
            }}>{t('It runs no more by its schedule, until it is started. What is due meanwhile is written then, or when it is told to run.')}</Sure>)}
        <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
          await ok(api.DELETE('/api/v1/archives/{name}', path));
          await navigate('/archives');
          await client.invalidateQueries();
        }}>{t('The files that it wrote stay where they are. An archive that is made anew at the same place writes all of them again.')}</Sure>
      </>}
    >
      <Asked query={standing}>
        {(standing) => (
          <>
            <Group gap="lg">
              <State state={standing.state} />
              <Text size="sm" className="numbers">{standing.nextRun !== undefined ? <>{t('next run')} <Time ms={standing.nextRun} /></> : t('It runs when it is told to.')}</Text>
            </Group>
            {isS3 && !standing.hasSecret && <Alert color="orange" variant="light" title={t('The secret of its access key is not set')}>{isAdmin ? t('Set it, so that it can write to the bucket.') : t('An admin sets it.')}</Alert>}
            {standing.lastRun?.error && (
              <Alert color="red" variant="light" role="alert" title={t('The last run failed')}>
                <Text size="sm">{standing.lastRun.error} · <Time ms={standing.lastRun.ended ?? standing.lastRun.began} /></Text>
                <Text size="sm"><b>{t('What to do')}:</b> {t('See to the place, then run it: it goes on with the days that are due. A schedule tries again after a minute.')}</Text>
              </Alert>
            )}
            <Tabs value={tab} onChange={(tab) => void navigate(archiveTo(name, tab === 'status' || !tab ? '' : tab))} keepMounted={false}>
              <Tabs.List mb="md">
                <Tabs.Tab value="status">{t('How it stands')}</Tabs.Tab><Tabs.Tab value="due">{t('Days due')} ({count(standing.daysDue)})</Tabs.Tab>
                <Tabs.Tab value="files">{t('Files')} ({count(standing.files)})</Tabs.Tab><Tabs.Tab value="edit">{t('Edit')}</Tabs.Tab>
              </Tabs.List>
              <Tabs.Panel value="status"><Status standing={standing} file={file.data} /></Tabs.Panel>
              <Tabs.Panel value="due"><Due name={name} /></Tabs.Panel>
              <Tabs.Panel value="files"><Files name={name} key={standing.lastRun?.ended} /></Tabs.Panel>
              <Tabs.Panel value="edit"><Asked query={file}>{(file) => <ArchiveEditor file={file} readOnly={!may} onSaved={() => void navigate(archiveTo(name))} />}</Asked></Tabs.Panel>
            </Tabs>
            {isTelling && <SecretModal
              name={name} hasSecret={standing.hasSecret} about={t('It belongs to the S3 access key of the archive. It is sealed, and shown to nobody.')} onClose={() => setTelling(false)}
              onSet={async (secret) => {
                await ok(api.POST('/api/v1/archives/{name}/secret', { ...path, body: { secret } }));
                await client.invalidateQueries({ queryKey: ['archives'] });
                tell(secret === null ? t('The archive has no secret now.') : t('The secret is set. It is shown to nobody.'));
              }}
            />}
          </>
        )}
      </Asked>
    </Page>
  );
}

function Status({ standing, file }: { standing: ArchiveStanding; file: ArchiveFile | undefined }) {
  const { t } = useWords();
  const run = standing.lastRun;
  const s3 = file?.to.s3;
  const place = s3 ? `s3://${s3.bucket}/${s3.prefix ?? ''}` : (file?.to.folder ?? '');
  const glob = `${s3 ? place.replace(/\/?$/, '/') : `${place}/`}**/*.${file?.format ?? 'parquet'}`;
  const reader = file?.format === 'csv' ? 'read_csv' : 'read_parquet';
  return (
    <Stack>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Card withBorder component="section" aria-label={t('What it has')}>
          <Title order={2} size="h5" mb="xs">{t('What it has')}</Title>
          <Pairs of={[
            [t('Place'), <span key="p" className="mono">{place}</span>], [t('Files'), <Anchor key="f" component={Link} to={archiveTo(standing.name, 'files')}>{count(standing.files)}</Anchor>],
            [t('Rows'), count(standing.rows)], [t('Size'), bytes(standing.bytes)], [t('Days due'), <Anchor key="d" component={Link} to={archiveTo(standing.name, 'due')}>{count(standing.daysDue)}</Anchor>],
            ...(s3 ? [[t('Secret'), standing.hasSecret ? t('set') : t('none')] as [string, string]] : []),
          ]} />
        </Card>
        <Card withBorder component="section" aria-label={t('Last run')}>
          <Title order={2} size="h5" mb="xs">{t('Last run')}</Title>
          {run ? (
            <Pairs of={[
              [t('State'), <State key="s" state={run.state} />], [t('Begun'), <Time key="b" ms={run.began} />], [t('Ended'), <Time key="e" ms={run.ended} />],
              ...(run.ended !== undefined ? [[t('Took'), span(run.ended - run.began)] as [string, string]] : []),
              [t('Days written'), count(run.days)], [t('Files written'), count(run.files)], [t('Rows written'), count(run.rows)], [t('Bytes written'), bytes(run.bytes)],
            ]} />
          ) : <Text size="sm">{t('It has not run yet: press Run now, or give it a schedule.')}</Text>}
        </Card>
      </SimpleGrid>
      <Snippet title={t('Read it with DuckDB')} text={`SELECT deviceKey, count(*) FROM ${reader}('${glob}', hive_partitioning = true)\nWHERE date = '2014-03-30' GROUP BY 1;`} />
      <Snippet title={t('On the command line')} text={`backtide archive run ${standing.name} --wait\nbacktide archive ls`} />
    </Stack>
  );
}

/** What a run would write now. */
function Due({ name }: { name: string }) {
  const { t } = useWords();
  const plan = useQuery({ queryKey: ['archives', name, 'plan'], queryFn: () => ok(api.POST('/api/v1/archives/{name}/dry-run', { params: { path: { name } } })) });
  return (
    <Asked query={plan}>
      {(plan) => (
        <Stack>
          <Text size="sm" role="status">{t('A run would write {n} days of products now; asking writes nothing.', { n: count(plan.days) })}</Text>
          <Rows
            label={t('Days due')} rows={plan.items} id={(day) => `${day.product} ${day.date}`}
            columns={[
              { name: t('Day (UTC)'), cell: (day) => day.date },
              { name: t('Product'), cell: (day) => <span className="mono">{day.product}</span> },
              { name: t('Why'), cell: (day) => (day.isNew ? t('it was never written') : t('something of it changed since')) },
            ]}
            empty={<Empty>{t('Every day is written as it stands.')}</Empty>}
          />
          {plan.days > plan.items.length && <Text size="xs" className="quiet">{t('and {n} more', { n: count(plan.days - plan.items.length) })}</Text>}
        </Stack>
      )}
    </Asked>
  );
}

function Files({ name }: { name: string }) {
  const { t } = useWords();
  const filters = useFilters();
  const [product, date] = [filters.get('product'), filters.get('date')];
  const query = { limit: 500, ...(product && { product }), ...(date && { date }) };
  return (
    <Stack>
      <Group align="flex-end">
        <FilterText label={t('Product')} value={product} onChange={(product) => filters.set({ product })} />
        <FilterText label={t('Day (UTC)')} value={date} onChange={(date) => filters.set({ date })} placeholder="2014-03-30" w={140} />
      </Group>
      <LongRows<Schemas['ArchiveFile']>
        label={t('Files')} name={['archives', name, 'files', product, date]} id={(file) => file.path}
        page={async (cursor) => (await ok(api.GET('/api/v1/archives/{name}/files', { params: { path: { name }, query: { ...query, ...(cursor && { cursor }) } } }))) as PageOf<Schemas['ArchiveFile']>}
        columns={[
          { name: t('File'), cell: (file) => <span className="mono" title={`SHA-256 ${file.sha256}`}>{file.path}</span>, width: '3fr' },
          { name: t('Rows'), cell: (file) => count(file.rows), width: '90px' },
          { name: t('Size'), cell: (file) => bytes(file.bytes), width: '90px' },
          { name: t('First value'), cell: (file) => <Time ms={file.firstTime} />, width: '160px' },
          { name: t('Last value'), cell: (file) => <Time ms={file.lastTime} />, width: '160px' },
          { name: t('Commits'), cell: (file) => `${file.firstSequence}–${file.lastSequence}`, width: '110px' },
        ]}
        empty={<Empty>{product || date ? t('No file fits the filters.') : t('It has not written a file yet.')}</Empty>}
      />
    </Stack>
  );
}
