// Going anywhere by typing: screens, what is declared, and the message of a receipt.
import { Modal, NavLink, Stack, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { useQuery } from '@tanstack/react-query';
import { useRef, useState, type KeyboardEvent } from 'react';
import { useNavigate } from 'react-router';
import { api, ok } from '../api/client';
import { useWords } from '../i18n';

interface Place { to: string; label: string; kind: string }

const EACH = 5;
const QUIET_MS = 150;

export default function Find({ screens, onClose }: { screens: { to: string; label: string }[]; onClose: () => void }) {
  const { t } = useWords();
  const navigate = useNavigate();
  const [text, setText] = useState('');
  const [name] = useDebouncedValue(text.trim(), QUIET_MS);
  const list = useRef<HTMLDivElement>(null);
  const query = { params: { query: { name, limit: EACH } } };
  const at = encodeURIComponent;
  const found = useQuery({
    queryKey: ['find', name], enabled: name !== '',
    queryFn: async () => {
      type Named = { name: string; product?: string };
      const kinds: [string, Promise<{ items: unknown[] }>, (one: Named) => string][] = [
        [t('Channel'), ok(api.GET('/api/v1/channels', query)), (one) => `/channels/${at(one.name)}`],
        [t('Device'), ok(api.GET('/api/v1/devices', query)), (one) => `/devices/${at(one.product ?? '')}/${at(one.name)}`],
        [t('Product'), ok(api.GET('/api/v1/products', query)), (one) => `/products?name=${at(one.name)}`],
        [t('Model'), ok(api.GET('/api/v1/models', query)), (one) => `/models/${at(one.name)}`],
        [t('Script'), ok(api.GET('/api/v1/scripts', query)), (one) => `/scripts/${at(one.name)}`],
        [t('Rule'), ok(api.GET('/api/v1/rules', query)), (one) => `/rules/${at(one.name)}`],
        [t('Subscription'), ok(api.GET('/api/v1/subscriptions', query)), (one) => `/subscriptions/${at(one.name)}`],
        [t('Policy'), ok(api.GET('/api/v1/policies', query)), (one) => `/policies/${at(one.name)}`],
        [t('Archive'), ok(api.GET('/api/v1/archives', query)), (one) => `/archives/${at(one.name)}`],
        [t('Access key'), ok(api.GET('/api/v1/access-keys', query)), (one) => `/access-keys?name=${at(one.name)}`],
      ];
      const all = await Promise.all(kinds.map(async ([kind, asked, to]): Promise<Place[]> => ((await asked).items as Named[]).map((one) => ({ kind, label: one.name, to: to(one) }))));
      return all.flat();
    },
    placeholderData: (before) => before,
  });
  const own = screens.filter((screen) => screen.label.toLowerCase().includes(text.trim().toLowerCase())).map((screen) => ({ ...screen, kind: t('Screen') }));
  const isReceipt = /^[\w]+-\d+$/.test(name);
  const places: Place[] = [...own, ...(name ? (found.data ?? []) : []), ...(isReceipt ? [{ to: `/storage?receipt=${at(name)}`, label: name, kind: t('Receipt') }] : [])];
  const go = (place: Place | undefined) => {
    if (!place) return;
    onClose();
    void navigate(place.to);
  };
  // Arrows go through what was found, as in a menu.
  const move = (event: KeyboardEvent) => {
    if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
    event.preventDefault();
    const links = [...(list.current?.querySelectorAll<HTMLElement>('a') ?? [])];
    const here = links.indexOf(document.activeElement as HTMLElement);
    links[Math.min(links.length - 1, Math.max(0, here + (event.key === 'ArrowDown' ? 1 : -1)))]?.focus();
  };
  return (
    <Modal opened onClose={onClose} title={t('Find')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <div onKeyDown={move}>
        <form onSubmit={(event) => { event.preventDefault(); go(places[0]); }}>
          <TextInput label={t('Screen, name or receipt')} value={text} onChange={(e) => setText(e.currentTarget.value)} data-autofocus autoComplete="off" />
        </form>
        <Stack gap={0} mt="sm" ref={list} role="region" aria-label={t('Found')}>
          {places.slice(0, 20).map((place) => (
            <NavLink
              key={`${place.kind} ${place.to}`} href={place.to} label={place.label} rightSection={<Text size="xs" className="quiet">{place.kind}</Text>}
              onClick={(event) => { event.preventDefault(); go(place); }}
            />
          ))}
          {places.length === 0 && <Text size="sm" role="status">{t('Nothing of that name.')}</Text>}
        </Stack>
      </div>
    </Modal>
  );
}
