// What came of a test run, and how a draft is saved.
import { Alert, Card, Stack, Table, Text } from '@mantine/core';
import { api, ok } from '../api/client';
import type { Reason, ScriptFile } from '../api/types';
import { useWords } from '../i18n';
import { bytes } from '../time';
import { Reasons } from '../ui/payload';
import { Code } from '../ui/problem';

export interface Tested {
  script: string;
  decoded?: unknown;
  encoded?: string;
  failure?: { message?: string; line?: number; column?: number };
  console?: string;
  cpuMs?: number;
  heapBytes?: number;
  model?: { code: number; items: number; good: number; rejected: Reason[] };
  golden?: { name: string; passed: boolean; [more: string]: unknown }[];
}

export async function saveDraft(name: string, file: ScriptFile) {
  const { kind: _, name: __, ...body } = file;
  await ok(api.PUT('/api/v1/scripts/{name}/draft', { params: { path: { name } }, body: body as never }));
}

export function Outcome({ tested }: { tested: Tested }) {
  const { t } = useWords();
  return (
    <Card withBorder data-testid="tested" role="status">
      <Stack gap="xs">
        <Text size="sm" className="quiet">{tested.script}{tested.cpuMs !== undefined && ` · ${tested.cpuMs.toFixed(2)} ms CPU`}{tested.heapBytes !== undefined && ` · ${bytes(tested.heapBytes)}`}</Text>
        {tested.failure && <Alert color="red" variant="light" title={t('The script failed')}>{tested.failure.message ?? JSON.stringify(tested.failure)}{tested.failure.line ? ` (${t('line {line}, column {column}', { line: tested.failure.line, column: tested.failure.column ?? 1 })})` : ''}</Alert>}
        {tested.decoded !== undefined && <><Text size="sm" fw={600}>{t('Decoded')}</Text><pre className="mono pre" tabIndex={0} aria-label={t('Decoded')}>{JSON.stringify(tested.decoded, null, 2)}</pre></>}
        {tested.encoded !== undefined && <><Text size="sm" fw={600}>{t('Encoded, hex')}</Text><pre className="mono pre" tabIndex={0} aria-label={t('Encoded, hex')}>{tested.encoded}</pre></>}
        {tested.console && <><Text size="sm" fw={600}>{t('Console')}</Text><pre className="mono pre" tabIndex={0} aria-label={t('Console')}>{tested.console}</pre></>}
        {tested.model && <><Text size="sm"><b>{t('What the model says')}:</b> <Code code={tested.model.code} /> · {t('{n} of {m} items would be stored', { n: tested.model.good, m: tested.model.items })}</Text><Reasons reasons={tested.model.rejected} /></>}
        {tested.golden && <GoldenOutcome golden={tested.golden} />}
      </Stack>
    </Card>
  );
}

function GoldenOutcome({ golden }: { golden: NonNullable<Tested['golden']> }) {
  const { t } = useWords();
  return (
    <Table aria-label={t('Golden tests')}>
      <Table.Tbody>
        {golden.map(({ name, passed, ...more }) => (
          <Table.Tr key={name}><Table.Td>{passed ? `✓ ${t('passed')}` : `✗ ${t('failed')}`}</Table.Td><Table.Td>{name}</Table.Td><Table.Td className="mono">{passed ? '' : JSON.stringify(more)}</Table.Td></Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}
