// Access keys: which application may read a subscription, and what it signs with.
import { Alert, Anchor, Badge, Button, Drawer, Group, Modal, NumberInput, Stack, Text, TextInput, Textarea } from '@mantine/core';
import { useInfiniteQuery, useQueryClient } from '@tanstack/react-query';
import { useState, type FormEvent } from 'react';
import { Link } from 'react-router';
import { api, ok, type Schemas } from '../api/client';
import type { AccessKeyFile, Page as PageOf } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Asked, Copied, Copy, Empty, FilterText, Page, Sure, useFilters } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { Rows } from '../ui/rows';
import { declare } from './declare';
import { useStandings } from './subscriptions';

export default function AccessKeys() {
  const { t } = useWords();
  const filters = useFilters();
  const may = useMay('operator');
  const name = filters.get('name');
  const shown = filters.get('key');
  const standings = useStandings();
  const keys = useInfiniteQuery({
    queryKey: ['access-keys', name],
    queryFn: async ({ pageParam }) => (await ok(api.GET('/api/v1/access-keys', { params: { query: { limit: 200, ...(name && { name }), ...(pageParam && { cursor: pageParam }) } } }))) as unknown as PageOf<AccessKeyFile>,
    initialPageParam: '',
    getNextPageParam: (last) => last.next,
  });
  const usedBy = (key: string) => (standings.data ?? []).filter((one) => one.accessKey === key).length;
  const make = may && <Button onClick={() => filters.set({ new: '1' })}>{t('New access key')}</Button>;
  return (
    <Page title={t('Access keys')} about={t('An application signs its login with an access key and its secret. A key opens the subscriptions that name it.')} actions={make}>
      <Group><FilterText label={t('Name contains')} value={name} onChange={(name) => filters.set({ name })} /></Group>
      <Asked query={keys}>
        {({ pages }) => (
          <Rows
            label={t('Access keys')} rows={pages.flatMap((page) => page.items)} id={(key) => key.name}
            columns={[
              { name: t('Name'), cell: (k) => k.name },
              { name: t('Access key'), cell: (k) => <Group gap="xs" wrap="nowrap"><span className="mono">{k.key}</span><Copy value={k.key ?? ''} label={t('Copy {what}', { what: k.name })} /></Group> },
              { name: t('Subscriptions'), right: true, cell: (k) => <Anchor component={Link} to={`/subscriptions?accessKey=${encodeURIComponent(k.name)}`}>{usedBy(k.name)}</Anchor> },
              { name: t('Description'), cell: (k) => k.description ?? '' },
              { name: t('Secret'), cell: (k) => <Button size="compact-sm" variant="default" onClick={() => filters.set({ key: k.name })}>{t('Secret of {name}', { name: k.name })}</Button> },
            ]}
            empty={<Empty action={make}>{name ? t('No access key fits the filters.') : t('There is no access key yet.')}</Empty>}
          />
        )}
      </Asked>
      {keys.hasNextPage && <Button variant="default" onClick={() => void keys.fetchNextPage()}>{t('More')}</Button>}
      {filters.get('new') && <NewKey onClose={() => filters.set({ new: null })} />}
      <Drawer opened={shown !== ''} onClose={() => filters.set({ key: null })} position="right" size="lg" title={t('Access key {name}', { name: shown })} closeButtonProps={{ 'aria-label': t('Close') }}>
        {shown && <Key key={shown} name={shown} onDeleted={() => filters.set({ key: null })} />}
      </Drawer>
    </Page>
  );
}

function NewKey({ onClose }: { onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const filters = useFilters();
  const [name, setName] = useState('');
  const [description, setDescription] = useState('');
  const [error, setError] = useState<unknown>();
  const make = async (event: FormEvent) => {
    event.preventDefault();
    setError(undefined);
    try {
      await declare(client, [{ kind: 'AccessKey', name, ...(description && { description }) }], 'new');
      filters.set({ new: null, key: name });
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t('New access key')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => void make(event)}>
        <Stack>
          <TextInput label={t('Name')} description={t('Such as the application that reads; key and secret are generated')} required value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <Textarea label={t('Description')} value={description} onChange={(e) => setDescription(e.currentTarget.value)} autosize />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit">{t('Make the access key')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}

function Key({ name, onDeleted }: { name: string; onDeleted: () => void }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  return (
    <Stack>
      <Text size="sm">{t('Showing the secret leaves an entry in the audit trail.')}</Text>
      <Revealed name={name} isManaged />
      {may && (
        <Group>
          <Sure label={t('Delete')} title={t('Delete {name}?', { name })} onSure={async () => {
            await ok(api.DELETE('/api/v1/access-keys/{name}', { params: { path: { name } } }));
            await client.invalidateQueries();
            onDeleted();
          }}>{t('A key that a subscription names cannot be deleted: revoke it instead.')}</Sure>
        </Group>
      )}
    </Stack>
  );
}

/** Key and secret, on demand; where they are managed, a new secret or none at all. */
export function Revealed({ name, isManaged = false, onShown }: { name: string; isManaged?: boolean; onShown?: (credential: Schemas['Credential']) => void }) {
  const { t } = useWords();
  const isAdmin = useMay('admin');
  const [credential, setCredential] = useState<Schemas['Credential']>();
  const [error, setError] = useState<unknown>();
  const [hours, setHours] = useState<string | number>(24);
  const path = { path: { name } };
  const show = (credential: Schemas['Credential']) => {
    setCredential(credential);
    onShown?.(credential);
  };
  const reveal = async () => {
    setError(undefined);
    try {
      show(await ok(api.GET('/api/v1/access-keys/{name}/credential', { params: path })));
    } catch (error) {
      setError(error);
    }
  };
  if (!isAdmin) return <Text size="sm" className="quiet">{t('Only an admin can see them.')}</Text>;
  return (
    <Stack>
      {!credential && <Group><Button onClick={() => void reveal()}>{t('Show key and secret')}</Button></Group>}
      {credential && (
        <>
          <Copied label={t('Access key')} value={credential.accessKey} />
          {credential.accessSecret
            ? <Copied label={t('Access secret')} value={credential.accessSecret} />
            : <Alert color="orange" variant="light" title={t('Revoked')}>{t('Nobody logs in with this key until it has a new secret.')}</Alert>}
          {credential.previousSecretValidUntil && <Text size="sm"><Badge color="blue" variant="light">{t('overlap')}</Badge> {t('The secret before this one is valid until {time}.', { time: credential.previousSecretValidUntil })}</Text>}
        </>
      )}
      <ProblemAlert error={error} />
      {isManaged && (
        <Group align="flex-end">
          <Sure label={t('New secret…')} color="cyan" title={t('A new secret for {name}', { name })} onSure={async () => {
            show(await ok(api.POST('/api/v1/access-keys/{name}/rotate', { params: { ...path, query: { overlapSeconds: Math.round(Number(hours) * 3600) } } })));
            tell(t('The secret is new.'));
          }}>
            <Stack gap="xs">
              {t('Applications need the new secret. The old one opens for as long as the overlap lasts.')}
              <NumberInput label={t('Overlap in hours')} min={0} max={8760} value={hours} onChange={setHours} />
            </Stack>
          </Sure>
          <Sure label={t('Revoke')} title={t('Revoke {name}?', { name })} onSure={async () => show(await ok(api.POST('/api/v1/access-keys/{name}/revoke', { params: path })))}>
            {t('Its sessions end within a second, and nobody logs in with it until it has a new secret.')}
          </Sure>
        </Group>
      )}
    </Stack>
  );
}
