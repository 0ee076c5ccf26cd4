// One channel: how to connect, what happened on it, what its messages looked like, its settings.
import { Alert, Anchor, Badge, Button, Card, Group, Modal, NumberInput, SimpleGrid, Stack, Table, Tabs, Text, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import type { ChannelFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { useLive } from '../live';
import { Ago, Time, count } from '../time';
import { Asked, Copied, Page, Pairs, Snippet, State, Sure, Waiting } from '../ui/page';
import { ProblemAlert, tell, tellProblem } from '../ui/problem';
import { declareText } from './declare';
import { snippets } from './snippets';

const Log = lazy(() => import('./log'));
const Recorder = lazy(() => import('./recorder'));
const Editor = lazy(() => import('../ui/editor'));

const TABS = ['connect', 'log', 'messages', 'settings'];

export default function Channel() {
  const { t } = useWords();
  const { name = '', tab: asked } = useParams();
  const tab = asked && TABS.includes(asked) ? asked : 'connect';
  const navigate = useNavigate();
  const client = useQueryClient();
  const may = useMay('operator');
  const live = useLive(name);
  const channel = useQuery({
    queryKey: ['channel', name],
    queryFn: async () => (await ok(api.GET('/api/v1/channels/{name}', { params: { path: { name } } }))) as unknown as ChannelFile,
  });
  const activity = useQuery({
    queryKey: ['activity', 'one', name],
    queryFn: async () => (await ok(api.GET('/api/v1/activity', { params: { query: { name, limit: 1000 } } }))).items.find((item) => item.name === name),
  });
  const doing = live.channel ?? activity.data;
  const act = async (verb: 'pause' | 'resume') => {
    const path = { params: { path: { name } } };
    try {
      await ok(verb === 'pause' ? api.POST('/api/v1/channels/{name}/pause', path) : api.POST('/api/v1/channels/{name}/resume', path));
      await client.invalidateQueries();
      tell(verb === 'pause' ? t('The channel is paused.') : t('The channel is open.'));
    } catch (error) {
      tellProblem(error);
    }
  };
  const base = `/channels/${encodeURIComponent(name)}`;
  return (
    <Page
      title={name}
      actions={may && doing && (
        <>
          {doing.state === 'open'
            ? <Sure label={t('Pause')} title={t('Pause {name}?', { name })} color="orange" onSure={() => act('pause')}>{t('Its clients are disconnected and refused until it is opened again. Nothing that is stored changes.')}</Sure>
            : <Button onClick={() => void act('resume')}>{t('Open again')}</Button>}
        </>
      )}
    >
      <Asked query={channel}>
        {(file) => (
          <>
            <Group gap="lg">
              {doing && <State state={doing.state} />}
              <Text size="sm">{t('Product')} <Anchor href={`/products?name=${encodeURIComponent(file.product)}`} onClick={(e) => { e.preventDefault(); void navigate(`/products?name=${encodeURIComponent(file.product)}`); }}>{file.product}</Anchor></Text>
              <Text size="sm">{file.mode === 'lenient' ? t('lenient') : t('strict')}</Text>
              {doing && <Text size="sm" className="numbers">{t('{n} clients', { n: doing.clients })} · {t('{n} messages', { n: count(doing.messages) })} · {t('{n} refused', { n: count(doing.refused) })} · {t('{n} values', { n: count(doing.values) })}</Text>}
            </Group>
            {doing?.held && <Alert color="orange" variant="light" title={t('The channel is held')}>{doing.held}</Alert>}
            <Tabs value={tab} onChange={(tab) => void navigate(tab === 'connect' ? base : `${base}/${tab}`)} keepMounted={false}>
              <Tabs.List mb="md">
                <Tabs.Tab value="connect">{t('Connection details')}</Tabs.Tab>
                <Tabs.Tab value="log">{t('Log')}</Tabs.Tab>
                <Tabs.Tab value="messages">{t('Messages')}</Tabs.Tab>
                <Tabs.Tab value="settings">{t('Settings')}</Tabs.Tab>
              </Tabs.List>
              <Tabs.Panel value="connect"><Connect name={name} file={file} {...(doing && { doing })} /></Tabs.Panel>
              <Tabs.Panel value="log"><Suspense fallback={<Waiting />}><Log name={name} /></Suspense></Tabs.Panel>
              <Tabs.Panel value="messages"><Suspense fallback={<Waiting />}><Recorder name={name} /></Suspense></Tabs.Panel>
              <Tabs.Panel value="settings"><Settings name={name} file={file} /></Tabs.Panel>
            </Tabs>
          </>
        )}
      </Asked>
    </Page>
  );
}

function Connect({ name, file, doing }: { name: string; file: ChannelFile; doing?: Schemas['ChannelActivity'] }) {
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
      <Card withBorder>
        <Title order={2} size="h4" mb="xs">{t('Certificates and quotas')}</Title>
        <Pairs of={[
          [t('Client certificate'), file['clientCertificate'] ? <code>{JSON.stringify(file['clientCertificate'])}</code> : t('not asked for')],
          [t('Quotas'), file['quotas'] ? <code>{JSON.stringify(file['quotas'])}</code> : t('none')],
          [t('Connections at one time'), String(file['connectionsMax'] ?? t('the gateway’s own limit'))],
          [t('Error budget'), file['errorBudget'] ? <code>{JSON.stringify(file['errorBudget'])}</code> : t('none')],
        ]} />
      </Card>
    </Stack>
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

function Settings({ name, file }: { name: string; file: ChannelFile }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
  const [text, setText] = useState(() => JSON.stringify(file, null, 2));
  const [error, setError] = useState<unknown>();
  const save = async () => {
    setError(undefined);
    try {
      const outcome = await declareText(client, text);
      tell(outcome.changed > 0 ? t('Saved.') : t('Nothing had changed.'));
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Stack>
      <Text size="sm">{t('The channel as an object file has it. What each member means:')} <Anchor href="/api/v1/schemas/channel" size="sm">/api/v1/schemas/channel</Anchor></Text>
      <Suspense fallback={<Waiting />}><Editor language="json" label={t('Channel')} value={text} onChange={setText} readOnly={!may} /></Suspense>
      <Table.ScrollContainer minWidth={400} type="native" tabIndex={0} role="region" aria-label={t('What can be set')}>
        <Table aria-label={t('What can be set')}>
          <Table.Tbody>
            {[
              ['mode', t('strict, or lenient: one bad item is refused by itself')],
              ['quotas', t('how much it may bring in a second, such as {"live": {"messagesPerSecond": 10}}')],
              ['connectionsMax', t('connections at one time')],
              ['clientCertificate', t('which client certificate a login has to show, such as {"required": true, "subject": {"CN": "plant-7"}}')],
              ['errorBudget', t('how much may be refused before an alarm is raised, or the channel is held')],
              ['conflict', t('keep-last, keep-first or higher-quality')],
            ].map(([member, means]) => <Table.Tr key={member}><Table.Td><code>{member}</code></Table.Td><Table.Td>{means}</Table.Td></Table.Tr>)}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <ProblemAlert error={error} />
      {may && (
        <Group>
          <Button onClick={() => void save()}>{t('Save')}</Button>
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
