// The fields of a channel: how it judges, how many and how much, what a login shows, what may be refused.
import { ActionIcon, Button, Card, Checkbox, Group, NativeSelect, Radio, Stack, Switch, TagsInput, Text, TextInput, Textarea, Title } from '@mantine/core';
import { useState, type ReactNode } from 'react';
import type { ChannelFile, Rates } from '../api/types';
import { useWords } from '../i18n';
import { Amount, type Faults } from '../ui/fields';
import { MESSAGES_MIN, WINDOW_S, percentOf, shareOf } from './channel-bounds';

interface Part {
  file: ChannelFile;
  onChange: (file: ChannelFile) => void;
  faults: Faults;
  readOnly: boolean;
}

const SECONDS_MAX = 86_400;
const NUMBER_MAX = 4_294_967_295;

export function ChannelForm(part: Part) {
  return (
    <Stack>
      <Judging {...part} />
      <Connections {...part} />
      <Certificate {...part} />
      <Quotas {...part} />
      <Budget {...part} />
    </Stack>
  );
}

function Section({ title, about, children }: { title: string; about: string; children: ReactNode }) {
  return (
    <Card withBorder component="section" aria-label={title}>
      <Stack gap="sm">
        <div><Title order={2} size="h5">{title}</Title><Text size="sm" className="quiet">{about}</Text></div>
        {children}
      </Stack>
    </Card>
  );
}

/** The file with a member set, or without it. */
function put<K extends keyof ChannelFile>(file: ChannelFile, member: K, value: ChannelFile[K] | undefined): ChannelFile {
  const { [member]: _, ...rest } = file;
  return (value === undefined ? rest : { ...rest, [member]: value }) as ChannelFile;
}

function Judging({ file, onChange, faults }: Part) {
  const { t } = useWords();
  return (
    <Section title={t('Messages')} about={t('What becomes of a message that is not good in every part.')}>
      <Radio.Group label={t('One bad item in a message')} value={file.mode ?? 'strict'} onChange={(mode) => onChange(put(file, 'mode', mode as 'strict'))}>
        <Group mt="xs"><Radio value="strict" label={t('refuses the message (strict)')} /><Radio value="lenient" label={t('is refused by itself (lenient)')} /></Group>
      </Radio.Group>
      <Switch label={t('Items without a time get that of their arrival')} checked={file.stampArrival ?? false} onChange={(e) => onChange(put(file, 'stampArrival', e.currentTarget.checked || undefined))} />
      <NativeSelect
        label={t('Two different values at one time')} w={320} error={faults('conflict')} description={t('Both are kept as a conflict; this one is read.')} inputWrapperOrder={['label', 'input', 'description', 'error']}
        data={[{ value: 'keep-last', label: t('the last to come counts') }, { value: 'keep-first', label: t('the first to come counts') }, { value: 'higher-quality', label: t('the one of better quality counts') }]}
        value={file.conflict ?? 'keep-last'} onChange={(e) => onChange(put(file, 'conflict', e.currentTarget.value as 'keep-last'))}
      />
      <Textarea label={t('Description')} autosize value={file.description ?? ''} onChange={(e) => onChange(put(file, 'description', e.currentTarget.value || undefined))} />
    </Section>
  );
}

function Connections({ file, onChange, faults, readOnly }: Part) {
  const { t } = useWords();
  const refused = file.refuse ?? [];
  return (
    <Section title={t('Connections')} about={t('How many clients are in at one time, and how they may sign.')}>
      <Amount
        label={t('Connections at one time')} unit={t('clients')} min={1} max={NUMBER_MAX} placeholder={t('the gateway’s own limit')} help={t('Empty: as many as the gateway takes.')} w={280}
        value={file.connectionsMax} error={faults('connectionsMax')} onChange={(connectionsMax) => onChange(put(file, 'connectionsMax', connectionsMax))}
      />
      <Checkbox.Group label={t('Sign methods that a login may not use')} error={faults('refuse')} value={refused} onChange={(refuse) => onChange(put(file, 'refuse', refuse.length > 0 ? (refuse as ['sha1']) : undefined))}>
        <Group mt="xs"><Checkbox value="md5" label="MD5" disabled={readOnly} /><Checkbox value="sha1" label="SHA-1" disabled={readOnly} /></Group>
      </Checkbox.Group>
    </Section>
  );
}

