// Files on their way to the gateway. They belong to the page, not to a screen: one may look elsewhere meanwhile.
import { useSyncExternalStore } from 'react';
import { Problem, api, headers, ok, type Schemas } from './api/client';

export interface Upload {
  key: number;
  file: string;
  channel: string;
  bytes: number;
  sent: number;
  state: 'sending' | 'complete' | 'failed' | 'cancelled';
  /** The gateway's account of it, once there is one. */
  import?: Schemas['Import'] | undefined;
  error?: unknown;
}

export interface Asked {
  channel: string;
  /** The text of a mapping file. */
  mapping: string;
  skipRows: number;
}

/** How often the gateway is asked how far it came. */
const LOOK_MS = 1000;

let uploads: Upload[] = [];
let keys = 0;
const listeners = new Set<() => void>();
const requests = new Map<number, XMLHttpRequest>();

const subscribe = (listener: () => void) => {
  listeners.add(listener);
  return () => void listeners.delete(listener);
};

function put(next: Upload[]) {
  uploads = next;
  for (const listener of listeners) listener();
}

const change = (key: number, members: Partial<Upload>) => put(uploads.map((upload) => (upload.key === key ? { ...upload, ...members } : upload)));

export function useUploads(): Upload[] {
  return useSyncExternalStore(subscribe, () => uploads);
}

/** Ends an import: what is stored stays stored. */
export const stop = (id: number) => ok(api.POST('/api/v1/imports/{id}/cancel', { params: { path: { id } } }));

/** Sends no more of it, and tells the gateway to leave what has arrived. */
export const cancel = (key: number) => requests.get(key)?.abort();
export const forget = (key: number) => put(uploads.filter((upload) => upload.key !== key));

window.addEventListener('beforeunload', (event) => {
  if (requests.size > 0) event.preventDefault();
});

const newest = async (limit: number) => (await ok(api.GET('/api/v1/imports', { params: { query: { limit } } }))).items;

/** Begins to send a file; the answer comes when every row is stored or in quarantine. */
export async function send(file: File, asked: Asked): Promise<void> {
  const before = (await newest(1))[0]?.id ?? 0;
  keys += 1;
  const key = keys;
  put([{ key, file: file.name, channel: asked.channel, bytes: file.size, sent: 0, state: 'sending' }, ...uploads]);
  const own = async () => (await newest(20)).find((one) => one.id > before && one.file === file.name && one.channel === asked.channel);
  const request = new XMLHttpRequest();
  requests.set(key, request);
  const look = setInterval(() => void own().then((found) => found && requests.has(key) && change(key, { import: found }), () => undefined), LOOK_MS);
  const end = (members: Partial<Upload>) => {
    clearInterval(look);
    requests.delete(key);
    change(key, members);
  };
  request.upload.onprogress = (event) => change(key, { sent: event.loaded });
  request.onload = () => {
    const told = parsed(request.responseText);
    if (request.status < 300) return end({ state: 'complete', sent: file.size, import: told as Schemas['Import'] });
    void Problem.of(new Response(null, { status: request.status }), told).then((error) => end({ state: 'failed', error }));
    return undefined;
  };
  // A gateway that refuses a file while it comes closes the connection: its list says why.
  request.onerror = () => void own().then(
    (found) => end({ state: 'failed', import: found, error: found?.error ? new Problem(422, 'import', found.error) : new TypeError() }),
    (error: unknown) => end({ state: 'failed', error }),
  );
  request.onabort = () => {
    end({ state: 'cancelled' });
    void own().then(async (found) => {
      if (!found) return;
      change(key, { import: found });
      // One that has ended by now needs no telling.
      await stop(found.id).catch(() => undefined);
      change(key, { import: await own() });
    }, () => undefined);
  };
  const query = new URLSearchParams({ channel: asked.channel, file: file.name, mapping: asked.mapping, ...(asked.skipRows > 0 && { skipRows: String(asked.skipRows) }) });
  request.open('POST', `/api/v1/imports?${query}`);
  for (const [name, value] of Object.entries(headers({ 'Content-Type': 'application/octet-stream' }))) request.setRequestHeader(name, value);
  request.send(file);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
