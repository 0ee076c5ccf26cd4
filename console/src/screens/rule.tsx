// One rule: how it stands, its dead letters, what it is made of; replay, secret, start and stop.
import { Alert, Button, Card, Group, Modal, Progress, SimpleGrid, Stack, Tabs, Text, TextInput, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { useNavigate, useParams } from 'react-router';
import { api, ok } from '../api/client';
import type { RuleFile, RuleStanding } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, count } from '../time';
import { Asked, Empty, Page, Pairs, Snippet, State, Sure } from '../ui/page';
import { ProblemAlert, tell, tellProblem } from '../ui/problem';
import { SecretModal } from '../ui/secret';
import { DeadLetters } from './dead-letters';
import { RuleEditor } from './rule-editor';
import { ruleTo } from './rules';

const TABS = ['status', 'dead-letters', 'edit'];

export function NewRule() {
  const { t } = useWords();
  const navigate = useNavigate();
  return (
    <Page title={t('New rule')}>
      <RuleEditor onSaved={(name) => void navigate(ruleTo(name))} />
    </Page>
  );
}

export default function Rule() {
  const { t } = useWords();
  const { name = '', tab: asked } = useParams();
  const tab = asked && TABS.includes(asked) ? asked : 'status';
  const navigate = useNavigate();
  const client = useQueryClient();
  const [may, isAdmin] = [useMay('operator'), useMay('admin')];
  const path = { params: { path: { name } } };
  const [open, setOpen] = useState<'replay' | 'secret'>();
  const standing = useQuery({
    queryKey: ['rules', name, 'status'],
    queryFn: async () => (await ok(api.GET('/api/v1/rules/{name}/status', path))) as unknown as RuleStanding,
    refetchInterval: 2000,
  });
  const file = useQuery({
    queryKey: ['rules', name, 'file'],
    queryFn: async () => (await ok(api.GET('/api/v1/rules/{name}', path))) as unknown as RuleFile,
  });
  const start = async () => {
    try {
      await ok(api.POST('/api/v1/rules/{name}/start', path));
      await client.invalidateQueries({ queryKey: ['rules'] });
      tell(t('The rule is started.'));
    } catch (error) {
      tellProblem(error);
    }
  };
  return (
    <Page
      title={name}
      {...(file.data?.description && { about: file.data.description })}
      actions={may && standing.data && <>
        {standing.data.state === 'running' && <Button variant="default" onClick={() => setOpen('replay')}>{t('Replay…')}</Button>}
        {isAdmin && standing.data.destination === 'webhook' && <Button variant="default" onClick={() => setOpen('secret')}>{t('Secret…')}</Button>}
        {standing.data.state === 'stopped'
          ? <Button onClick={() => void start()}>{t('Start')}</Button>
          : <Sure label={t('Stop')} title={t('Stop {name}?', { name })} color="orange" onSure={async () => {
              await ok(api.POST('/api/v1/rules/{name}/stop', path));
              await client.invalidateQueries({ queryKey: ['rules'] });
            }}>{t('It publishes nothing and holds the log no longer. It goes on where it was; what is trimmed meanwhile is told as skipped, and a replay publishes what is stored of it.')}</Sure>}
        <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
          await ok(api.DELETE('/api/v1/rules/{name}', path));
          await navigate('/rules');
          await client.invalidateQueries();
        }}>{t('Its place in the log and its dead letters go with it. What it published stays where it is.')}</Sure>
      </>}
    >
      <Asked query={standing}>
        {(standing) => (
          <>
            <Group gap="lg">
              <State state={standing.error ? 'failing' : standing.state} />
              <Text size="sm" className="numbers">{t('version {n}', { n: standing.version })}{standing.lag !== undefined && <> · {t('lag {n}', { n: count(standing.lag) })} · {t('{n} records a second', { n: count(standing.rate ?? 0) })} · {t('{n} published', { n: count(standing.published ?? 0) })}</>}</Text>
            </Group>
            <Trouble standing={standing} />
            <Tabs value={tab} onChange={(tab) => void navigate(ruleTo(name, tab === 'status' || !tab ? '' : tab))} keepMounted={false}>
              <Tabs.List mb="md"><Tabs.Tab value="status">{t('How it stands')}</Tabs.Tab><Tabs.Tab value="dead-letters">{t('Dead letters')} ({count(standing.deadLetters ?? 0)})</Tabs.Tab><Tabs.Tab value="edit">{t('Edit and test')}</Tabs.Tab></Tabs.List>
              <Tabs.Panel value="status"><Status standing={standing} /></Tabs.Panel>
              <Tabs.Panel value="dead-letters"><DeadLetters standing={standing} /></Tabs.Panel>
              <Tabs.Panel value="edit"><Asked query={file}>{(file) => <RuleEditor file={file} readOnly={!may} onSaved={() => void navigate(ruleTo(name))} />}</Asked></Tabs.Panel>
            </Tabs>
            {open === 'replay' && <Replay name={name} onClose={() => setOpen(undefined)} />}
            {open === 'secret' && <SecretModal
              name={name} hasSecret={standing.hasSecret} about={t('What ${secret} stands for in the headers of its requests. It is sealed, and shown to nobody.')} onClose={() => setOpen(undefined)}
              onSet={async (secret) => {
                await ok(api.POST('/api/v1/rules/{name}/secret', { ...path, body: { secret } }));
                await client.invalidateQueries({ queryKey: ['rules'] });
                tell(secret === null ? t('The rule has no secret now.') : t('The secret is set. It is shown to nobody.'));
              }}
            />}
          </>
        )}
      </Asked>
    </Page>
  );
}