/** As the gateway knows them (tls/peer.rs). */
const SUBJECT = ['CN', 'O', 'OU', 'serialNumber', 'UID', 'C', 'ST', 'L', 'DC', 'emailAddress'];

function Certificate({ file, onChange, faults, readOnly }: Part) {
  const { t } = useWords();
  const rule = file.clientCertificate;
  const set = (members: Partial<NonNullable<typeof rule>>) => onChange(put(file, 'clientCertificate', { ...rule, ...members }));
  // Rows of their own: while a person types, two may be called the same.
  const [rows, setRows] = useState(() => Object.entries(rule?.subject ?? {}));
  const setSubject = (rows: [string, string][]) => {
    setRows(rows);
    set({ subject: Object.fromEntries(rows.filter(([name, value]) => name && value)) });
  };
  return (
    <Section title={t('Client certificate')} about={t('What a login over TLS has to show besides its password. Which authorities are trusted is configured: mqtts.client_ca.')}>
      <Switch label={t('Look at client certificates')} checked={rule !== undefined} onChange={(e) => onChange(put(file, 'clientCertificate', e.currentTarget.checked ? { required: true } : undefined))} />
      {rule && (
        <>
          <Switch label={t('Nobody logs in without one')} description={t('Else a client may come without; one that is shown has to fit.')} checked={rule.required ?? false} onChange={(e) => set({ required: e.currentTarget.checked })} />
          <TagsInput
            label={t('Fingerprints (SHA-256)')} description={t('64 hex digits each, with or without colons; it has one of them. Empty: any.')} disabled={readOnly} splitChars={[',', ' ', '\n']} error={faults('clientCertificate.sha256')}
            inputWrapperOrder={['label', 'input', 'description', 'error']} value={rule.sha256 ?? []} onChange={(sha256) => set({ sha256 })}
          />
          <Stack gap="xs" role="group" aria-label={t('What its subject says')}>
            <Text size="sm" fw={500}>{t('What its subject says')}</Text>
            {rows.map(([name, value], at) => (
              <Group key={at} align="flex-end" gap="xs">
                <NativeSelect label={t('Part {n}', { n: at + 1 })} data={SUBJECT.includes(name) ? SUBJECT : [name, ...SUBJECT]} value={name} onChange={(e) => { const { value: name } = e.currentTarget; setSubject(rows.map((row, other) => (other === at ? [name, row[1]] : row))); }} />
                <TextInput label={t('Value {n}', { n: at + 1 })} w={260} value={value} onChange={(e) => { const { value } = e.currentTarget; setSubject(rows.map((row, other) => (other === at ? [row[0], value] : row))); }} />
                <ActionIcon variant="default" size={36} aria-label={t('Remove {of}', { of: `${name}=${value}` })} onClick={() => setSubject(rows.filter((_, other) => other !== at))}>✕</ActionIcon>
              </Group>
            ))}
            {faults('clientCertificate.subject') && <Text size="sm" c="var(--mantine-color-error)">{faults('clientCertificate.subject')}</Text>}
            <Group><Button size="compact-sm" variant="default" onClick={() => setSubject([...rows, [SUBJECT.find((name) => !rows.some(([other]) => other === name)) ?? 'CN', '']])}>{t('Add a part of the subject')}</Button></Group>
          </Stack>
        </>
      )}
    </Section>
  );
}

