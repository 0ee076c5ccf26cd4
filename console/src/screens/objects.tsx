// Declaring by a text of YAML or JSON: what is said of it before, and what became of it.
import { Button, FileButton, Group, List, Modal, Stack, Text } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { useWords } from '../i18n';
import { Waiting } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { useWork } from '../ui/work';
import { declareText, type Outcome } from './declare';
import { Cured } from './cured';

const Editor = lazy(() => import('../ui/editor'));

export function Import({ title, about, start = '', onClose }: { title: string; about: string; start?: string; onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const [text, setText] = useState(start);
  const [outcome, setOutcome] = useState<Outcome>();
  const { busy, error, work } = useWork();
  const declare = (dryRun: boolean) => work(async () => {
    setOutcome(undefined);
    setOutcome(await declareText(client, text, dryRun));
  });
  const take = async (file: File | null) => {
    if (file) setText(await file.text());
  };
  // Typing in megabytes is no use: a large file is only counted.
  const isLarge = text.length > 300_000;
  return (
    <Modal opened onClose={onClose} title={title} size="xl" closeButtonProps={{ 'aria-label': t('Close') }}>
      <Stack>
        <Text size="sm">{about}</Text>
        <Group><FileButton onChange={(file) => void take(file)} accept=".yaml,.yml,.json,.ndjson">{(props) => <Button variant="default" {...props}>{t('Choose a file…')}</Button>}</FileButton></Group>
        {isLarge
          ? <Text size="sm">{t('A file of {n} characters.', { n: text.length.toLocaleString('en-US') })} <Button size="compact-xs" variant="default" onClick={() => setText('')}>{t('Clear')}</Button></Text>
          : <Suspense fallback={<Waiting />}><Editor language="yaml" label={title} value={text} onChange={setText} /></Suspense>}
        <ProblemAlert error={error} />
        {outcome && <Report outcome={outcome} />}
        <Group justify="flex-end">
          <Button variant="default" loading={busy} disabled={!text.trim()} onClick={() => void declare(true)}>{t('Check')}</Button>
          <Button loading={busy} disabled={!text.trim()} onClick={() => void declare(false)}>{t('Import')}</Button>
        </Group>
      </Stack>
    </Modal>
  );
}

const NAMED = 50;

export function Report({ outcome }: { outcome: Outcome }) {
  const { t } = useWords();
  const words = { created: t('created'), changed: t('changed'), unchanged: t('unchanged') };
  return (
    <Stack gap="xs" role="status" data-testid="report">
      <Text fw={600}>{outcome.dryRun ? t('This would happen; nothing has changed:') : t('Done:')} {t('{n} created, {m} changed, {k} unchanged', { n: outcome.created, m: outcome.changed, k: outcome.unchanged })}</Text>
      <List size="sm">
        {outcome.objects.slice(0, NAMED).map((object) => <List.Item key={`${object.kind} ${object.name}`}>{object.kind} {object.name}: {words[object.result]}</List.Item>)}
        {outcome.objects.length > NAMED && <List.Item>{t('and {n} more', { n: outcome.objects.length - NAMED })}</List.Item>}
      </List>
      <Cured cures={outcome.cures ?? []} />
    </Stack>
  );
}
