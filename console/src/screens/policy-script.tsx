// A script step of a policy: what it reads of a row, and its source.
import { Stack, TagsInput, Text } from '@mantine/core';
import { Suspense, lazy } from 'react';
import type { PolicyStep } from '../api/types';
import { useWords } from '../i18n';
import { Waiting } from '../ui/page';

const Editor = lazy(() => import('../ui/editor'));

export const BEGUN_SCRIPT: Required<Pick<PolicyStep, 'script'>> = { script: { reads: [], source: 'function transform(row) {\n  return {};\n}\n' } };

export function ScriptFields({ script, n, onChange }: { script: NonNullable<PolicyStep['script']>; n: number; onChange: (script: NonNullable<PolicyStep['script']>) => void }) {
  const { t } = useWords();
  return (
    <Stack gap={4} w="100%">
      <TagsInput label={t('Reads {n}', { n })} description={t('A row that lacks one of them is left as it is.')} value={script.reads} onChange={(reads) => onChange({ ...script, reads })} />
      <Suspense fallback={<Waiting />}><Editor language="javascript" label={t('Source {n}', { n })} value={script.source} onChange={(source) => onChange({ ...script, source })} /></Suspense>
      <Text size="xs" className="quiet">{t('transform(row) returns an object with values for the points: null drops a value, what is not mentioned stays. There is no clock, no chance and no other row.')}</Text>
    </Stack>
  );
}
