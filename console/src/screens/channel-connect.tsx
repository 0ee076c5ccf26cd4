// How a channel is connected to: the four strings, commands to paste, what a login has to show.
import { Alert, Anchor, Badge, Button, Card, Group, Modal, NumberInput, SimpleGrid, Stack, Text, Title } from '@mantine/core';
import { useState } from 'react';
import { Link } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import type { ChannelFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Ago, Time } from '../time';
import { Copied, Pairs, Snippet } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { useBounds } from './channel-bounds';
import { snippets } from './snippets';

export function Connect({ name, file, doing }: { name: string; file: ChannelFile; doing?: Schemas['ChannelActivity'] }) {
  const { t } = useWords();
  const isAdmin = useMay('admin');
  const [connection, setConnection] = useState<Schemas['Connection']>();
  const [isShown, setShown] = useState(false);
  const [error, setError] = useState<unknown>();
  const reveal = async () => {
    setError(undefined);
    try {
      setConnection(await ok(api.GET('/api/v1/channels/{name}/connection', { params: { path: { name } } })));
      setShown(true);
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Stack>
      <Card withBorder>
        <Group gap="sm" role="status" data-testid="first-message">
          {doing?.lastMessage
            ? <><Badge color="green" variant="light">{t('receiving')}</Badge><Text size="sm">{t('The last message came')} <Ago ms={doing.lastMessage} /> · <Time ms={doing.lastMessage} /></Text></>
            : <><Badge color="gray" variant="light">{t('waiting')}</Badge><Text size="sm">{(doing?.clients ?? 0) > 0 ? t('A client is connected. Waiting for your first message…') : t('Waiting for your first message…')}</Text></>}
        </Group>
      </Card>
      {!connection && (
        <Card withBorder>
          <Stack align="flex-start">
            <Text size="sm">{t('Four strings log a client in: broker URL, client id, user name and password. Showing them leaves an entry in the audit trail.')}</Text>
            {isAdmin ? <Button onClick={() => void reveal()}>{t('Show the connection strings')}</Button> : <Text size="sm" className="quiet">{t('Only an admin can see them.')}</Text>}
            <ProblemAlert error={error} />
          </Stack>
        </Card>
      )}
      {connection && (
        <>
          <Card withBorder>
            <Stack gap="sm">
              <Title order={2} size="h4">{t('Connection details')}</Title>
              <Copied label={t('Broker URL')} value={connection.brokerUrl} />
              {connection.brokerTlsUrl && <Copied label={t('Broker URL over TLS')} value={connection.brokerTlsUrl} />}
              <Copied label={t('Client ID')} value={connection.clientId} />
              <Copied label={t('User name')} value={connection.username} />
              <Group align="flex-end" wrap="nowrap" gap="xs">
                <div style={{ flex: 1 }}><Copied label={t('Password')} value={connection.password} {...(!isShown && { shown: '•'.repeat(24) })} /></div>
                <Button variant="default" onClick={() => setShown(!isShown)}>{isShown ? t('Hide') : t('Reveal')}</Button>
              </Group>
              {connection.previousSecretValidUntil && <Text size="sm">{t('The password before this one is valid until {time}.', { time: connection.previousSecretValidUntil })}</Text>}
              <Rotate name={name} onRotated={(after) => { setConnection(after); setShown(true); }} />
            </Stack>
          </Card>
          <Card withBorder>
            <Stack>
              <Title order={2} size="h4">{t('Ready to paste')}</Title>
              {snippets(connection, isShown).map(({ title, text }) => <Snippet key={title} title={title} text={text} />)}
            </Stack>
          </Card>
          <Card withBorder>
            <Title order={2} size="h4" mb="xs">{t('For SDKs that sign for themselves')}</Title>
            <SimpleGrid cols={{ base: 1, sm: 2 }}>
              <Copied label={t('Product key')} value={connection.productKey} />
              <Copied label={t('Product secret')} value={connection.secret} {...(!isShown && { shown: '•'.repeat(24) })} />
            </SimpleGrid>
          </Card>
        </>
      )}
      <Bounds name={name} file={file} />
    </Stack>
  );
}

/** What a login has to show and how much it may bring, in words. */
function Bounds({ name, file }: { name: string; file: ChannelFile }) {
  const { t } = useWords();
  const bounds = useBounds(file);
  return (
    <Card withBorder component="section" aria-label={t('Certificates and quotas')}>
      <Group justify="space-between" mb="xs">
        <Title order={2} size="h4">{t('Certificates and quotas')}</Title>
        <Anchor component={Link} to={`/channels/${encodeURIComponent(name)}/settings`} size="sm">{t('Change in the settings')}</Anchor>
      </Group>
      {file.clientCertificate?.required && <Alert color="blue" variant="light" mb="xs">{t('Without a client certificate nobody logs in: connect over TLS.')}</Alert>}
      <Pairs of={bounds} />
    </Card>
  );
}

function Rotate({ name, onRotated }: { name: string; onRotated: (after: Schemas['Connection']) => void }) {
  const { t } = useWords();
  const [isOpen, setOpen] = useState(false);
  const [hours, setHours] = useState<string | number>(24);
  const [error, setError] = useState<unknown>();
  const rotate = async () => {
    setError(undefined);
    try {
      const query = { overlapSeconds: Math.round(Number(hours) * 3600) };
      onRotated(await ok(api.POST('/api/v1/channels/{name}/rotate', { params: { path: { name }, query } })));
      setOpen(false);
      tell(t('The password is new. The strings on this page are those that count.'));
    } catch (error) {
      setError(error);
    }
  };
  return (
    <div>
      <Button variant="default" onClick={() => setOpen(true)}>{t('New password…')}</Button>
      <Modal opened={isOpen} onClose={() => setOpen(false)} title={t('A new password for {name}', { name })} closeButtonProps={{ 'aria-label': t('Close') }}>
        <Stack>
          <Text size="sm">{t('Every client needs the new strings. Those with the old password log in for as long as the overlap lasts.')}</Text>
          <NumberInput label={t('Overlap in hours')} min={0} max={8760} value={hours} onChange={setHours} />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button onClick={() => void rotate()}>{t('Make a new password')}</Button></Group>
        </Stack>
      </Modal>
    </div>
  );
}
