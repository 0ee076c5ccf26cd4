// Signing in. While there are no users, the admin token makes the first one.
import { Anchor, Button, Card, Center, Code, PasswordInput, Select, Group, Stack, Text, TextInput, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { api, ok } from '../api/client';
import { useWords } from '../i18n';
import { Asked } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { useWork } from '../ui/work';

export function SignIn({ onSignedIn }: { onSignedIn: () => void }) {
  const { t, language, setLanguage } = useWords();
  const state = useQuery({ queryKey: ['access', 'state'], queryFn: () => ok(api.GET('/api/v1/access/state')) });
  const [withToken, setWithToken] = useState<boolean>();
  useEffect(() => {
    document.title = `${t('Sign in')} · Backtide`;
  }, [t]);
  return (
    <Center mih="100vh" p="md" component="main">
      <Card withBorder w={420} padding="lg">
        <Stack>
          <Group justify="space-between">
            <Group gap="xs"><img src="/favicon.svg" alt="" width={28} height={28} /><Title order={1} size="h3">Backtide</Title></Group>
            <Select aria-label={t('Language')} size="xs" w={100} allowDeselect={false} data={[{ value: 'en', label: 'English' }, { value: 'zh', label: '中文' }]} value={language} onChange={(language) => setLanguage(language === 'zh' ? 'zh' : 'en')} />
          </Group>
          <Asked query={state}>
            {({ hasUsers }) => {
              const isFirst = withToken ?? !hasUsers;
              return (
                <>
                  {isFirst ? <ByToken isFirst={!hasUsers} onSignedIn={onSignedIn} /> : <ByPassword onSignedIn={onSignedIn} />}
                  {hasUsers && (
                    <Anchor component="button" type="button" size="sm" onClick={() => setWithToken(!isFirst)}>
                      {isFirst ? t('Sign in with name and password') : t('Password forgotten? Use the admin token')}
                    </Anchor>
                  )}
                </>
              );
            }}
          </Asked>
        </Stack>
      </Card>
    </Center>
  );
}

async function signIn(name: string, password: string) {
  await ok(api.POST('/api/v1/access/sign-in', { body: { name, password } }));
}

function ByPassword({ onSignedIn }: { onSignedIn: () => void }) {
  const { t } = useWords();
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const { busy, error, submit } = useWork();
  const enter = submit(async () => {
    await signIn(name, password);
    onSignedIn();
  });
  return (
    <form onSubmit={enter}>
      <Stack>
        <TextInput label={t('User name')} autoComplete="username" required autoFocus value={name} onChange={(e) => setName(e.currentTarget.value)} />
        <PasswordInput label={t('Password')} autoComplete="current-password" required value={password} onChange={(e) => setPassword(e.currentTarget.value)} visibilityToggleButtonProps={{ 'aria-label': t('Show the password') }} />
        <ProblemAlert error={error} />
        <Button type="submit" loading={busy}>{t('Sign in')}</Button>
      </Stack>
    </form>
  );
}

function ByToken({ isFirst, onSignedIn }: { isFirst: boolean; onSignedIn: () => void }) {
  const { t } = useWords();
  const [token, setToken] = useState('');
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const { busy, error, submit } = useWork();
  const enter = submit(async () => {
    await ok(api.PUT('/api/v1/access/users/{name}', {
      params: { path: { name } },
      body: { role: 'admin', password },
      headers: { Authorization: `Bearer ${token.trim()}` },
    }));
    await signIn(name, password);
    onSignedIn();
  });
  return (
    <form onSubmit={enter}>
      <Stack>
        <Text size="sm">
          {isFirst ? t('Nobody can sign in yet. Show the admin token, and make the first user.') : t('The admin token makes a user, or sets the password of one.')}
        </Text>
        <PasswordInput
          label={t('Admin token')} description={<>{t('The text of this file:')} <Code>admin.token</Code></>} required autoComplete="off" autoFocus
          value={token} onChange={(e) => setToken(e.currentTarget.value)} visibilityToggleButtonProps={{ 'aria-label': t('Show the token') }}
        />
        <TextInput label={t('User name')} autoComplete="username" required value={name} onChange={(e) => setName(e.currentTarget.value)} />
        <PasswordInput
          label={t('New password')} description={t('At least 10 characters')} autoComplete="new-password" required minLength={10}
          value={password} onChange={(e) => setPassword(e.currentTarget.value)} visibilityToggleButtonProps={{ 'aria-label': t('Show the password') }}
        />
        <ProblemAlert error={error} />
        <Button type="submit" loading={busy}>{t('Make the user and sign in')}</Button>
      </Stack>
    </form>
  );
}
