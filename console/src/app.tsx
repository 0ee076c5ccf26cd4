// The frame of the console: who is signed in, the menu, and the screen of the address.
import { AppShell, Badge, Burger, Button, Group, Menu, Modal, NavLink, PasswordInput, Select, Stack, Text, UnstyledButton, useMantineColorScheme } from '@mantine/core';
import { useDisclosure, useHotkeys } from '@mantine/hooks';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, createContext, lazy, useContext, useDeferredValue, useEffect, useState, type FormEvent } from 'react';
import { Link, Route, Routes, useLocation } from 'react-router';
import { Problem, api, ok, setCsrf, whenSignedOut, type Schemas } from './api/client';
import { useWords } from './i18n';
import { SignIn } from './screens/signin';
import { useZone } from './time';
import { Empty, Waiting } from './ui/page';
import { ProblemAlert, tellProblem } from './ui/problem';

const Find = lazy(() => import('./ui/find'));
const Overview = lazy(() => import('./screens/overview'));
const Channels = lazy(() => import('./screens/channels'));
const Channel = lazy(() => import('./screens/channel'));
const Models = lazy(() => import('./screens/models'));
const Model = lazy(() => import('./screens/model'));
const Products = lazy(() => import('./screens/products'));
const Devices = lazy(() => import('./screens/devices'));
const Device = lazy(() => import('./screens/device'));
const Quarantine = lazy(() => import('./screens/quarantine'));
const History = lazy(() => import('./screens/history'));
const Scripts = lazy(() => import('./screens/scripts'));
const Script = lazy(() => import('./screens/script'));
const Subscriptions = lazy(() => import('./screens/subscriptions'));
const Subscription = lazy(() => import('./screens/subscription'));
const Policies = lazy(() => import('./screens/policies'));
const Policy = lazy(() => import('./screens/policy'));
const NewPolicy = lazy(async () => ({ default: (await import('./screens/policy')).NewPolicy }));
const Kafka = lazy(() => import('./screens/kafka'));
const Rules = lazy(() => import('./screens/rules'));
const Rule = lazy(() => import('./screens/rule'));
const NewRule = lazy(async () => ({ default: (await import('./screens/rule')).NewRule }));
const Imports = lazy(() => import('./screens/imports'));
const ImportPage = lazy(async () => ({ default: (await import('./screens/imports')).ImportPage }));
const NewImport = lazy(() => import('./screens/import-form'));
const Archives = lazy(() => import('./screens/archives'));
const Archive = lazy(() => import('./screens/archive'));
const NewArchive = lazy(async () => ({ default: (await import('./screens/archive')).NewArchive }));
const Rollups = lazy(() => import('./screens/rollups'));
const Sql = lazy(() => import('./screens/sql'));
const AccessKeys = lazy(() => import('./screens/access-keys'));
const Storage = lazy(() => import('./screens/storage'));
const Access = lazy(() => import('./screens/access'));

export type Me = Schemas['Me'];
const MeContext = createContext<Me | undefined>(undefined);

export function useMe(): Me {
  const me = useContext(MeContext);
  if (!me) throw new Error('nobody is signed in');
  return me;
}

/** Whether the user's role is that or more. */
export function useMay(role: 'operator' | 'admin'): boolean {
  const own = useMe().role;
  return own === 'admin' || own === role;
}

export function App() {
  const client = useQueryClient();
  const me = useQuery({
    queryKey: ['me'],
    queryFn: async () => {
      const me = await ok(api.GET('/api/v1/access/me'));
      setCsrf(me.csrf ?? undefined);
      return me;
    },
    staleTime: Infinity,
  });
  useEffect(() => whenSignedOut(() => void client.invalidateQueries({ queryKey: ['me'] })), [client]);
  if (me.isPending) return <Waiting />;
  if (me.error && Problem.from(me.error).status === 401) {
    // What the one before was told is not for this one.
    const start = () => {
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== 'me' });
      void me.refetch();
    };
    return <SignIn onSignedIn={start} />;
  }
  if (me.error || !me.data) return <ProblemAlert error={me.error} />;
  return (
    <MeContext value={me.data}>
      <Frame />
    </MeContext>
  );
}

