// The one way to the gateway: typed by its own API description. A refusal is thrown as a Problem.
import createClient from 'openapi-fetch';
import type { paths, components } from './schema';

export type Schemas = components['schemas'];

/** A refusal as the gateway tells it (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly fix?: string,
    readonly place?: string,
    readonly line?: number,
    readonly column?: number,
    readonly errors: { document: number; line: number; object?: string; message: string }[] = [],
    readonly usedBy: { kind: string; name: string }[] = [],
  ) {
    super(detail);
  }

  static async of(response: Response, body?: unknown): Promise<Problem> {
    const told = (body ?? (await response.json().catch(() => undefined))) as Record<string, never> | undefined;
    if (!told || typeof told !== 'object') {
      return new Problem(response.status, 'http', `${response.status} ${response.statusText}`);
    }
    return new Problem(
      response.status,
      told['code'] ?? 'http',
      told['detail'] ?? response.statusText,
      told['fix'],
      told['where'],
      told['line'],
      told['column'],
      told['errors'] ?? [],
      told['usedBy'] ?? [],
    );
  }

  /** What is shown of anything that was thrown. */
  static from(error: unknown): Problem {
    if (error instanceof Problem) return error;
    if (error instanceof TypeError) return new Problem(0, 'unreachable', 'the gateway does not answer');
    return new Problem(0, 'console', String(error));
  }
}

let csrf: string | undefined;

/** What every change shows from here on. */
export function setCsrf(token: string | undefined) {
  csrf = token;
}

/** Called when the session is over. */
let onSignedOut = () => {};
export function whenSignedOut(told: () => void) {
  onSignedOut = told;
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  return csrf ? { 'X-CSRF-Token': csrf, ...more } : more;
}

export const api = createClient<paths>({ baseUrl: '/' });
api.use({
  onRequest({ request }) {
    if (csrf && !request.headers.has('Authorization')) request.headers.set('X-CSRF-Token', csrf);
    return request;
  },
  onResponse({ response, request }) {
    if (response.status === 401 && !request.url.includes('/access/')) onSignedOut();
    return response;
  },
});

/** The data of an answer; a refusal is thrown. */
export async function ok<T>(asked: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await asked;
  if (!response.ok) throw await Problem.of(response, error);
  return data as T;
}

/** The lines of an answer that is streamed as NDJSON, as they come. */
export async function* lines<T>(path: string, init: RequestInit = {}): AsyncGenerator<T> {
  const response = await fetch(path, { ...init, headers: headers(init.headers as Record<string, string>) });
  if (!response.ok || !response.body) throw await Problem.of(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) if (part.trim()) yield JSON.parse(part) as T;
  }
  if (rest.trim()) yield JSON.parse(rest) as T;
}

/** Saves an answer of any length as a file; the browser streams it. */
export function download(path: string) {
  const link = document.createElement('a');
  link.href = path;
  link.download = '';
  link.click();
}
