// What a screen does for its user: one thing at a time, and what went wrong with the last.
import { useState, type FormEvent } from 'react';

interface Told {
  error: unknown;
  setError: (error: unknown) => void;
}

/** `told`: where an error goes that something else on the screen shows already. */
export function useWork(told?: Told) {
  const [busy, setBusy] = useState(false);
  const [own, setOwn] = useState<unknown>();
  const { error, setError } = told ?? { error: own, setError: setOwn };
  const work = async (act: () => Promise<void>) => {
    setBusy(true);
    setError(undefined);
    try {
      await act();
    } catch (error) {
      setError(error);
    } finally {
      setBusy(false);
    }
  };
  /** As the `onSubmit` of a form. */
  const submit = (act: () => Promise<void>) => (event: FormEvent) => {
    event.preventDefault();
    void work(act);
  };
  return { busy, error, work, submit };
}
