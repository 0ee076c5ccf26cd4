// Access: users, API tokens, sessions, the audit trail. For admins.
import { Alert, Badge, Button, Drawer, Group, Modal, NativeSelect, NumberInput, PasswordInput, Stack, Tabs, Text, TextInput } from '@mantine/core';
import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { useNavigate, useParams } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import { useMe } from '../app';
import { useWords } from '../i18n';
import { Ago, Time } from '../time';
import { Asked, Copied, Empty, FilterText, Page, Pairs, Sure, useFilters } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { Rows } from '../ui/rows';

type Role = Schemas['Role'];

export default function Access() {
  const { t } = useWords();
  const { tab = 'users' } = useParams();
  const navigate = useNavigate();
  return (
    <Page title={t('Access')} about={t('A viewer reads. An operator declares, pauses, publishes and mends. An admin also sees secrets and manages access.')}>
      <Tabs value={tab} onChange={(tab) => void navigate(tab === 'users' ? '/access' : `/access/${tab}`)} keepMounted={false}>
        <Tabs.List mb="sm">
          <Tabs.Tab value="users">{t('Users')}</Tabs.Tab><Tabs.Tab value="tokens">{t('API tokens')}</Tabs.Tab><Tabs.Tab value="sessions">{t('Sessions')}</Tabs.Tab><Tabs.Tab value="audit">{t('Audit trail')}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="users"><Users /></Tabs.Panel>
        <Tabs.Panel value="tokens"><Tokens /></Tabs.Panel>
        <Tabs.Panel value="sessions"><Sessions /></Tabs.Panel>
        <Tabs.Panel value="audit"><Audit /></Tabs.Panel>
      </Tabs>
    </Page>
  );
}

function useRoles() {
  const { t } = useWords();
  return [{ value: 'viewer', label: t('viewer') }, { value: 'operator', label: t('operator') }, { value: 'admin', label: t('admin') }];
}

function Users() {
  const { t } = useWords();
  const client = useQueryClient();
  const me = useMe();
  const roles = useRoles();
  const [edited, setEdited] = useState<Schemas['User'] | 'new'>();
  const users = useQuery({ queryKey: ['access', 'users'], queryFn: () => ok(api.GET('/api/v1/access/users')) });
  return (
    <Stack>
      <Group><Button onClick={() => setEdited('new')}>{t('New user')}</Button></Group>
      <Asked query={users}>
        {({ items }) => (
          <Rows
            label={t('Users')} rows={items} id={(user) => user.name}
            columns={[
              { name: t('User'), cell: (u) => u.name },
              { name: t('Role'), cell: (u) => roles.find((role) => role.value === u.role)?.label },
              { name: t('Made'), cell: (u) => <Time ms={u.created} /> },
              { name: t('Open sessions'), right: true, cell: (u) => u.sessions },
              { name: t('Do'), cell: (u) => (
                <Group gap="xs">
                  <Button size="compact-sm" variant="default" onClick={() => setEdited(u)}>{t('Change')}</Button>
                  <Sure size="compact-sm" label={t('Delete')} title={t('Delete {name}?', { name: u.name })} onSure={async () => {
                    await ok(api.DELETE('/api/v1/access/users/{name}', { params: { path: { name: u.name } } }));
                    await client.invalidateQueries({ queryKey: u.name === me.name ? ['me'] : ['access'] });
                  }}>{t('The user’s sessions end at once.')}</Sure>
                </Group>
              ) },
            ]}
            empty={<Empty>{t('There is no user yet.')}</Empty>}
          />
        )}
      </Asked>
      {edited && <EditedUser {...(edited !== 'new' && { user: edited })} onClose={() => setEdited(undefined)} />}
    </Stack>
  );
}

