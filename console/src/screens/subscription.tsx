// One subscription: who reads it and how far, how to connect, what it is made of.
import { Alert, Anchor, Button, Card, Group, List, Modal, Select, Stack, Table, Tabs, Text, TextInput, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import type { Standing, SubscriptionFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { bytes, count } from '../time';
import { Asked, Empty, Page, Snippet, State, Sure } from '../ui/page';
import { ProblemAlert, tell, tellProblem } from '../ui/problem';
import { Revealed } from './access-keys';
import { lagOf } from './subscriptions';
import { readers } from './snippets';
import { SubscriptionForm } from './subscription-form';

const TABS = ['groups', 'connect', 'settings'];

export default function Subscription() {
  const { t } = useWords();
  const { name = '', tab: asked } = useParams();
  const tab = asked && TABS.includes(asked) ? asked : 'groups';
  const navigate = useNavigate();
  const client = useQueryClient();
  const may = useMay('operator');
  const path = { params: { path: { name } } };
  const standing = useQuery({
    queryKey: ['subscriptions', name, 'status'],
    queryFn: async () => (await ok(api.GET('/api/v1/subscriptions/{name}/status', path))) as unknown as Standing,
    refetchInterval: 2000,
  });
  const file = useQuery({
    queryKey: ['subscriptions', name, 'file'],
    queryFn: async () => (await ok(api.GET('/api/v1/subscriptions/{name}', path))) as unknown as SubscriptionFile,
  });
  const start = async () => {
    try {
      await ok(api.POST('/api/v1/subscriptions/{name}/start', path));
      await client.invalidateQueries({ queryKey: ['subscriptions'] });
      tell(t('The subscription runs.'));
    } catch (error) {
      tellProblem(error);
    }
  };
  const base = `/subscriptions/${encodeURIComponent(name)}`;
  return (
    <Page
      title={name}
      {...(file.data?.description && { about: file.data.description })}
      actions={may && standing.data && <>
        {standing.data.state === 'stopped'
          ? <Button onClick={() => void start()}>{t('Start')}</Button>
          : <Sure label={t('Stop')} title={t('Stop {name}?', { name })} color="orange" onSure={async () => {
              await ok(api.POST('/api/v1/subscriptions/{name}/stop', path));
              await client.invalidateQueries({ queryKey: ['subscriptions'] });
            }}>{t('Its readers are sent away. It goes on where it was, but the log does not wait for it: what is trimmed meanwhile is missing.')}</Sure>}
        <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
          await ok(api.DELETE('/api/v1/subscriptions/{name}', path));
          await navigate('/subscriptions');
          await client.invalidateQueries();
        }}>{t('Its messages and what its groups have read go with it. What is stored stays.')}</Sure>
      </>}
    >
      <Asked query={standing}>
        {(standing) => (
          <>
            <Group gap="lg">
              <State state={standing.state} />
              <Text size="sm">{t('Access key')} <Anchor component={Link} to={`/access-keys?name=${encodeURIComponent(standing.accessKey)}`}>{standing.accessKey}</Anchor></Text>
              {standing.groups && <Text size="sm" className="numbers">{t('{n} messages a second', { n: count(standing.rate ?? 0) })} · {t('greatest lag {n}', { n: count(lagOf(standing)) })} · {t('{n} commits to look through', { n: count(standing.behind ?? 0) })} · {bytes(standing.bytes ?? 0)}</Text>}
            </Group>
            <Missing standing={standing} />
            <Tabs value={tab} onChange={(tab) => void navigate(tab === 'groups' ? base : `${base}/${tab}`)} keepMounted={false}>
              <Tabs.List mb="md"><Tabs.Tab value="groups">{t('Groups and offsets')}</Tabs.Tab><Tabs.Tab value="connect">{t('How to read it')}</Tabs.Tab><Tabs.Tab value="settings">{t('Settings')}</Tabs.Tab></Tabs.List>
              <Tabs.Panel value="groups"><Groups standing={standing} /></Tabs.Panel>
              <Tabs.Panel value="connect"><Connect standing={standing} /></Tabs.Panel>
              <Tabs.Panel value="settings"><Asked query={file}>{(file) => <SubscriptionForm file={file} readOnly={!may} onSaved={() => void navigate(base)} />}</Asked></Tabs.Panel>
            </Tabs>
          </>
        )}
      </Asked>
    </Page>
  );
}