/** Why it does not get on, and what it has missed. */
function Trouble({ standing }: { standing: RuleStanding }) {
  const { t } = useWords();
  const { error, reason, skippedCommits = 0, deadLettersDropped = 0 } = standing;
  return (
    <>
      {reason && <Alert color={standing.state === 'failed' ? 'red' : 'blue'} variant="light" title={standing.state === 'failed' ? t('It does not run') : t('It has nowhere to go')}>{reason}</Alert>}
      {error && (
        <Alert color="red" variant="light" role="alert" title={error.fenced ? t('Another gateway has taken over') : t('Delivery fails, and is tried again')}>
          <Text size="sm">{error.reason} · {t('since')} <Time ms={error.since} /></Text>
          {error.fenced && <Text size="sm"><b>{t('What to do')}:</b> {t('make sure that only one gateway runs on this data, then stop the rule and start it.')}</Text>}
        </Alert>
      )}
      {skippedCommits > 0 && <Alert color="orange" variant="light" title={t('{n} commits were no longer in the log when the rule came to them', { n: count(skippedCommits) })}>{t('A replay publishes what is stored of them.')}</Alert>}
      {deadLettersDropped > 0 && <Alert color="orange" variant="light" title={t('{n} dead letters were too old, or made room for newer ones', { n: count(deadLettersDropped) })} />}
    </>
  );
}

function Status({ standing }: { standing: RuleStanding }) {
  const { t } = useWords();
  if (standing.cursor === undefined) return <Empty>{standing.state === 'stopped' ? t('It is stopped: start it to see how far it is.') : t('It does not run.')}</Empty>;
  const replay = standing.replay;
  const whole = replay ? Math.max(1, replay.until - replay.from + 1) : 1;
  return (
    <Stack>
      {replay && (
        <Card withBorder data-testid="replay">
          <Title order={2} size="h5" mb="xs">{t('Replay')}</Title>
          <Progress value={Math.max(2, (100 * (replay.reached - replay.from + 1)) / whole)} aria-label={t('Replay')} />
          <Text size="sm" className="numbers" role="status">{t('commits {from} to {until}', { from: replay.from, until: replay.until })} · {replay.source === 'segments' ? t('reads stored history') : t('reads the log')} · {t('{n} published', { n: count(replay.published) })}</Text>
        </Card>
      )}
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Card withBorder>
          <Title order={2} size="h5" mb="xs">{t('The log')}</Title>
          <Pairs of={[
            [t('Dealt with up to commit'), count(standing.cursor)], [t('Commits behind'), count(standing.lag ?? 0)], [t('Arrival of the last one'), <Time key="a" ms={standing.arrived} exact />], [t('Commits skipped'), count(standing.skippedCommits ?? 0)],
          ]} />
        </Card>
        <Card withBorder>
          <Title order={2} size="h5" mb="xs">{t('The destination')}</Title>
          <Pairs of={[
            [t('Records published'), count(standing.published ?? 0)], [t('Records a second'), count(standing.rate ?? 0)], [t('Deliveries that failed since the start'), count(standing.failures ?? 0)],
            [t('Dead letters'), count(standing.deadLetters ?? 0)], [t('Secret'), standing.hasSecret ? t('set') : t('none')],
          ]} />
        </Card>
      </SimpleGrid>
      <Snippet title={t('On the command line')} text={`backtide rule show ${standing.name}`} />
    </Stack>
  );
}

function Replay({ name, onClose }: { name: string; onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const [from, setFrom] = useState('');
  const [to, setTo] = useState('');
  const [error, setError] = useState<unknown>();
  const replay = async (event: FormEvent) => {
    event.preventDefault();
    setError(undefined);
    try {
      const { from: first, until } = await ok(api.POST('/api/v1/rules/{name}/replay', { params: { path: { name }, query: { from, ...(to && { to }) } } }));
      await client.invalidateQueries({ queryKey: ['rules'] });
      tell(t('Commits {from} to {until} are published again.', { from: first, until }));
      onClose();
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t('Replay {name}', { name })} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void replay(event)}>
        <Stack>
          <Text size="sm">{t('What arrived between these moments is published again, beside what is new. Of what the log no longer holds, stored history goes out: what stands now.')}</Text>
          <TextInput label={t('From')} required value={from} onChange={(e) => setFrom(e.currentTarget.value)} placeholder="2026-01-31T00:00Z" data-autofocus />
          <TextInput label={t('To')} value={to} onChange={(e) => setTo(e.currentTarget.value)} placeholder={t('up to where the rule is')} />
          <Group gap="xs">
            <Button size="compact-sm" variant="default" onClick={() => setFrom(new Date(Date.now() - 3_600_000).toISOString())}>{t('an hour ago')}</Button>
            <Button size="compact-sm" variant="default" onClick={() => setFrom(new Date(Date.now() - 86_400_000).toISOString())}>{t('a day ago')}</Button>
            <Button size="compact-sm" variant="default" onClick={() => setFrom(new Date(0).toISOString())}>{t('from the first')}</Button>
          </Group>
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit">{t('Replay')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}
