// What screens are made of: a head, figures that lead to their lists, texts to copy, states.
import { ActionIcon, Badge, Box, Button, Card, CopyButton, Group, Loader, Modal, Stack, Text, TextInput, Title, Tooltip } from '@mantine/core';
import { useEffect, useRef, useState, type ReactNode } from 'react';
import { Link, useSearchParams } from 'react-router';
import { useWords } from '../i18n';
import { ProblemAlert } from './problem';
import { useWork } from './work';

export function Page({ title, about, actions, children }: { title: string; about?: string; actions?: ReactNode; children: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Backtide`;
  }, [title]);
  return (
    <Stack gap="md">
      <Group justify="space-between" align="flex-start">
        <Box>
          <Title order={1} size="h2">{title}</Title>
          {about && <Text size="sm" className="quiet" maw={760}>{about}</Text>}
        </Box>
        <Group gap="xs">{actions}</Group>
      </Group>
      {children}
    </Stack>
  );
}

/** A figure that leads to the list behind it, as the whole card does; links in its detail lead elsewhere. */
export function Stat({ label, value, detail, to, tone }: { label: string; value: ReactNode; detail?: ReactNode; to: string; tone?: 'bad' | 'warn' | undefined }) {
  const color = tone === 'bad' ? 'light-dark(#a61e1e, #ffa8a8)' : tone === 'warn' ? 'light-dark(#8a4b00, #ffd43b)' : undefined;
  return (
    <Card withBorder padding="sm" className="stat">
      <Link to={to} className="stat-link">
        <Text size="sm" className="quiet">{label}</Text>
        <Text fz={26} fw={600} className="numbers" c={color ?? 'inherit'}>{value}</Text>
      </Link>
      {detail && <Text size="xs" className="quiet stat-detail" component="div">{detail}</Text>}
    </Card>
  );
}

export function Waiting({ what }: { what?: string }) {
  const { t } = useWords();
  return (
    <Group gap="xs" role="status"><Loader size="xs" aria-hidden /><Text size="sm">{what ?? t('Loading…')}</Text></Group>
  );
}

/** What a question came to: waiting, a refusal, or its answer. */
export function Asked<T>({ query, children }: { query: { data?: T | undefined; error: unknown; isPending: boolean }; children: (data: T) => ReactNode }) {
  if (query.data !== undefined) return <>{children(query.data)}</>;
  if (query.error) return <ProblemAlert error={query.error} />;
  return <Waiting />;
}

export function Empty({ children, action }: { children: ReactNode; action?: ReactNode }) {
  return (
    <Card withBorder padding="xl"><Stack align="center" gap="sm"><Text className="quiet" ta="center">{children}</Text>{action}</Stack></Card>
  );
}

export function State({ state }: { state: string }) {
  const { t } = useWords();
  const color = { open: 'green', paused: 'gray', held: 'orange', running: 'green', done: 'green', cancelled: 'gray', stopped: 'gray', failed: 'red', idle: 'blue', failing: 'red', complete: 'green', interrupted: 'orange', current: 'green', behind: 'blue', backfilling: 'blue' }[state] ?? 'gray';
  const words: Record<string, string> = {
    open: t('open'), paused: t('paused'), held: t('held'), running: t('running'), done: t('done'), cancelled: t('cancelled'), stopped: t('stopped'), failed: t('failed'), idle: t('idle'), failing: t('delivery fails'), complete: t('complete'), interrupted: t('interrupted'), current: t('current'), behind: t('behind'), backfilling: t('computing what was stored'),
  };
  return <Badge color={color} variant="light">{words[state] ?? state}</Badge>;
}

/** A text to copy, with its name. */
export function Copied({ label, value, shown }: { label: string; value: string; shown?: string }) {
  const { t } = useWords();
  return (
    <Group gap="xs" wrap="nowrap" align="flex-end">
      <TextInput label={label} value={shown ?? value} readOnly flex={1} styles={{ input: { fontFamily: 'ui-monospace, monospace' } }} />
      <Copy value={value} label={t('Copy {what}', { what: label })} />
    </Group>
  );
}

export function Copy({ value, label }: { value: string; label: string }) {
  const { t } = useWords();
  return (
    <CopyButton value={value}>
      {({ copied, copy }) => (
        <Tooltip label={copied ? t('Copied') : label}>
          <ActionIcon variant="default" size={36} onClick={copy} aria-label={label}>
            <svg width={16} height={16} viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth={1.4} aria-hidden>
              {copied ? <path d="M3 8.5l3.2 3.2L13 4.8" /> : <path d="M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z" />}
            </svg>
          </ActionIcon>
        </Tooltip>
      )}
    </CopyButton>
  );
}

export function Snippet({ title, text }: { title: string; text: string }) {
  const { t } = useWords();
  return (
    <Box>
      <Group justify="space-between"><Text size="sm" fw={600}>{title}</Text><Copy value={text} label={t('Copy {what}', { what: title })} /></Group>
      <pre className="mono pre" tabIndex={0} aria-label={title}>{text}</pre>
    </Box>
  );
}

/** Asks before something that cannot be taken back. */
export function Sure({ label, title, children, color = 'red', variant = 'light', disabled, onSure, size = 'sm' }: {
  label: string; title: string; children: ReactNode; color?: string; variant?: string; disabled?: boolean; size?: string; onSure: () => Promise<unknown>;
}) {
  const { t } = useWords();
  const [isOpen, setOpen] = useState(false);
  const { busy, error, work } = useWork();
  const sure = () => work(async () => {
    await onSure();
    setOpen(false);
  });
  return (
    <>
      <Button color={color} variant={variant} size={size} disabled={disabled ?? false} onClick={() => setOpen(true)}>{label}</Button>
      <Modal opened={isOpen} onClose={() => setOpen(false)} title={title} closeButtonProps={{ 'aria-label': t('Close') }}>
        <Stack>
          <Text size="sm" component="div">{children}</Text>
          <ProblemAlert error={error} />
          <Group justify="flex-end">
            <Button variant="default" onClick={() => setOpen(false)}>{t('Cancel')}</Button>
            <Button color={color} loading={busy} onClick={() => void sure()}>{label}</Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}

/** Filters of a list, kept in the address: a link shows the same list. */
export function useFilters() {
  const [params, setParams] = useSearchParams();
  const set = (changes: Record<string, string | null | undefined>) => {
    // The address itself, not what was drawn of it: of two changes at once none is lost.
    const after = new URLSearchParams(window.location.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value) after.set(name, value);
      else after.delete(name);
    }
    setParams(after, { replace: true });
  };
  return { get: (name: string) => params.get(name) ?? '', set };
}

/** A text field of a filter: told when typing pauses. */
export function FilterText({ label, value, onChange, placeholder, w }: { label: string; value: string; onChange: (value: string) => void; placeholder?: string; w?: number }) {
  const [text, setText] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => setText(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <TextInput
      label={label} size="sm" value={text} placeholder={placeholder ?? ''} w={w ?? 200}
      onChange={(event) => {
        const next = event.currentTarget.value;
        setText(next);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => onChange(next), 250);
      }}
    />
  );
}

/** The last hours as bars. */
export function Sparkline({ hours, label }: { hours: { time: number; messages: number; refused: number }[]; label: string }) {
  const most = Math.max(1, ...hours.map((hour) => hour.messages));
  const last = hours.at(-1)?.time ?? 0;
  return (
    <svg width={24 * 4} height={20} role="img" aria-label={label}>
      {hours.map((hour) => {
        const x = (23 - (last - hour.time) / 3_600_000) * 4;
        const height = Math.max(1, (hour.messages / most) * 20);
        const bad = (hour.refused / Math.max(1, hour.messages)) * height;
        return (
          <g key={hour.time}>
            <rect x={x} y={20 - height} width={3} height={height} fill="var(--mantine-primary-color-filled)" />
            {bad > 0 && <rect x={x} y={20 - bad} width={3} height={bad} fill="var(--mantine-color-red-6)" />}
          </g>
        );
      })}
    </svg>
  );
}

export function Pairs({ of }: { of: [string, ReactNode][] }) {
  return (
    <dl style={{ display: 'grid', gridTemplateColumns: 'max-content 1fr', gap: '0.3rem 1rem', margin: 0 }}>
      {of.map(([name, value]) => (
        <Box key={name} style={{ display: 'contents' }}>
          <dt className="quiet">{name}</dt>
          <dd style={{ margin: 0, overflowWrap: 'anywhere' }}>{value}</dd>
        </Box>
      ))}
    </dl>
  );
}
