// What a file begins with, as far as a browser can read it: its columns and first rows, for choosing a mapping.

export type FileKind = 'csv' | 'ndjson' | 'parquet';

export interface Head {
  kind: FileKind;
  /** None where the file cannot be looked into here: Parquet, Zstandard. */
  columns: string[];
  rows: Record<string, string>[];
}

const HEAD_BYTES = 256 * 1024;
const ROWS = 5;
/** As the gateway takes them (docs/files.md). */
export const ENDINGS = '.csv,.tsv,.txt,.ndjson,.jsonl,.json,.gz,.zst,.parquet';
const KINDS: [RegExp, FileKind][] = [[/\.(csv|tsv|txt)(\.gz|\.zst)?$/i, 'csv'], [/\.(ndjson|jsonl|json)(\.gz|\.zst)?$/i, 'ndjson'], [/\.parquet$/i, 'parquet']];

/** What a file is by its ending; undefined where the gateway would not take it. */
export const kindOf = (name: string) => KINDS.find(([ending]) => ending.test(name))?.[1];

async function beginning(file: File): Promise<string> {
  const piece = file.slice(0, HEAD_BYTES);
  if (!/\.gz$/i.test(file.name)) return piece.text();
  // The piece ends within the packed stream: what came out before is enough.
  const reader = piece.stream().pipeThrough(new DecompressionStream('gzip')).pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  try {
    while (text.length < HEAD_BYTES) {
      const { done, value } = await reader.read();
      if (done) break;
      text += value;
    }
  } catch {
    // The end of the piece.
  }
  return text;
}

export async function headOf(file: File): Promise<Head | undefined> {
  const kind = kindOf(file.name);
  if (!kind) return undefined;
  if (kind === 'parquet' || /\.zst$/i.test(file.name)) return { kind, columns: [], rows: [] };
  const text = (await beginning(file)).replace(/^\uFEFF/, '');
  return kind === 'csv' ? ofCsv(text) : ofNdjson(text);
}

function ofCsv(text: string): Head {
  const first = text.split('\n', 1)[0] ?? '';
  const separator = [',', ';', '\t'].toSorted((a, b) => first.split(b).length - first.split(a).length)[0] ?? ',';
  const [columns = [], ...rows] = records(text, separator, ROWS + 1);
  return { kind: 'csv', columns, rows: rows.map((row) => Object.fromEntries(columns.map((column, at) => [column, row[at] ?? '']))) };
}

/** The first records of CSV: quotes may hold separators, line ends and doubled quotes. */
function records(text: string, separator: string, most: number): string[][] {
  const found: string[][] = [];
  let [row, cell, isQuoted]: [string[], string, boolean] = [[], '', false];
  for (let at = 0; at < text.length && found.length < most; at += 1) {
    const here = text[at];
    if (isQuoted) {
      if (here !== '"') cell += here;
      else if (text[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else isQuoted = false;
    } else if (here === '"' && cell === '') isQuoted = true;
    else if (here === separator || here === '\n') {
      row.push(cell.replace(/\r$/, ''));
      cell = '';
      if (here === '\n') {
        if (row.length > 1 || row[0] !== '') found.push(row);
        row = [];
      }
    } else cell += here;
  }
  // A file without a line end at its end.
  if (found.length < most && (cell !== '' || row.length > 0) && text.length < HEAD_BYTES) found.push([...row, cell]);
  return found;
}

function ofNdjson(text: string): Head {
  const rows: Record<string, string>[] = [];
  for (const line of text.split('\n').slice(0, ROWS)) {
    try {
      const object = JSON.parse(line) as unknown;
      if (object === null || typeof object !== 'object') continue;
      rows.push(Object.fromEntries(Object.entries(object).map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)])));
    } catch {
      // A line that is none is told by the gateway, with its number.
    }
  }
  return { kind: 'ndjson', columns: [...new Set(rows.flatMap((row) => Object.keys(row)))], rows };
}
