// An object that is edited as a form or as text: what the form does not know stays as it is.
import { Group, Radio } from '@mantine/core';
import { Suspense, lazy, useState, type ReactNode } from 'react';
import { Problem } from '../api/client';
import { useWords } from '../i18n';
import { Waiting } from '../ui/page';

const Editor = lazy(() => import('../ui/editor'));

export interface Draft<T> {
  file: T;
  setFile: (file: T) => void;
  /** Its JSON text, while it is edited as that. */
  text: string | undefined;
  setText: (text: string) => void;
  /** What is on the screen, as an object; throws a problem where the text is no JSON. */
  current: () => T;
  /** To the other way of editing. */
  turn: (how: string) => void;
  error: unknown;
  setError: (error: unknown) => void;
}

export function useDraft<T extends object>(begun: T, tidy: (file: T) => T): Draft<T> {
  const { t } = useWords();
  const [file, setFile] = useState(begun);
  const [text, setText] = useState<string>();
  const [error, setError] = useState<unknown>();
  const current = (): T => {
    if (text === undefined) return tidy(file);
    try {
      return JSON.parse(text) as T;
    } catch (error) {
      throw new Problem(0, 'bad-request', (error as Error).message, t('the text is JSON'));
    }
  };
  const turn = (how: string) => {
    setError(undefined);
    try {
      const now = current();
      setFile(now);
      setText(how === 'text' ? JSON.stringify(now, null, 2) : undefined);
    } catch (error) {
      setError(error);
    }
  };
  return { file, setFile, text, setText, current, turn, error, setError };
}

/** Without texts, lists and maps that are empty, as a person would write it; only of the known members, where those are told. */
export function kept<T extends object>(of: T, known?: readonly string[]): T {
  const isEmpty = (value: unknown) => value === undefined || value === '' || (value !== null && typeof value === 'object' && Object.keys(value).length === 0);
  return Object.fromEntries(Object.entries(of).filter(([name, value]) => value !== undefined && (!isEmpty(value) || (known !== undefined && !known.includes(name))))) as T;
}

/** The same at every depth. */
export function whole<T extends object>(of: T, known?: readonly string[]): T {
  const tidied = (value: unknown): unknown => (value !== null && typeof value === 'object' && !Array.isArray(value) ? whole(value) : value);
  return kept(Object.fromEntries(Object.entries(of).map(([name, value]) => [name, known && !known.includes(name) ? value : tidied(value)])), known) as T;
}

export function Turn({ draft }: { draft: Pick<Draft<object>, 'text' | 'turn'> }) {
  const { t } = useWords();
  return (
    <Radio.Group aria-label={t('Edit as')} value={draft.text === undefined ? 'form' : 'text'} onChange={draft.turn}>
      <Group><Radio value="form" label={t('Form')} /><Radio value="text" label={t('Text')} /></Group>
    </Radio.Group>
  );
}

/** The form, or in its place the text. */
export function Edited({ draft, label, readOnly, children }: { draft: Pick<Draft<object>, 'text' | 'setText'>; label: string; readOnly: boolean; children: ReactNode }) {
  if (draft.text === undefined) return <fieldset disabled={readOnly} style={{ border: 0, padding: 0, margin: 0, minWidth: 0 }}>{children}</fieldset>;
  return <Suspense fallback={<Waiting />}><Editor language="json" label={label} value={draft.text} onChange={draft.setText} readOnly={readOnly} /></Suspense>;
}

/** A destination: of each kind what is not empty. */
export const keptTo = <To extends object>(to: To) => Object.fromEntries(Object.entries(to).map(([kind, of]) => [kind, of !== null && typeof of === 'object' ? kept(of) : of])) as To;