function Frame() {
  const { t } = useWords();
  const location = useLocation();
  const { pathname } = location;
  // A screen stays until the next one is there; within a screen the address is followed at once.
  const drawn = useDeferredValue(location);
  const shown = drawn.pathname === pathname ? location : drawn;
  const [isOpen, { toggle, close }] = useDisclosure();
  const isAdmin = useMay('admin');
  const [isFinding, finding] = useDisclosure();
  useHotkeys([['mod+K', finding.open]], []);
  useEffect(close, [pathname, close]);
  const screens: { to: string; label: string }[] = [];
  const link = (to: string, label: string) => {
    screens.push({ to, label });
    const isHere = to === '/' ? pathname === '/' : pathname === to || pathname.startsWith(`${to}/`);
    return <NavLink key={to} component={Link} to={to} label={label} active={isHere} aria-current={isHere ? 'page' : undefined} variant="light" color="gray" py={5} styles={{ label: { color: 'inherit' } }} />;
  };
  const head = (text: string) => <Text size="xs" className="quiet" tt="uppercase" fw={700} mt="sm" mb={4} px="sm" component="h2">{text}</Text>;
  return (
    <AppShell header={{ height: 52 }} navbar={{ width: 220, breakpoint: 'sm', collapsed: { mobile: !isOpen } }} padding="md">
      <a className="skip" href="#main">{t('Skip to content')}</a>
      <AppShell.Header>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger opened={isOpen} onClick={toggle} hiddenFrom="sm" size="sm" aria-label={t('Menu')} />
            <img src="/favicon.svg" alt="" width={26} height={26} />
            <Text fw={700} component={Link} to="/" c="inherit" td="none">Backtide</Text>
          </Group>
          <Group gap="xs" wrap="nowrap">
            <Button size="xs" variant="default" onClick={finding.open} visibleFrom="xs" aria-keyshortcuts="Control+K">{t('Find…')} <Text span size="xs" className="quiet" ml={6} aria-hidden>Ctrl K</Text></Button>
            <Settings />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs" component="nav" aria-label={t('Menu')} style={{ overflowY: 'auto' }}>
        {link('/', t('Overview'))}
        {head(t('Device Management'))}
        {link('/channels', t('Message Integration'))}
        {link('/models', t('Models'))}
        {link('/products', t('Products'))}
        {link('/devices', t('Devices'))}
        {link('/scripts', t('Scripts'))}
        {head(t('Data'))}
        {link('/history', t('History'))}
        {link('/sql', 'SQL')}
        {link('/quarantine', t('Quarantine'))}
        {link('/policies', t('Policies'))}
        {link('/rollups', t('Rollups'))}
        {link('/imports', t('Imports'))}
        {link('/archives', t('Archives'))}
        {head(t('Forwarding'))}
        {link('/rules', t('Rules'))}
        {link('/kafka', 'Kafka')}
        {link('/subscriptions', t('Subscriptions'))}
        {link('/access-keys', t('Access keys'))}
        {head(t('Administration'))}
        {link('/storage', t('Storage'))}
        {isAdmin && link('/access', t('Access'))}
      </AppShell.Navbar>
      {isFinding && <Suspense><Find screens={screens} onClose={finding.close} /></Suspense>}
      <AppShell.Main id="main" tabIndex={-1} style={{ outline: 'none' }}>
        <Suspense fallback={<Waiting />}>
          <Routes location={shown}>
            <Route path="/" element={<Overview />} />
            <Route path="/channels" element={<Channels />} />
            <Route path="/channels/:name/:tab?" element={<Channel />} />
            <Route path="/models" element={<Models />} />
            <Route path="/models/:name" element={<Model />} />
            <Route path="/products" element={<Products />} />
            <Route path="/devices" element={<Devices />} />
            <Route path="/devices/:product/:name" element={<Device />} />
            <Route path="/quarantine" element={<Quarantine />} />
            <Route path="/history" element={<History />} />
            <Route path="/scripts" element={<Scripts />} />
            <Route path="/scripts/:name/:tab?" element={<Script />} />
            <Route path="/policies" element={<Policies />} />
            <Route path="/new-policy" element={<NewPolicy />} />
            <Route path="/policies/:name" element={<Policy />} />
            <Route path="/rollups" element={<Rollups />} />
            <Route path="/imports" element={<Imports />} />
            <Route path="/imports/:id" element={<ImportPage />} />
            <Route path="/new-import" element={<NewImport />} />
            <Route path="/archives" element={<Archives />} />
            <Route path="/archives/:name/:tab?" element={<Archive />} />
            <Route path="/new-archive" element={<NewArchive />} />
            <Route path="/sql" element={<Sql />} />
            <Route path="/kafka" element={<Kafka />} />
            <Route path="/rules" element={<Rules />} />
            <Route path="/new-rule" element={<NewRule />} />
            <Route path="/rules/:name/:tab?" element={<Rule />} />
            <Route path="/subscriptions" element={<Subscriptions />} />
            <Route path="/subscriptions/:name/:tab?" element={<Subscription />} />
            <Route path="/access-keys" element={<AccessKeys />} />
            <Route path="/storage" element={<Storage />} />
            <Route path="/access/:tab?" element={<Access />} />
            <Route path="*" element={<Empty action={<Button component={Link} to="/">{t('Overview')}</Button>}>{t('There is no such page.')}</Empty>} />
          </Routes>
        </Suspense>
      </AppShell.Main>
    </AppShell>
  );
}