function EditedUser({ user, onClose }: { user?: Schemas['User']; onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const roles = useRoles();
  const [name, setName] = useState(user?.name ?? '');
  const [role, setRole] = useState<string>(user?.role ?? 'viewer');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<unknown>();
  const save = async (event: FormEvent) => {
    event.preventDefault();
    setError(undefined);
    try {
      await ok(api.PUT('/api/v1/access/users/{name}', { params: { path: { name } }, body: { role: role as Role, ...(password && { password }) } }));
      await client.invalidateQueries({ queryKey: ['access'] });
      tell(t('Saved.'));
      onClose();
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Modal opened onClose={onClose} title={user ? t('Change {name}', { name: user.name }) : t('New user')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void save(event)}>
        <Stack>
          <TextInput label={t('User name')} required readOnly={user !== undefined} value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <NativeSelect label={t('Role')} data={roles} value={role} onChange={(e) => setRole(e.currentTarget.value)} />
          <PasswordInput label={t('New password')} description={user ? t('Empty: it stays. A new one ends the user’s sessions.') : t('At least 10 characters')} required={!user} minLength={10} autoComplete="new-password" value={password} onChange={(e) => setPassword(e.currentTarget.value)} visibilityToggleButtonProps={{ 'aria-label': t('Show the password') }} />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit">{t('Save')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}

function Tokens() {
  const { t } = useWords();
  const client = useQueryClient();
  const roles = useRoles();
  const [isMaking, setMaking] = useState(false);
  const [made, setMade] = useState<Schemas['Token']>();
  const tokens = useQuery({ queryKey: ['access', 'tokens'], queryFn: () => ok(api.GET('/api/v1/access/tokens')) });
  return (
    <Stack>
      <Text size="sm">{t('Programs send one as Authorization: Bearer …; the command line takes it as BACKTIDE_TOKEN.')}</Text>
      <Group><Button onClick={() => setMaking(true)}>{t('New token')}</Button></Group>
      {made?.token && <Alert color="teal" variant="light" title={t('The token {name}: it is shown this once', { name: made.name })} withCloseButton closeButtonLabel={t('Close')} onClose={() => setMade(undefined)}><Copied label={t('Token')} value={made.token} /></Alert>}
      <Asked query={tokens}>
        {({ items }) => (
          <Rows
            label={t('API tokens')} rows={items} id={(token) => token.name}
            columns={[
              { name: t('Token'), cell: (x) => x.name },
              { name: t('Role'), cell: (x) => roles.find((role) => role.value === x.role)?.label },
              { name: t('Made'), cell: (x) => <><Time ms={x.created} /> · {x.madeBy}</> },
              { name: t('Expires'), cell: (x) => (x.expires == null ? t('never') : <Time ms={x.expires} />) },
              { name: t('Do'), cell: (x) => (
                <Sure size="compact-sm" label={t('Delete')} title={t('Delete {name}?', { name: x.name })} onSure={async () => {
                  await ok(api.DELETE('/api/v1/access/tokens/{name}', { params: { path: { name: x.name } } }));
                  await client.invalidateQueries({ queryKey: ['access'] });
                }}>{t('Programs that use it are refused at once.')}</Sure>
              ) },
            ]}
            empty={<Empty>{t('There is no token yet.')}</Empty>}
          />
        )}
      </Asked>
      {isMaking && <NewToken onClose={() => setMaking(false)} onMade={(token) => { setMade(token); setMaking(false); void client.invalidateQueries({ queryKey: ['access'] }); }} />}
    </Stack>
  );
}

function NewToken({ onClose, onMade }: { onClose: () => void; onMade: (token: Schemas['Token']) => void }) {
  const { t } = useWords();
  const roles = useRoles();
  const [name, setName] = useState('');
  const [role, setRole] = useState('viewer');
  const [days, setDays] = useState<string | number>('');
  const [error, setError] = useState<unknown>();
  const make = async (event: FormEvent) => {
    event.preventDefault();
    setError(undefined);
    try {
      onMade(await ok(api.POST('/api/v1/access/tokens', { body: { name, role: role as Role, ...(days !== '' && { days: Number(days) }) } })));
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t('New token')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void make(event)}>
        <Stack>
          <TextInput label={t('Name')} required value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <NativeSelect label={t('Role')} data={roles} value={role} onChange={(e) => setRole(e.currentTarget.value)} />
          <NumberInput label={t('Valid for days')} description={t('Empty: until it is deleted')} min={1} max={3650} value={days} onChange={setDays} />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit">{t('Make the token')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}

function Sessions() {
  const { t } = useWords();
  const client = useQueryClient();
  const sessions = useQuery({ queryKey: ['access', 'sessions'], queryFn: () => ok(api.GET('/api/v1/access/sessions')), refetchInterval: 10000 });
  return (
    <Asked query={sessions}>
      {({ items }) => (
        <Rows
          label={t('Sessions')} rows={items} id={(session) => session.id}
          columns={[
            { name: t('User'), cell: (s) => <>{s.user} {s.own && <Badge variant="light" color="blue">{t('this one')}</Badge>}</> },
            { name: t('Last used'), cell: (s) => <Ago ms={s.seen} /> },
            { name: t('Signed in'), cell: (s) => <Time ms={s.created} /> },
            { name: t('Ends'), cell: (s) => <Time ms={s.ends} /> },
            { name: t('Address'), cell: (s) => <span className="mono">{s.address}</span> },
            { name: t('Browser'), cell: (s) => <Text size="xs" span>{s.agent}</Text> },
            { name: t('Do'), cell: (s) => (
              <Sure size="compact-sm" label={t('End')} title={t('End the session of {name}?', { name: s.user })} onSure={async () => {
                await ok(api.DELETE('/api/v1/access/sessions/{id}', { params: { path: { id: s.id } } }));
                await client.invalidateQueries({ queryKey: s.own ? ['me'] : ['access'] });
              }}>{t('The browser has to sign in again.')}</Sure>
            ) },
          ]}
        />
      )}
    </Asked>
  );
}

function Audit() {
  const { t } = useWords();
  const filters = useFilters();
  const [selected, setSelected] = useState<Schemas['Deed']>();
  const [author, action, text, from, to] = ['author', 'action', 'text', 'from', 'to'].map(filters.get) as [string, string, string, string, string];
  const query = { ...(author && { author }), ...(action && { action }), ...(text && { text }), ...(from && { from }), ...(to && { to }) };
  const deeds = useInfiniteQuery({
    queryKey: ['access', 'audit', query],
    queryFn: ({ pageParam }) => ok(api.GET('/api/v1/access/audit', { params: { query: { ...query, limit: 100, ...(pageParam && { cursor: Number(pageParam) }) } } })),
    initialPageParam: '',
    getNextPageParam: (last) => last.next ?? undefined,
  });
  return (
    <Stack>
      <Group>
        <FilterText label={t('Who')} value={author} onChange={(author) => filters.set({ author })} />
        <FilterText label={t('Action')} value={action} onChange={(action) => filters.set({ action })} placeholder="device created" />
        <FilterText label={t('Contains')} value={text} onChange={(text) => filters.set({ text })} />
        <FilterText label={t('From')} value={from} onChange={(from) => filters.set({ from })} placeholder="2026-01-31T00:00Z" w={170} />
        <FilterText label={t('To')} value={to} onChange={(to) => filters.set({ to })} placeholder="2026-02-01T00:00Z" w={170} />
      </Group>
      <Asked query={deeds}>
        {({ pages }) => (
          <Stack>
            <Rows
              label={t('Audit trail')} rows={pages.flatMap((page) => page.items)} id={(deed) => String(deed.id)} onSelect={setSelected}
              columns={[
                { name: t('Time'), cell: (d) => <Time ms={d.time} /> },
                { name: t('Who'), cell: (d) => d.author },
                { name: t('Action'), cell: (d) => d.action },
                { name: t('Object'), cell: (d) => <span className="mono">{d.object}</span> },
                { name: t('Address'), cell: (d) => <span className="mono">{d.address ?? ''}</span> },
              ]}
              empty={<Empty>{t('Nothing in the trail fits.')}</Empty>}
            />
            {deeds.hasNextPage && <Group><Button variant="default" onClick={() => void deeds.fetchNextPage()}>{t('More')}</Button></Group>}
          </Stack>
        )}
      </Asked>
      <Drawer opened={selected !== undefined} onClose={() => setSelected(undefined)} position="right" size="lg" title={t('What was done')} closeButtonProps={{ 'aria-label': t('Close') }}>
        {selected && (
          <Stack>
            <Pairs of={[[t('Time'), <Time key="t" ms={selected.time} exact />], [t('Who'), `${selected.author} (${selected.via})`], [t('Address'), selected.address ?? '—'], [t('Action'), selected.action], [t('Object'), selected.object]]} />
            <Told title={t('Before')} text={selected.before ?? undefined} />
            <Told title={t('After')} text={selected.after ?? undefined} />
          </Stack>
        )}
      </Drawer>
    </Stack>
  );
}

function Told({ title, text }: { title: string; text: string | undefined }) {
  if (text === undefined) return null;
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not all that is told is JSON.
  }
  return <section><Text size="sm" fw={600}>{title}</Text><pre className="mono pre" tabIndex={0} aria-label={title}>{shown}</pre></section>;
}