function Quotas({ file, onChange, faults }: Part) {
  const { t } = useWords();
  const quotas = file.quotas ?? {};
  const set = (members: Partial<typeof quotas>) => onChange(put(file, 'quotas', { ...quotas, ...members }));
  const { recent } = quotas;
  const { recent: _, ...backlog } = quotas;
  return (
    <Section title={t('Quotas')} about={t('How much it may bring in a second. Who brings more is slowed, nothing is refused. Empty: as much as the gateway takes.')}>
      <Shares of={quotas} at="quotas" faults={faults} onChange={set} />
      <Switch
        label={t('A share of its own for recent data')} description={t('So that a backlog does not hold it up. The numbers above are then those of the backlog.')}
        checked={recent !== undefined} onChange={(e) => onChange(put(file, 'quotas', e.currentTarget.checked ? { ...quotas, recent: { withinSeconds: WINDOW_S } } : backlog))}
      />
      {recent && (
        <Stack gap="sm" pl="md" role="group" aria-label={t('Recent data')}>
          <Amount
            label={t('Values are recent for')} unit={t('seconds')} min={1} max={NUMBER_MAX} value={recent.withinSeconds} error={faults('quotas.recent.withinSeconds')} help={t('How old, at their arrival, all values of a message are at most.')} w={280}
            onChange={(withinSeconds) => set({ recent: { ...recent, withinSeconds: withinSeconds ?? 0 } })}
          />
          <Shares of={recent} at="quotas.recent" faults={faults} isRecent onChange={(members) => set({ recent: { ...recent, ...members } })} />
        </Stack>
      )}
    </Section>
  );
}

function Shares({ of, at, faults, onChange, isRecent = false }: { of: Rates; at: string; faults: Faults; onChange: (members: Rates) => void; isRecent?: boolean }) {
  const { t } = useWords();
  const amount = (label: string, unit: string, member: keyof Rates) => (
    <Amount label={label} unit={unit} min={1} max={NUMBER_MAX} value={of[member]} error={faults(`${at}.${member}`)} placeholder={t('no bound')} onChange={(value) => onChange({ [member]: value } as Rates)} />
  );
  return (
    <Group align="flex-start">
      {amount(isRecent ? t('Messages of recent data') : t('Messages'), t('a second'), 'messagesPerSecond')}
      {amount(isRecent ? t('Values of recent data') : t('Values'), t('a second'), 'pointsPerSecond')}
      {amount(isRecent ? t('Payload of recent data') : t('Payload'), t('bytes a second'), 'bytesPerSecond')}
    </Group>
  );
}

function Budget({ file, onChange, faults }: Part) {
  const { t } = useWords();
  const budget = file.errorBudget;
  const set = (members: Partial<NonNullable<typeof budget>>) => onChange(put(file, 'errorBudget', { refused: 0, ...budget, ...members }));
  return (
    <Section title={t('Error budget')} about={t('How much of what comes may be refused before somebody is told.')}>
      <Switch label={t('Watch how much is refused')} checked={budget !== undefined} onChange={(e) => onChange(put(file, 'errorBudget', e.currentTarget.checked ? { refused: 0.1 } : undefined))} />
      {budget && (
        <>
          <Group align="flex-start">
            <Amount label={t('May be refused')} unit={t('% of messages')} max={100} decimals value={percentOf(budget.refused)} error={faults('errorBudget.refused')} help={t('In whole or in part; below 100.')} onChange={(percent) => set({ refused: shareOf(percent ?? 0) })} />
            <Amount label={t('Counted over the last')} unit={t('seconds')} min={1} max={SECONDS_MAX} value={budget.windowSeconds ?? WINDOW_S} error={faults('errorBudget.windowSeconds')} help={t('1 to 86400: a day.')} onChange={(windowSeconds) => set({ windowSeconds: windowSeconds ?? 0 })} />
            <Amount label={t('At least')} unit={t('messages')} min={1} max={NUMBER_MAX} value={budget.messagesMin ?? MESSAGES_MIN} error={faults('errorBudget.messagesMin')} help={t('Fewer say nothing.')} onChange={(messagesMin) => set({ messagesMin: messagesMin ?? 0 })} />
          </Group>
          <Switch label={t('Hold the channel when it is overspent')} description={t('Nothing of it is taken or acknowledged until it is opened again. Else an alarm is raised.')} checked={budget.hold ?? false} onChange={(e) => set({ hold: e.currentTarget.checked })} />
        </>
      )}
    </Section>
  );
}
