// A channel's settings as a form, or as text.
import { Anchor, Button, Group, Stack, Text } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useNavigate } from 'react-router';
import { api, ok } from '../api/client';
import type { ChannelFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Sure } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { faultsOf } from '../ui/fields';
import { Kept, others } from '../ui/kept';
import { useWork } from '../ui/work';
import { ChannelForm } from './channel-form';
import { declare } from './declare';
import { Edited, Turn, useDraft, whole } from './draft';

const KNOWN = ['kind', 'name', 'product', 'mode', 'stampArrival', 'conflict', 'connectionsMax', 'refuse', 'errorBudget', 'clientCertificate', 'quotas', 'description'];

export default function Settings({ name, file }: { name: string; file: ChannelFile }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
  const draft = useDraft(file, (file) => whole(file, KNOWN));
  const { busy, work } = useWork(draft);
  const save = () => work(async () => {
    const outcome = await declare(client, [draft.current()]);
    tell(outcome.changed > 0 ? t('Saved.') : t('Nothing had changed.'));
  });
  return (
    <Stack maw={980}>
      <Group justify="space-between">
        <Turn draft={draft} />
        {draft.text !== undefined && <Text size="sm">{t('What each member means:')} <Anchor href="/api/v1/schemas/channel" size="sm">/api/v1/schemas/channel</Anchor></Text>}
      </Group>
      <Edited draft={draft} label={t('Channel')} readOnly={!may}><ChannelForm file={draft.file} onChange={draft.setFile} faults={faultsOf(draft.error)} readOnly={!may} /><Kept of={others(draft.file, KNOWN)} /></Edited>
      <ProblemAlert error={draft.error} />
      {may && (
        <Group>
          <Button loading={busy} onClick={() => void save()}>{t('Save')}</Button>
          <Sure
            label={t('Delete')} title={t('Delete {name}?', { name })}
            onSure={async () => {
              await ok(api.DELETE('/api/v1/channels/{name}', { params: { path: { name } } }));
              await navigate('/channels');
              await client.invalidateQueries();
            }}
          >
            {t('Its clients can log in no more. What it brought stays.')}
          </Sure>
        </Group>
      )}
    </Stack>
  );
}