const SYSTEM_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const ZONES = ['UTC', ...Intl.supportedValuesOf('timeZone').filter((zone) => zone !== 'UTC')];

function Settings() {
  const { t, language, setLanguage } = useWords();
  const { zone, setZone } = useZone();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const me = useMe();
  const [search, setSearch] = useState('');
  const [isChanging, setChanging] = useState(false);
  const client = useQueryClient();
  const signOut = async () => {
    try {
      await ok(api.POST('/api/v1/access/sign-out'));
      setCsrf(undefined);
      await client.resetQueries({ queryKey: ['me'] });
    } catch (error) {
      tellProblem(error);
    }
  };
  return (
    <Group gap="xs" wrap="nowrap">
      <Select
        aria-label={t('Time zone')} size="xs" w={170} visibleFrom="xs" searchable allowDeselect={false}
        data={[...new Set([zone, 'UTC', SYSTEM_ZONE, ...(search ? ZONES : [])])]} searchValue={search} onSearchChange={setSearch} limit={30}
        value={zone} onChange={(zone) => zone && setZone(zone)}
      />
      <Select
        aria-label={t('Language')} size="xs" w={100} visibleFrom="xs" allowDeselect={false}
        data={[{ value: 'en', label: 'English' }, { value: 'zh', label: '中文' }]}
        value={language} onChange={(language) => setLanguage(language === 'zh' ? 'zh' : 'en')}
      />
      <Select
        aria-label={t('Colours')} size="xs" w={100} visibleFrom="xs" allowDeselect={false}
        data={[{ value: 'auto', label: t('System') }, { value: 'light', label: t('Light') }, { value: 'dark', label: t('Dark') }]}
        value={colorScheme} onChange={(scheme) => setColorScheme((scheme ?? 'auto') as 'auto' | 'light' | 'dark')}
      />
      <Menu position="bottom-end" withinPortal>
        <Menu.Target>
          <UnstyledButton px="xs">
            <Group gap={6} wrap="nowrap"><Text size="sm">{me.name}</Text><Badge size="sm" variant="default">{{ viewer: t('viewer'), operator: t('operator'), admin: t('admin') }[me.role]}</Badge></Group>
          </UnstyledButton>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item component="a" href="/api/openapi.json">{t('API description')}</Menu.Item>
          {me.via === 'session' && <Menu.Item onClick={() => setChanging(true)}>{t('Change password')}</Menu.Item>}
          <Menu.Item onClick={() => void signOut()}>{t('Sign out')}</Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {isChanging && <ChangePassword onClose={() => setChanging(false)} />}
    </Group>
  );
}

function ChangePassword({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const [current, setCurrent] = useState('');
  const [next, setNext] = useState('');
  const [error, setError] = useState<unknown>();
  const change = async (event: FormEvent) => {
    event.preventDefault();
    setError(undefined);
    try {
      await ok(api.PUT('/api/v1/access/password', { body: { current, new: next } }));
      await client.resetQueries({ queryKey: ['me'] });
    } catch (error) {
      setError(error);
    }
  };
  const show = { 'aria-label': t('Show the password') };
  return (
    <Modal opened onClose={onClose} title={t('Change password')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void change(event)}>
        <Stack>
          <Text size="sm">{t('Your sessions end; sign in with the new password.')}</Text>
          <PasswordInput label={t('Password')} required autoComplete="current-password" value={current} onChange={(e) => setCurrent(e.currentTarget.value)} visibilityToggleButtonProps={show} />
          <PasswordInput label={t('New password')} description={t('At least 10 characters')} required minLength={10} autoComplete="new-password" value={next} onChange={(e) => setNext(e.currentTarget.value)} visibilityToggleButtonProps={show} />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit">{t('Change password')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}