/** What a reader did not get, and why. */
function Missing({ standing }: { standing: Standing }) {
  const { t } = useWords();
  const told = [
    ...(standing.skippedCommits ? [t('{n} commits were no longer in the log when it came to them: it was stopped for too long.', { n: count(standing.skippedCommits) })] : []),
    ...(standing.droppedMessages ? [t('{n} messages made room for newer ones before their time: give it more disk, or fewer messages.', { n: count(standing.droppedMessages) })] : []),
    ...(standing.state === 'failed' ? [t('It could not be opened: the log of the gateway says why.')] : []),
  ];
  if (told.length === 0) return null;
  return <Alert color="orange" variant="light" title={t('Somebody should look at this')}><List size="sm">{told.map((text) => <List.Item key={text}>{text}</List.Item>)}</List></Alert>;
}

function Groups({ standing }: { standing: Standing }) {
  const { t } = useWords();
  const may = useMay('operator');
  const [isReplaying, setReplaying] = useState<{ group?: string }>();
  if (!standing.groups || !standing.partitions) return <Empty>{t('It does not run: start it to see its groups.')}</Empty>;
  const partitions = standing.partitions;
  const kept = partitions.reduce((sum, partition) => sum + partition.next - partition.oldest, 0);
  return (
    <Stack>
      <Group justify="space-between">
        <Text size="sm" role="status">{t('{n} messages are kept, {m} groups have read', { n: count(kept), m: standing.groups.length })}</Text>
        {may && standing.groups.length > 0 && <Button variant="default" onClick={() => setReplaying({})}>{t('Replay…')}</Button>}
      </Group>
      {standing.groups.length === 0 && <Empty action={<Button component={Link} to={`/subscriptions/${encodeURIComponent(standing.name)}/connect`}>{t('How to read it')}</Button>}>{t('No application has read it yet. A group begins at the oldest message that is kept.')}</Empty>}
      {standing.groups.map((group) => (
        <Card withBorder key={group.group} component="section" aria-label={t('Group {name}', { name: group.group })}>
          <Group justify="space-between" mb="xs">
            <Group gap="md">
              <Title order={2} size="h5">{group.group}</Title>
              <Text size="sm" className="numbers">{t('{n} members', { n: group.members })} · {t('{n} messages a second', { n: count(group.rate) })} · {t('lag {n}', { n: count(group.lag) })}</Text>
            </Group>
            {may && <Button size="compact-sm" variant="default" onClick={() => setReplaying({ group: group.group })}>{t('Replay {name}…', { name: group.group })}</Button>}
          </Group>
          <Table className="numbers" verticalSpacing={4} aria-label={t('Partitions of {name}', { name: group.group })}>
            <Table.Thead><Table.Tr><Table.Th ta="right">{t('Partition')}</Table.Th><Table.Th ta="right">{t('Oldest kept')}</Table.Th><Table.Th ta="right">{t('Committed')}</Table.Th><Table.Th ta="right">{t('Delivered up to')}</Table.Th><Table.Th ta="right">{t('Next to come')}</Table.Th><Table.Th ta="right">{t('Lag')}</Table.Th><Table.Th ta="right">{t('Member')}</Table.Th></Table.Tr></Table.Thead>
            <Table.Tbody>
              {group.offsets.map((offset) => (
                <Table.Tr key={offset.partition}>
                  <Table.Td ta="right">{offset.partition}</Table.Td><Table.Td ta="right">{partitions[offset.partition]?.oldest}</Table.Td>
                  <Table.Td ta="right">{offset.committed ?? '—'}</Table.Td><Table.Td ta="right">{offset.position}</Table.Td><Table.Td ta="right">{partitions[offset.partition]?.next}</Table.Td>
                  <Table.Td ta="right">{count(offset.lag)}</Table.Td><Table.Td ta="right">{offset.member ?? t('nobody')}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Card>
      ))}
      {isReplaying && <Replay standing={standing} {...isReplaying} onClose={() => setReplaying(undefined)} />}
    </Stack>
  );
}

const HOUR = 3_600_000;

function Replay({ standing, group: asked, onClose }: { standing: Standing; group?: string; onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const [group, setGroup] = useState<string | null>(asked ?? null);
  const [from, setFrom] = useState('');
  const [replayed, setReplayed] = useState<Schemas['Replayed']>();
  const [error, setError] = useState<unknown>();
  const replay = async (event: FormEvent) => {
    event.preventDefault();
    setError(undefined);
    try {
      setReplayed(await ok(api.POST('/api/v1/subscriptions/{name}/replay', { params: { path: { name: standing.name }, query: { from, ...(group && { group }) } } })));
      await client.invalidateQueries({ queryKey: ['subscriptions'] });
    } catch (error) {
      setError(error);
    }
  };
  const ago = (ms: number) => setFrom(new Date(Date.now() - ms).toISOString());
  return (
    <Modal opened onClose={onClose} title={t('Replay {name}', { name: standing.name })} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void replay(event)}>
        <Stack>
          <Text size="sm">{t('Messages that came to the subscription since then are delivered again. Readers stay connected.')}</Text>
          <Select label={t('Group')} clearable placeholder={t('all groups')} data={(standing.groups ?? []).map((one) => one.group)} value={group} onChange={setGroup} />
          <TextInput label={t('From')} required value={from} onChange={(e) => setFrom(e.currentTarget.value)} placeholder="2026-01-31T00:00Z" />
          <Group gap="xs">
            <Button size="compact-sm" variant="default" onClick={() => ago(HOUR)}>{t('an hour ago')}</Button>
            <Button size="compact-sm" variant="default" onClick={() => ago(24 * HOUR)}>{t('a day ago')}</Button>
            <Button size="compact-sm" variant="default" onClick={() => setFrom(new Date(0).toISOString())}>{t('all that is kept')}</Button>
          </Group>
          <ProblemAlert error={error} />
          {replayed && (
            <Alert color="teal" variant="light" title={t('Delivered again from here')} data-testid="replayed" role="status">
              <List size="sm">{replayed.offsets.map((offset) => <List.Item key={`${offset.group} ${offset.partition}`}>{t('{group}, partition {partition}: offset {offset}', { group: offset.group, partition: offset.partition, offset: offset.offset })}</List.Item>)}</List>
            </Alert>
          )}
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Close')}</Button><Button type="submit">{t('Replay')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}

function Connect({ standing }: { standing: Standing }) {
  const { t } = useWords();
  const [credential, setCredential] = useState<Schemas['Credential']>();
  return (
    <Stack>
      <Card withBorder>
        <Stack>
          <Text size="sm">{t('Applications log in with the access key {name}. Showing its secret leaves an entry in the audit trail.', { name: standing.accessKey })}</Text>
          <Revealed name={standing.accessKey} onShown={setCredential} />
        </Stack>
      </Card>
      <Card withBorder>
        <Stack>
          <Title order={2} size="h4">{t('Ready to paste')}</Title>
          {readers(standing, credential).map(({ title, text }) => <Snippet key={title} title={title} text={text} />)}
          <Text size="xs" className="quiet">{t('The address is that of this page; port {n} is open for WebSocket, plain TCP and TLS.', { n: String(standing.port) })}</Text>
        </Stack>
      </Card>
    </Stack>
  );
}
