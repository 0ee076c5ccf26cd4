// The editor of an archive: what it has, what its files are, when it runs, where they go; as a form or as text.
import { Alert, Button, Card, Checkbox, Chip, Group, MultiSelect, NumberInput, Radio, Select, SimpleGrid, Stack, Text, TextInput, Textarea, Title } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { type ReactNode } from 'react';
import type { ArchiveFile } from '../api/types';
import { useWords } from '../i18n';
import { Kept, others } from '../ui/kept';
import { ProblemAlert, tell } from '../ui/problem';
import { useWork } from '../ui/work';
import { useProducts } from './channels';
import { declare } from './declare';
import { Edited, Turn, kept, keptTo, useDraft } from './draft';

const KNOWN = ['kind', 'name', 'products', 'of', 'form', 'format', 'byPoint', 'schedule', 'to', 'description'];
const BEGUN: ArchiveFile = { kind: 'Archive', name: '', to: { folder: '' }, schedule: { at: '02:30' } };
const HOURLY = 60;
const ZONES = Intl.supportedValuesOf('timeZone');
const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];

function tidy(file: ArchiveFile): ArchiveFile {
  const schedule = file.schedule && kept(file.schedule);
  return { ...kept({ ...file, schedule } as ArchiveFile, KNOWN), to: keptTo(file.to) };
}

