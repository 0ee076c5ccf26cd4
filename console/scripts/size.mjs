// What a browser loads before the first screen: the page, what it names, and what those import at
// once. Fails when that is over the limit, compressed.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const FIRST_LOAD_BYTES_MAX = 500 * 1000;
const dist = new URL('../dist/', import.meta.url);
const page = readFileSync(new URL('index.html', dist), 'utf8');
const wanted = [...page.matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g)].map(([, name]) => name);
const loaded = new Map();
while (wanted.length > 0) {
  const name = wanted.pop();
  if (loaded.has(name)) continue;
  const text = readFileSync(new URL(name, dist));
  loaded.set(name, gzipSync(text, { level: 9 }).length);
  if (!name.endsWith('.js')) continue;
  // `import…from"./x.js"`, not `import("./x.js")`, which is loaded later.
  for (const [, other] of text.toString().matchAll(/(?:from|import)\s*["']\.\/([^"']+\.js)["']/g)) wanted.push(`assets/${other}`);
}
const bytes = [...loaded.values()].reduce((sum, size) => sum + size, 0);
console.log(`first load: ${loaded.size} files, ${(bytes / 1000).toFixed(0)} kB compressed`);
if (bytes > FIRST_LOAD_BYTES_MAX) {
  console.error(`that is over ${FIRST_LOAD_BYTES_MAX / 1000} kB`);
  process.exit(1);
}
