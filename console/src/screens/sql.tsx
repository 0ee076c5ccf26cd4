// SQL: a statement, its rows, what there is to ask for, and how other programs ask.
import { Alert, Anchor, Button, Card, Grid, Group, Select, Stack, Tabs, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Suspense, lazy, useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { Problem } from '../api/client';
import { useWords } from '../i18n';
import { Time, count } from '../time';
import { Asked, Empty, Page, Snippet, Waiting, useFilters } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { VirtualRows } from '../ui/rows';
import { ask, kept, keep, placeOf, quoted, saved, tables, type Answer, type Table } from './sql-ask';

const Editor = lazy(() => import('../ui/editor'));

const LIMITS = ['100', '1000', '10000', '100000'];
const LIMIT = '1000';
const COLUMN_PX = 150;
const TICK_MS = 200;

export default function Sql() {
  const { t } = useWords();
  const listed = useQuery({ queryKey: ['sql', 'tables'], queryFn: ({ signal }) => tables(signal), staleTime: 60_000 });
  const isAbsent = listed.error !== null && Problem.from(listed.error).code === 'no-sql';
  return (
    <Page title="SQL" about={t('Ask the whole history in PostgreSQL’s dialect: joins, windows, aggregates. It only reads, and reads what every reply has promised.')}>
      {isAbsent
        ? <Alert color="blue" variant="light" title={t('This gateway is built without SQL')}><Text size="sm">{Problem.from(listed.error).fix}</Text></Alert>
        : <Asked query={listed}>{(listed) => <Statement tables={listed} />}</Asked>}
    </Page>
  );
}

function Statement({ tables }: { tables: Table[] }) {
  const { t } = useWords();
  const filters = useFilters();
  const first = tables.find((table) => !table.isOurs) ?? tables[0];
  const [text, setText] = useState(() => filters.get('sql') || kept()[0]?.sql || (first ? opening(first) : 'SELECT 1'));
  const [insert, setInsert] = useState<{ text: string }>();
  const [recent, setRecent] = useState(kept);
  const run = useRun();
  const limit = filters.get('limit') || LIMIT;
  const schema = useMemo(() => Object.fromEntries(tables.map((table) => [table.name, table.columns.map((column) => column.name)])), [tables]);
  const { start } = run;
  const go = useCallback(() => {
    filters.set({ sql: text.trim() });
    void start(text, Number(limit)).then((answer) => {
      if (answer) setRecent(keep({ sql: text.trim(), at: Date.now(), ms: answer.ms, rows: answer.rows.length }));
    });
  }, [filters, limit, start, text]);
  const mark = useMemo(() => (run.error ? placeOf(Problem.from(run.error), text) : undefined), [run.error, text]);
  return (
    <Grid>
      <Grid.Col span={{ base: 12, lg: 9 }}>
        <Stack>
          <Suspense fallback={<Waiting />}><Editor language="sql" label={t('Statement')} value={text} onChange={setText} onRun={go} schema={schema} insert={insert} mark={mark} /></Suspense>
          <Group align="flex-end" justify="space-between">
            <Group align="flex-end" gap="xs">
              {run.isRunning
                ? <Button color="orange" onClick={run.cancel}>{t('Cancel')}</Button>
                : <Button onClick={go} disabled={!text.trim()} aria-keyshortcuts="Control+Enter">{t('Run')} <Text span size="xs" ml={6} aria-hidden>Ctrl ↵</Text></Button>}
              <Select aria-label={t('Rows at most')} w={190} allowDeselect={false} value={limit} onChange={(limit) => filters.set({ limit: limit === LIMIT ? null : limit })} data={LIMITS.map((value) => ({ value, label: t('{n} rows at most', { n: count(Number(value)) }) }))} />
            </Group>
            <Group gap="xs" role="group" aria-label={t('Save all rows as')}>
              <Text size="sm" className="quiet">{t('Save all rows as')}</Text>
              {(['csv', 'ndjson', 'arrow', 'parquet'] as const).map((format) => <Button key={format} variant="default" size="xs" disabled={run.isRunning || !text.trim()} onClick={() => void run.save(text, format)}>{({ csv: 'CSV', ndjson: 'NDJSON', arrow: 'Arrow', parquet: 'Parquet' })[format]}</Button>)}
            </Group>
          </Group>
          <ProblemAlert error={run.error} title={t('The statement was refused')} />
          {run.isRunning && <Group gap="xs"><Waiting what={t('Running for {n} s…', { n: (run.elapsed / 1000).toFixed(1) })} /></Group>}
          <Tabs defaultValue="rows" keepMounted={false}>
            <Tabs.List mb="sm"><Tabs.Tab value="rows">{t('Rows')}</Tabs.Tab><Tabs.Tab value="recent">{t('Recent statements')} ({recent.length})</Tabs.Tab><Tabs.Tab value="connect">{t('Connect')}</Tabs.Tab></Tabs.List>
            <Tabs.Panel value="rows">{run.answer ? <Found answer={run.answer} limit={Number(limit)} /> : !run.isRunning && <Empty>{t('Press Run, or Ctrl Enter in the editor.')}</Empty>}</Tabs.Panel>
            <Tabs.Panel value="recent"><Recent of={recent} onTake={setText} /></Tabs.Panel>
            <Tabs.Panel value="connect"><Connect /></Tabs.Panel>
          </Tabs>
        </Stack>
      </Grid.Col>
      <Grid.Col span={{ base: 12, lg: 3 }}><Tables of={tables} onAsk={(table) => setText(opening(table))} onInsert={(text) => setInsert({ text })} /></Grid.Col>
    </Grid>
  );
}

/** One statement at a time: it runs, is cancelled, or was answered. */
function useRun() {
  const [answer, setAnswer] = useState<Answer>();
  const [error, setError] = useState<unknown>();
  const [began, setBegan] = useState<number>();
  const [elapsed, setElapsed] = useState(0);
  const stop = useRef<AbortController>(undefined);
  useEffect(() => {
    if (began === undefined) return undefined;
    const ticking = setInterval(() => setElapsed(performance.now() - began), TICK_MS);
    return () => clearInterval(ticking);
  }, [began]);
  // A statement ends with the screen that asked: the gateway stops when nobody listens.
  useEffect(() => () => stop.current?.abort(), []);
  const during = useCallback(async <T,>(work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> => {
    stop.current?.abort();
    const own = new AbortController();
    stop.current = own;
    setError(undefined);
    setElapsed(0);
    setBegan(performance.now());
    try {
      return await work(own.signal);
    } catch (error) {
      if (stop.current === own) setError(own.signal.aborted ? undefined : error);
      return undefined;
    } finally {
      if (stop.current === own) setBegan(undefined);
    }
  }, []);
  const start = useCallback((sql: string, limit: number) => during(async (signal) => {
    setAnswer(undefined);
    const answer = await ask(sql, limit, signal);
    setAnswer(answer);
    return answer;
  }), [during]);
  const save = useCallback((sql: string, format: 'csv' | 'ndjson' | 'arrow' | 'parquet') => during((signal) => saved(sql, format, signal)), [during]);
  return { answer, error, isRunning: began !== undefined, elapsed, start, save, cancel: () => stop.current?.abort() };
}

const NUMBERS = /^(int|float|numeric)/;

function Found({ answer, limit }: { answer: Answer; limit: number }) {
  const { t } = useWords();
  const columns = answer.columns.map(({ name, type }, at) => ({
    name, right: NUMBERS.test(type),
    width: `minmax(${type.startsWith('timestamp') ? 170 : 80}px, 1fr)`,
    cell: (row: unknown[]) => <Cell value={row[at]} type={type} />,
  }));
  return (
    <Stack gap="xs">
      <Text size="sm" role="status" data-testid="answered" className="numbers">
        {t('{n} rows in {s} s', { n: count(answer.rows.length), s: (answer.ms / 1000).toFixed(3) })}{answer.hasMore && ` · ${t('there are more than {n}: raise the bound, narrow the statement, or save all rows', { n: count(limit) })}`}
      </Text>
      {answer.columns.length > 0 && <VirtualRows label={t('Rows')} columns={columns} rows={answer.rows} id={(_, at) => String(at)} minWidth={Math.max(640, columns.length * COLUMN_PX)} />}
    </Stack>
  );
}

function Cell({ value, type }: { value: unknown; type: string }) {
  if (value === null || value === undefined) return <span className="quiet">null</span>;
  if (type.startsWith('timestamp') && typeof value === 'string') return <Time ms={Date.parse(value)} />;
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return <span title={text}>{text}</span>;
}

function Recent({ of, onTake }: { of: ReturnType<typeof kept>; onTake: (sql: string) => void }) {
  const { t } = useWords();
  if (of.length === 0) return <Empty>{t('Statements that were answered are kept here, by this browser.')}</Empty>;
  return (
    <Stack gap="xs">
      {of.map((one) => (
        <Card withBorder padding="xs" key={`${one.at} ${one.sql}`}>
          <Group justify="space-between" wrap="nowrap" align="flex-start">
            <pre className="mono pre" style={{ maxHeight: '6rem' }} tabIndex={0} aria-label={t('Statement')}>{one.sql}</pre>
            <Stack gap={2} align="flex-end"><Button size="compact-xs" variant="default" onClick={() => onTake(one.sql)}>{t('Take it')}</Button><Text size="xs" className="quiet numbers"><Time ms={one.at} /> · {t('{n} rows in {s} s', { n: count(one.rows), s: (one.ms / 1000).toFixed(3) })}</Text></Stack>
          </Group>
        </Card>
      ))}
    </Stack>
  );
}

const opening = (table: Table) => `SELECT *\nFROM ${quoted(table.name)}${table.columns.some((column) => column.name === 'time') ? '\nORDER BY time DESC' : ''}\nLIMIT 100`;

function Tables({ of, onAsk, onInsert }: { of: Table[]; onAsk: (table: Table) => void; onInsert: (text: string) => void }) {
  const { t } = useWords();
  return (
    <Card withBorder component="section" aria-label={t('Tables')} padding="sm" style={{ maxHeight: '80vh', overflow: 'auto' }} tabIndex={0}>
      <Text size="sm" fw={600} mb={4}>{t('Tables')}</Text>
      {of.map((table) => (
        <details key={table.name} open={!table.isOurs && of.length < 12}>
          <summary className="mono">{table.name}</summary>
          <Stack gap={0} pl="md" mb="xs">
            <Button size="compact-xs" variant="default" style={{ alignSelf: 'flex-start' }} aria-label={`SELECT * FROM ${table.name}`} onClick={() => onAsk(table)}>SELECT *</Button>
            {table.columns.map((column) => (
              <Group key={column.name} gap={6} wrap="nowrap" justify="space-between">
                <Anchor component="button" type="button" size="xs" className="mono" ta="left" aria-label={t('Insert {name}', { name: column.name })} onClick={() => onInsert(quoted(column.name))}>{column.name}</Anchor>
                <Text size="xs" className="quiet">{column.type}</Text>
              </Group>
            ))}
          </Stack>
        </details>
      ))}
    </Card>
  );
}

/** Ready to paste for other programs. */
function Connect() {
  const { t } = useWords();
  const host = location.hostname;
  const statement = '{"sql": "SELECT count(*) FROM points", "format": "csv"}';
  return (
    <Stack>
      <Text size="sm">{t('PostgreSQL’s clients connect where postgres.listen is configured, such as 127.0.0.1:5433. The password is an API token (Access), of a viewer too, with any user name; or that of a user.')}</Text>
      <Snippet title="psql" text={`PGPASSWORD=$TOKEN psql -h ${host} -p 5433 -U me backtide`} />
      <Snippet title="pandas" text={`engine = sqlalchemy.create_engine(f"postgresql+psycopg://me:{token}@${host}:5433/backtide", use_native_hstore=False)\nframe = pandas.read_sql("SELECT * FROM points LIMIT 10", engine)`} />
      <Snippet title={t('Grafana, data source')} text={`apiVersion: 1\ndatasources:\n  - name: Backtide\n    type: grafana-postgresql-datasource\n    url: ${host}:5433\n    user: grafana\n    secureJsonData: { password: $TOKEN }\n    jsonData: { database: backtide, sslmode: disable, postgresVersion: 1600 }`} />
      <Snippet title={t('Grafana, panel')} text={`SELECT $__timeGroupAlias(time, $__interval), device AS metric, avg(value) AS value\nFROM points WHERE point = 'POINT' AND $__timeFilter(time) GROUP BY 1, 2 ORDER BY 1`} />
      <Snippet title="curl" text={`curl -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' ${location.origin}/api/v1/sql \\\n  -d '${statement}'`} />
    </Stack>
  );
}
