// Makes src/api/schema.ts, the types of the API, from the API description that the gateway serves
// (its snapshot in the repository), and empties dist/.
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import openapi, { astToString } from 'openapi-typescript';

const snapshot = new URL(
  '../../crates/gateway/src/http/snapshots/backtide__http__tests__openapi.snap',
  import.meta.url,
);
// The snapshot has a head of its own between two lines of dashes.
const document = JSON.parse(readFileSync(snapshot, 'utf8').split(/^---$/m).slice(2).join('---'));
const types = astToString(await openapi(document));
writeFileSync(new URL('../src/api/schema.ts', import.meta.url), types);

const dist = new URL('../dist/', import.meta.url);
for (const name of readdirSync(dist)) {
  if (name !== '.gitignore') rmSync(new URL(name, dist), { recursive: true });
}
