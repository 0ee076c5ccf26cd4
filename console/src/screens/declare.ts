// Declaring objects: the same door as `backtide apply`.
import type { QueryClient } from '@tanstack/react-query';
import { Problem, headers } from '../api/client';
import type { Cure } from '../api/types';

export interface Outcome {
  dryRun: boolean;
  created: number;
  changed: number;
  unchanged: number;
  objects: { kind: string; name: string; result: 'created' | 'changed' | 'unchanged' }[];
  cures?: Cure[];
}

async function send(body: string, type: string, dryRun: boolean): Promise<Outcome> {
  const response = await fetch(`/api/v1/apply${dryRun ? '?dryRun=true' : ''}`, {
    method: 'POST',
    headers: headers({ 'Content-Type': type }),
    body,
  });
  if (!response.ok) throw await Problem.of(response);
  return (await response.json()) as Outcome;
}

/** Declares a text of YAML or JSON, or says what that would do. */
export async function declareText(client: QueryClient, text: string, dryRun = false): Promise<Outcome> {
  const isJson = /^\s*[[{]/.test(text);
  const outcome = await send(text, isJson ? 'application/json' : 'application/yaml', dryRun);
  if (!dryRun) await client.invalidateQueries();
  return outcome;
}

/** Declares objects. `new`: refuses to change what is there under that name. */
export async function declare(client: QueryClient, objects: unknown[], how: 'new' | 'any' = 'any'): Promise<Outcome> {
  const text = JSON.stringify(objects);
  if (how === 'new') {
    const would = await send(text, 'application/json', true);
    const there = would.objects.find((object) => object.result !== 'created');
    if (there) throw new Problem(409, 'conflict', `${there.kind} ${there.name} is there already`, 'choose another name');
  }
  return declareText(client, text);
}