export function ArchiveEditor({ file: given, readOnly = false, onSaved }: { file?: ArchiveFile; readOnly?: boolean; onSaved: (name: string) => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const draft = useDraft(given ?? BEGUN, tidy);
  const { busy, work } = useWork(draft);
  const save = () => work(async () => {
    const archive = draft.current();
    await declare(client, [archive], given ? 'any' : 'new');
    tell(given ? t('Saved.') : archive.to.s3 ? t('The archive is made. Set its secret now, so that it can write.') : t('The archive is made.'));
    onSaved(archive.name);
  });
  return (
    <Stack maw={900}>
      <Group justify="space-between">
        <Turn draft={draft} />
        {!readOnly && <Button loading={busy} onClick={() => void save()}>{given ? t('Save') : t('Make the archive')}</Button>}
      </Group>
      <ProblemAlert error={draft.error} />
      <Edited draft={draft} label={t('Archive')} readOnly={readOnly}><Form file={{ ...draft.file, to: draft.file.to ?? {} }} isNew={!given} onChange={draft.setFile} /></Edited>
    </Stack>
  );
}

interface Part {
  file: ArchiveFile;
  isNew: boolean;
  onChange: (file: ArchiveFile) => void;
}

function Section({ title, children }: { title: string; children: ReactNode }) {
  return <Card withBorder component="section" aria-label={title}><Stack gap="sm"><Title order={2} size="h5">{title}</Title>{children}</Stack></Card>;
}

function Form(part: Part) {
  const { t } = useWords();
  const { file, isNew, onChange } = part;
  const products = useProducts();
  return (
    <Stack>
      <SimpleGrid cols={{ base: 1, sm: 2 }}>
        <TextInput label={t('Name')} required readOnly={!isNew} value={file.name} onChange={(e) => onChange({ ...file, name: e.currentTarget.value })} />
        <MultiSelect label={t('Products')} placeholder={file.products?.length ? '' : t('all of them')} searchable data={(products.data ?? []).map((product) => product.name)} value={file.products ?? []} onChange={(products) => onChange({ ...file, products })} />
        <Textarea label={t('Description')} autosize value={file.description ?? ''} onChange={(e) => onChange({ ...file, description: e.currentTarget.value })} />
      </SimpleGrid>
      {!isNew && <Alert color="blue" variant="light">{t('What its files are and where they go cannot change: make an archive of another name for that.')}</Alert>}
      <Place {...part} />
      <Shape {...part} />
      <Schedule {...part} />
      <Kept of={others(file, KNOWN)} />
    </Stack>
  );
}

function Place({ file, isNew, onChange }: Part) {
  const { t } = useWords();
  const { folder, s3 } = file.to;
  const put = (members: Partial<NonNullable<typeof s3>>) => onChange({ ...file, to: { s3: { bucket: '', accessKeyId: '', ...s3, ...members } } });
  return (
    <Section title={t('Where files go')}>
      <Radio.Group aria-label={t('Place')} value={s3 ? 's3' : 'folder'} onChange={(place) => onChange({ ...file, to: place === 's3' ? { s3: { bucket: '', accessKeyId: '' } } : { folder: '' } })}>
        <Group><Radio value="folder" label={t('a folder of the gateway')} disabled={!isNew} /><Radio value="s3" label={t('a bucket of S3, or of what speaks its protocol')} disabled={!isNew} /></Group>
      </Radio.Group>
      {!s3 && <TextInput label={t('Folder')} required w={320} readOnly={!isNew} placeholder="lake" description={t('Below archive.folder of the configuration; unless given, archive/ in the data directory.')} inputWrapperOrder={['label', 'input', 'description', 'error']} value={folder ?? ''} onChange={(e) => onChange({ ...file, to: { folder: e.currentTarget.value } })} />}
      {s3 && (
        <>
          <SimpleGrid cols={{ base: 1, sm: 2 }}>
            <TextInput label={t('Bucket')} required readOnly={!isNew} value={s3.bucket} onChange={(e) => put({ bucket: e.currentTarget.value })} />
            <TextInput label={t('Prefix')} readOnly={!isNew} placeholder="farm" value={s3.prefix ?? ''} onChange={(e) => put({ prefix: e.currentTarget.value })} />
            <TextInput label={t('Region')} placeholder="us-east-1" value={s3.region ?? ''} onChange={(e) => put({ region: e.currentTarget.value })} />
            <TextInput label={t('Endpoint')} placeholder="https://s3.example.org" description={t('Of a server that is not Amazon’s.')} inputWrapperOrder={['label', 'input', 'description', 'error']} readOnly={!isNew} value={s3.endpoint ?? ''} onChange={(e) => put({ endpoint: e.currentTarget.value })} />
            <TextInput label={t('Access key id')} required autoComplete="off" value={s3.accessKeyId} onChange={(e) => put({ accessKeyId: e.currentTarget.value })} />
          </SimpleGrid>
          <Text size="sm" className="quiet">{t('Its secret is no part of the file: it is set once the archive is made.')}</Text>
        </>
      )}
    </Section>
  );
}

function Shape({ file, isNew, onChange }: Part) {
  const { t } = useWords();
  const of = file.of ?? 'points';
  // What events and attributes look like in a file is not for choosing.
  const about = (of: NonNullable<ArchiveFile['of']>) => {
    const { form: _, byPoint: __, ...rest } = file;
    onChange((of === 'points' ? { ...file, of: undefined } : { ...rest, of }) as ArchiveFile);
  };
  return (
    <Section title={t('What files are')}>
      <Radio.Group label={t('Of what')} value={of} onChange={(of) => about(of as 'points')}>
        <Group mt="xs"><Radio value="points" label={t('values of points')} disabled={!isNew} /><Radio value="events" label={t('events')} disabled={!isNew} /><Radio value="attributes" label={t('attributes, with their earlier values')} disabled={!isNew} /></Group>
      </Radio.Group>
      <Group gap="xl" align="flex-start">
        <Radio.Group label={t('Format')} value={file.format ?? 'parquet'} onChange={(format) => onChange({ ...file, format: format as 'parquet' })}>
          <Group mt="xs"><Radio value="parquet" label="Parquet" disabled={!isNew} /><Radio value="csv" label="CSV" disabled={!isNew} /></Group>
        </Radio.Group>
        {of === 'points' && <Radio.Group label={t('Layout')} value={file.form ?? 'wide'} onChange={(form) => onChange({ ...file, form: form as 'wide' })}>
          <Group mt="xs"><Radio value="wide" label={t('wide: a column for each point')} disabled={!isNew} /><Radio value="long" label={t('long: a row for each point')} disabled={!isNew} /></Group>
        </Radio.Group>}
      </Group>
      {of === 'points' && <Checkbox label={t('A file for each point too, not only for each product and day')} disabled={!isNew} checked={file.byPoint ?? false} onChange={(e) => onChange({ ...file, byPoint: e.currentTarget.checked || undefined } as ArchiveFile)} />}
    </Section>
  );
}

function Schedule({ file, onChange }: Part) {
  const { t } = useWords();
  const { schedule } = file;
  const how = schedule === undefined ? 'told' : schedule.everyMinutes !== undefined ? 'every' : 'at';
  const put = (schedule: ArchiveFile['schedule']) => {
    const { schedule: _, ...rest } = file;
    onChange((schedule === undefined ? rest : { ...rest, schedule }) as ArchiveFile);
  };
  const words: Record<string, string> = { mon: t('Monday'), tue: t('Tuesday'), wed: t('Wednesday'), thu: t('Thursday'), fri: t('Friday'), sat: t('Saturday'), sun: t('Sunday') };
  return (
    <Section title={t('When it runs')}>
      <Radio.Group aria-label={t('When it runs')} value={how} onChange={(how) => put(how === 'told' ? undefined : how === 'at' ? { at: '02:30' } : { everyMinutes: HOURLY })}>
        <Group><Radio value="at" label={t('at a time of day')} /><Radio value="every" label={t('every so many minutes')} /><Radio value="told" label={t('when it is told to')} /></Group>
      </Radio.Group>
      {how === 'every' && <NumberInput label={t('Minutes from one run to the next')} w={260} min={1} max={527_040} allowDecimal={false} value={schedule?.everyMinutes ?? HOURLY} onChange={(minutes) => put({ everyMinutes: Number(minutes) })} />}
      {how === 'at' && (
        <>
          <Group align="flex-end">
            <TextInput label={t('Time of day')} w={120} placeholder="02:30" value={schedule?.at ?? ''} onChange={(e) => put({ ...schedule, at: e.currentTarget.value })} />
            <Select label={t('Zone of that time')} w={220} searchable clearable limit={40} placeholder="UTC" data={ZONES} value={schedule?.timezone ?? null} onChange={(timezone) => put(kept({ ...schedule, timezone: timezone ?? undefined } as object))} />
          </Group>
          <div role="group" aria-label={t('Only on these days; on all where none is chosen')}>
            <Text size="sm" mb={4}>{t('Only on these days; on all where none is chosen')}</Text>
            <Chip.Group multiple value={schedule?.days ?? []} onChange={(days) => put({ ...schedule, days: DAYS.filter((day) => days.includes(day)) })}>
              <Group gap="xs">{DAYS.map((day) => <Chip key={day} value={day} size="sm">{words[day]}</Chip>)}</Group>
            </Chip.Group>
          </div>
        </>
      )}
    </Section>
  );
}
