// Statements and their answers; which were asked before.
import { Problem, headers } from '../api/client';

export interface Answer {
  columns: { name: string; type: string }[];
  rows: unknown[][];
  /** There are more than were asked for. */
  hasMore: boolean;
  ms: number;
}

export interface Table {
  name: string;
  columns: { name: string; type: string }[];
  /** It is one of every gateway, not a product's. */
  isOurs: boolean;
}

type Format = 'json' | 'csv' | 'ndjson' | 'arrow' | 'parquet';

async function post(sql: string, format: Format, limit: number | undefined, signal: AbortSignal): Promise<Response> {
  const response = await fetch('/api/v1/sql', {
    method: 'POST', signal, headers: headers({ 'Content-Type': 'application/json' }), body: JSON.stringify({ sql, format, ...(limit !== undefined && { limit }) }),
  });
  if (!response.ok) throw await Problem.of(response);
  return response;
}

/** Asks for rows, and for one more, which tells that there are more. */
export async function ask(sql: string, limit: number, signal: AbortSignal): Promise<Answer> {
  const began = performance.now();
  const text = await (await post(sql, 'json', limit + 1, signal)).text();
  const { columns, items } = parsed(text);
  const rows = items.slice(0, limit).map((item) => columns.map(({ name }) => item[name]));
  return { columns, rows, hasMore: items.length > limit, ms: performance.now() - began };
}

function parsed(text: string): { columns: Answer['columns']; items: Record<string, unknown>[] } {
  try {
    return JSON.parse(text) as ReturnType<typeof parsed>;
  } catch {
    // A refusal after the first rows breaks the answer off.
    throw new Problem(0, 'incomplete', 'the answer broke off', 'narrow the statement; the log of the gateway says why');
  }
}

/** All rows as a file that the browser saves. */
export async function saved(sql: string, format: Exclude<Format, 'json'>, signal: AbortSignal): Promise<void> {
  const url = URL.createObjectURL(await (await post(sql, format, undefined, signal)).blob());
  const link = document.createElement('a');
  link.href = url;
  link.download = `backtide.${format === 'arrow' ? 'arrows' : format}`;
  link.click();
  URL.revokeObjectURL(url);
}

const OURS = ['points', 'events', 'attributes', 'products', 'devices', 'channels', 'channel_log', 'quarantine', 'rollups'];
const COLUMNS = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";
const COLUMNS_MAX = 20_000;

/** PostgreSQL's names of the types that the catalogue tells by those of Arrow. */
const TYPES: Record<string, string> = { Utf8: 'text', Utf8View: 'text', LargeUtf8: 'text', Boolean: 'bool', Int16: 'int2', Int32: 'int4', Int64: 'int8', UInt64: 'int8', Float32: 'float4', Float64: 'float8' };
const typeOf = (told: string) => TYPES[told] ?? (told.startsWith('Timestamp') ? 'timestamptz' : told);

/** Tables with their columns, those of products first. */
export async function tables(signal: AbortSignal): Promise<Table[]> {
  const { rows } = await ask(COLUMNS, COLUMNS_MAX, signal);
  const found = new Map<string, Table>();
  for (const [table, column, type] of rows as string[][]) {
    const name = table ?? '';
    const own = found.get(name) ?? { name, columns: [], isOurs: OURS.includes(name) };
    found.set(name, own);
    own.columns.push({ name: column ?? '', type: typeOf(type ?? '') });
  }
  return [...found.values()].toSorted((a, b) => Number(a.isOurs) - Number(b.isOurs));
}

/** Where a statement is wrong: as the parser says it, or where the name stands that is not known. */
export function placeOf(problem: Problem, sql: string): { line: number; column: number; message: string } | undefined {
  if (problem.code !== 'sql') return undefined;
  const message = problem.detail;
  const told = /Line: (\d+), Column: (\d+)/.exec(message);
  if (told) return { line: Number(told[1]), column: Number(told[2]), message };
  const name = /(?:No field named |table '|function '|column ')"?([^"'\s]+?)"?['.\s]/.exec(`${message} `)?.[1]?.split('.').at(-1);
  const at = name ? sql.toLowerCase().indexOf(name.toLowerCase()) : -1;
  if (at < 0) return undefined;
  const before = sql.slice(0, at).split('\n');
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1, message };
}

/** Names that are not all small letters stand in double quotes. */
export const quoted = (name: string) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

const text = (value: string) => `'${value.replaceAll("'", "''")}'`;

/** The raw values of a choice, as a statement. */
export function statementOf(product: string, devices: string[], points: string[], from: number | undefined, to: number | undefined): string {
  const bounds = [
    ...(devices.length > 0 ? [`device IN (${devices.map(text).join(', ')})`] : []),
    ...(from !== undefined ? [`time >= ${text(new Date(from).toISOString())}`] : []), ...(to !== undefined ? [`time < ${text(new Date(to).toISOString())}`] : []),
  ];
  return `SELECT ${['time', 'device', ...points.map(quoted)].join(', ')}\nFROM ${quoted(product)}${bounds.length > 0 ? `\nWHERE ${bounds.join(' AND ')}` : ''}\nORDER BY device, time`;
}

interface Recent {
  sql: string;
  at: number;
  ms: number;
  rows: number;
}

const KEPT = 'backtide.sql';
const KEPT_MAX = 30;

/** Statements that were answered, the last first. */
export function kept(): Recent[] {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? '[]') as unknown;
    return Array.isArray(found) ? (found as Recent[]) : [];
  } catch {
    return [];
  }
}

export function keep(recent: Recent): Recent[] {
  const all = [recent, ...kept().filter((other) => other.sql !== recent.sql)].slice(0, KEPT_MAX);
  localStorage.setItem(KEPT, JSON.stringify(all));
  return all;
}
