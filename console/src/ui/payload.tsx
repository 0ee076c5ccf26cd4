// The bytes of a message side by side: text, decoded JSON, hex; and what the pipeline made of them.
import { Card, Stack, Table, Tabs, Text } from '@mantine/core';
import type { DryRun, Reason, Step } from '../api/types';
import { useWords } from '../i18n';
import { Code } from './problem';

function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function hexOf(base64: string): string {
  return [...atob(base64)].map((char) => char.charCodeAt(0).toString(16).padStart(2, '0')).join('');
}

export function Payload({ text, hex }: { text: string | undefined; hex: string }) {
  const { t } = useWords();
  const json = parsed(text);
  return (
    <Tabs defaultValue={json !== undefined ? 'json' : text !== undefined ? 'text' : 'hex'}>
      <Tabs.List>
        {json !== undefined && <Tabs.Tab value="json">JSON</Tabs.Tab>}
        {text !== undefined && <Tabs.Tab value="text">{t('Text')}</Tabs.Tab>}
        <Tabs.Tab value="hex">{t('Hex')}</Tabs.Tab>
      </Tabs.List>
      {json !== undefined && <Tabs.Panel value="json"><pre className="mono pre" tabIndex={0} aria-label="JSON">{JSON.stringify(json, null, 2)}</pre></Tabs.Panel>}
      {text !== undefined && <Tabs.Panel value="text"><pre className="mono pre" tabIndex={0} aria-label={t('Text')}>{text}</pre></Tabs.Panel>}
      <Tabs.Panel value="hex"><Hex hex={hex} /></Tabs.Panel>
    </Tabs>
  );
}

const SHOWN_BYTES = 4096;

function Hex({ hex }: { hex: string }) {
  const { t } = useWords();
  const rows = [];
  for (let at = 0; at < Math.min(hex.length, 2 * SHOWN_BYTES); at += 32) rows.push(hex.slice(at, at + 32));
  const readable = (row: string) =>
    (row.match(/../g) ?? []).map((byte) => {
      const code = parseInt(byte, 16);
      return code >= 32 && code < 127 ? String.fromCharCode(code) : '·';
    }).join('');
  return (
    <>
      <div className="hex mono" tabIndex={0} role="region" aria-label={t('Hex')}>
        <div>{rows.map((_, at) => (at * 16).toString(16).padStart(6, '0')).join('\n')}</div>
        <div>{rows.map((row) => (row.match(/../g) ?? []).join(' ')).join('\n')}</div>
        <div>{rows.map(readable).join('\n')}</div>
      </div>
      {hex.length > 2 * SHOWN_BYTES && <Text size="xs" className="quiet">{t('The first {n} bytes.', { n: SHOWN_BYTES })}</Text>}
    </>
  );
}

export function Steps({ steps }: { steps: Step[] }) {
  const { t } = useWords();
  return (
    <Table aria-label={t('Steps')} verticalSpacing={4}>
      <Table.Thead><Table.Tr><Table.Th>{t('Step')}</Table.Th><Table.Th>{t('Outcome')}</Table.Th></Table.Tr></Table.Thead>
      <Table.Tbody>
        {steps.map((step, at) => (
          <Table.Tr key={at}>
            <Table.Td style={{ whiteSpace: 'nowrap' }}>{step.ok ? '✓' : '✗'} {step.stage}</Table.Td>
            <Table.Td style={{ overflowWrap: 'anywhere' }}>{step.detail}{step.made && <pre className="mono pre" tabIndex={0} aria-label={step.stage}>{step.made}</pre>}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}

export function Reasons({ reasons }: { reasons: Reason[] }) {
  const { t } = useWords();
  if (reasons.length === 0) return null;
  return (
    <Table aria-label={t('Reasons')} verticalSpacing={4}>
      <Table.Thead><Table.Tr><Table.Th>{t('Item')}</Table.Th><Table.Th>{t('Device')}</Table.Th><Table.Th>{t('Point')}</Table.Th><Table.Th>{t('Code')}</Table.Th><Table.Th>{t('Cause')}</Table.Th></Table.Tr></Table.Thead>
      <Table.Tbody>
        {reasons.map((reason, at) => (
          <Table.Tr key={at}>
            <Table.Td>{reason.index ?? '—'}</Table.Td><Table.Td>{reason.deviceKey ?? '—'}</Table.Td><Table.Td>{reason.point ?? '—'}</Table.Td>
            <Table.Td><Code code={reason.code} /></Table.Td><Table.Td style={{ overflowWrap: 'anywhere' }}>{reason.message}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}

/** What the current model and script would make of a message. */
export function DryRunOutcome({ run }: { run: DryRun }) {
  const { t } = useWords();
  return (
    <Card withBorder data-testid="dry-run" role="status">
      <Stack gap="xs">
        <Text fw={600}>{t('Dry run: nothing was stored')}</Text>
        {run.skipped ? <Text size="sm">{run.skipped}</Text> : (
          <Text size="sm"><Code code={run.code} /> · {t('{n} of {m} items would be stored, {v} values', { n: run.stored ?? 0, m: run.items ?? 0, v: run.values ?? 0 })}</Text>
        )}
        {run.steps && <Steps steps={run.steps} />}
        <Reasons reasons={run.rejected ?? []} />
      </Stack>
    </Card>
  );
}
