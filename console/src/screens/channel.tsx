// One channel: how to connect, what happened on it, what its messages looked like, its settings.
import { Alert, Anchor, Button, Group, Tabs, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import { api, ok } from '../api/client';
import type { ChannelFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { useLive } from '../live';
import { count } from '../time';
import { Asked, Page, State, Sure, Waiting } from '../ui/page';
import { tell, tellProblem } from '../ui/problem';
import { Connect } from './channel-connect';

const Log = lazy(() => import('./log'));
const Recorder = lazy(() => import('./recorder'));
const Settings = lazy(() => import('./channel-settings'));

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
              <Text size="sm">{t('Product')} <Anchor component={Link} size="sm" to={`/products?name=${encodeURIComponent(file.product)}`}>{file.product}</Anchor></Text>
              <Text size="sm">{file.mode === 'lenient' ? t('lenient') : t('strict')}</Text>
              {doing && <Text size="sm" className="numbers"><Anchor component={Link} size="sm" to={`${base}/log?kind=connection`}>{t('{n} clients', { n: doing.clients })}</Anchor> · <Anchor component={Link} size="sm" to={`${base}/log`}>{t('{n} messages', { n: count(doing.messages) })}</Anchor> · <Anchor component={Link} size="sm" to={`/quarantine?channel=${encodeURIComponent(name)}`}>{t('{n} refused', { n: count(doing.refused) })}</Anchor> · {t('{n} values', { n: count(doing.values) })}</Text>}
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
              <Tabs.Panel value="settings"><Suspense fallback={<Waiting />}><Settings name={name} file={file} /></Suspense></Tabs.Panel>
            </Tabs>
          </>
        )}
      </Asked>
    </Page>
  );
}
