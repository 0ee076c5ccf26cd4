// Every text of the console has its Chinese: fails on one that has none, and on one nobody shows.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const src = new URL('../src/', import.meta.url).pathname;
const files = readdirSync(src, { recursive: true }).filter((name) => /\.tsx?$/.test(name));
const used = new Set();
for (const name of files) {
  if (name.startsWith('locale/')) continue;
  const text = readFileSync(join(src, name), 'utf8');
  for (const [, , word] of text.matchAll(/\b(t|words)\(\s*(?:'((?:[^'\\]|\\.)*)')/g)) used.add(word.replaceAll("\\'", "'"));
}
const zh = readFileSync(join(src, 'locale/zh.ts'), 'utf8');
const known = new Set();
for (const [, quoted, plain] of zh.matchAll(/^\s{2}(?:'((?:[^'\\]|\\.)*)'|([A-Za-z]+)):/gm)) {
  known.add((quoted ?? plain).replaceAll("\\'", "'"));
}
const missing = [...used].filter((word) => !known.has(word));
const stale = [...known].filter((word) => !used.has(word));
for (const word of missing) console.error(`no Chinese for: ${word}`);
for (const word of stale) console.error(`nobody shows: ${word}`);
if (missing.length + stale.length > 0) process.exit(1);
