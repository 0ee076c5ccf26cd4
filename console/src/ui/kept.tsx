// Parts of an object that a form has no fields for: shown, and kept as they are.
import { Alert, Text } from '@mantine/core';
import { useWords } from '../i18n';

/** The members of an object that are none of these. */
export function others(of: object | undefined, known: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(of ?? {}).filter(([name, value]) => !known.includes(name) && value !== undefined));
}

export function Kept({ of }: { of: Record<string, unknown> }) {
  const { t } = useWords();
  const names = Object.keys(of);
  if (names.length === 0) return null;
  return (
    <Alert color="blue" variant="light" title={t('Kept as it is: {names}', { names: names.join(', ') })} data-testid="kept">
      <Text size="sm">{t('This form has no fields for it; saving leaves it as it is. It is changed as text.')}</Text>
      <pre className="mono pre" tabIndex={0} aria-label={names.join(', ')}>{JSON.stringify(of, null, 2)}</pre>
    </Alert>
  );
}
