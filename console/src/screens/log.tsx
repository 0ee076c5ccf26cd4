// What happened on a channel: connections, transmissions, errors; as it happens if one likes.
import { Anchor, Button, Drawer, Group, NumberInput, Select, Stack, Switch, Text, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { Link } from 'react-router';
import { api, download, lines, ok } from '../api/client';
import type { LogEntry, Page } from '../api/types';
import { useWords } from '../i18n';
import { Time, bytes } from '../time';
import { Asked, Empty, FilterText, Pairs, useFilters } from '../ui/page';
import { Code, ProblemAlert } from '../ui/problem';
import { Rows } from '../ui/rows';

const SHOWN = 200;

export default function Log({ name }: { name: string }) {
  const { t } = useWords();
  const filters = useFilters();
  const [kind, code, text, from, to] = ['kind', 'code', 'text', 'from', 'to'].map(filters.get) as [string, string, string, string, string];
  const isLive = filters.get('live') !== '';
  const query = { ...(kind && { kind }), ...(code && { code: Number(code) }), ...(text && { text }), ...(from && { from }), ...(to && { to }) };
  const [tail, setTail] = useState<LogEntry[]>([]);
  const [error, setError] = useState<unknown>();
  const [selected, setSelected] = useState<LogEntry>();
  const listed = useQuery({
    queryKey: ['log', name, query],
    queryFn: async () => (await ok(api.GET('/api/v1/channels/{name}/log', { params: { path: { name }, query: { ...query, limit: SHOWN, tail: true } } }))) as unknown as Page<LogEntry>,
    enabled: !isLive,
  });
  const asked = new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)]));
  const address = `/api/v1/channels/${encodeURIComponent(name)}/log?${asked}`;
  useEffect(() => {
    if (!isLive) return;
    const stop = new AbortController();
    setTail([]);
    setError(undefined);
    const follow = async () => {
      for (;;) {
        try {
          for await (const entry of lines<LogEntry>(`${address}&follow=true&tail=true&limit=${SHOWN}`, { signal: stop.signal })) {
            setTail((tail) => (tail.some((known) => known.id === entry.id) ? tail : [...tail.slice(1 - SHOWN), entry]));
          }
        } catch (error) {
          if (stop.signal.aborted) return;
          if (!(error instanceof TypeError)) {
            setError(error);
            return;
          }
        }
        // The gateway is away or starts again: asked once more after a while.
        await new Promise((next) => setTimeout(next, 1000));
        if (stop.signal.aborted) return;
      }
    };
    void follow();
    return () => stop.abort();
  }, [isLive, address]);
  const shown = (entries: LogEntry[]) => (
    <Rows
      label={t('Log')} rows={entries.toReversed()} id={(entry) => String(entry.id)} onSelect={setSelected}
      columns={[
        { name: t('Time'), cell: (entry) => <Time ms={entry.time} exact /> },
        { name: t('Kind'), cell: (entry) => <Kind kind={entry.kind} /> },
        { name: t('Code'), cell: (entry) => <Code code={entry.code} /> },
        { name: t('What'), cell: (entry) => <Text size="sm" span style={{ overflowWrap: 'anywhere' }}>{said(entry, t)}</Text> },
        { name: t('Client'), cell: (entry) => <span className="mono word">{entry.clientId.split('|')[0]}</span> },
      ]}
      empty={<Empty>{isLive ? t('Waiting for what happens…') : t('Nothing in the log fits.')}</Empty>}
    />
  );
  return (
    <Stack>
      <Group align="flex-end">
        <Select
          label={t('Kind')} w={170} clearable value={kind || null} onChange={(kind) => filters.set({ kind })}
          data={[
            { value: 'connection', label: t('connections') }, { value: 'transmission', label: t('transmissions') },
            { value: 'error', label: t('errors') }, { value: 'audit', label: t('audit') },
          ]}
        />
        <NumberInput label={t('Code')} w={100} hideControls value={code} onChange={(code) => filters.set({ code: String(code) })} />
        <FilterText label={t('Contains')} value={text} onChange={(text) => filters.set({ text })} />
        <FilterText label={t('From')} value={from} onChange={(from) => filters.set({ from })} placeholder="2026-01-31T00:00Z" w={170} />
        <FilterText label={t('To')} value={to} onChange={(to) => filters.set({ to })} placeholder="2026-02-01T00:00Z" w={170} />
        <Switch label={t('Live')} checked={isLive} onChange={(e) => filters.set({ live: e.currentTarget.checked ? '1' : null })} mb={8} />
        <Button variant="default" onClick={() => download(`${address}&follow=false&limit=10000&tail=true`)}>{t('Export')}</Button>
      </Group>
      <ProblemAlert error={error} />
      {isLive ? shown(tail) : <Asked query={listed}>{(page) => shown(page.items)}</Asked>}
      <Text size="xs" className="quiet">{t('The last {n} entries that fit. Entries stay for 14 days unless the gateway is configured otherwise.', { n: SHOWN })}</Text>
      <Drawer opened={selected !== undefined} onClose={() => setSelected(undefined)} position="right" size="lg" title={t('Log entry')} closeButtonProps={{ 'aria-label': t('Close') }}>
        {selected && (
          <Stack>
            <Pairs of={Object.entries(selected).map(([key, value]) => [key, key === 'time' ? <Time key={key} ms={value as number} exact /> : <span key={key} className="mono">{String(value)}</span>])} />
            {selected.receipt && <Anchor component={Link} to={`/channels/${encodeURIComponent(name)}/messages?receipt=${encodeURIComponent(selected.receipt)}`}>{t('Look for the message in the flight recorder')}</Anchor>}
            {selected.kind === 'error' && selected.code !== undefined && <Anchor component={Link} to={`/quarantine?channel=${encodeURIComponent(name)}&code=${selected.code}`}>{t('See what was refused for this')}</Anchor>}
            <TextInput label={t('On the command line')} readOnly value={`backtide channel log ${name}`} />
          </Stack>
        )}
      </Drawer>
    </Stack>
  );
}

function Kind({ kind }: { kind: LogEntry['kind'] }) {
  const { t } = useWords();
  const words = { connect: t('connect'), disconnect: t('disconnect'), transmission: t('transmission'), error: t('error'), audit: t('audit'), dropped: t('dropped') };
  const color = { connect: '#2f9e44', disconnect: '#868e96', transmission: '#1c7ed6', error: '#e03131', audit: '#7048e8', dropped: '#e8590c' }[kind];
  return <span style={{ whiteSpace: 'nowrap' }}><span className="dot" style={{ color }} aria-hidden />{words[kind]}</span>;
}

function said(entry: LogEntry, t: (text: string, values?: Record<string, string | number>) => string): string {
  switch (entry.kind) {
    case 'connect': return `MQTT ${entry.protocol ?? ''} · ${entry.remote ?? ''}`;
    case 'disconnect': return entry.reason ?? '';
    case 'transmission': return `${t('{n} items', { n: entry.items ?? 0 })} · ${bytes(entry.bytes ?? 0)} · ${(entry.ms ?? 0).toFixed(1)} ms`;
    default: return entry.message ?? '';
  }
}
