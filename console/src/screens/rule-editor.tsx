// The editor of a rule: what it listens to, what it makes, where that goes; as a form or as text,
// with a trial beside it.
import { Button, Card, Group, MultiSelect, NumberInput, Radio, Select, SimpleGrid, Stack, TagsInput, Text, TextInput, Textarea, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { api, ok } from '../api/client';
import type { ModelFile, RuleFile } from '../api/types';
import { useWords } from '../i18n';
import { ProblemAlert, tell } from '../ui/problem';
import { Kept, others } from '../ui/kept';
import { useWork } from '../ui/work';
import { useProducts } from './channels';
import { declare } from './declare';
import { Edited, Turn, kept, keptTo, useDraft } from './draft';
import { Conditions, Entries, Steps } from './rule-steps';
import { Trial } from './rule-trial';

const KNOWN = ['kind', 'name', 'from', 'make', 'to', 'begin', 'description'];
const BEGUN: RuleFile = { kind: 'Rule', name: '', from: { type: 'points' }, make: [], to: { webhook: { url: '' } } };

function tidy(file: RuleFile): RuleFile {
  return { ...kept({ ...file, from: kept(file.from ?? {}) }, KNOWN), to: keptTo(file.to) };
}

export function RuleEditor({ file: given, readOnly = false, onSaved }: { file?: RuleFile; readOnly?: boolean; onSaved: (name: string) => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const draft = useDraft(given ?? BEGUN, tidy);
  const { busy, work } = useWork(draft);
  const save = () => work(async () => {
    const rule = draft.current();
    await declare(client, [rule], given ? 'any' : 'new');
    tell(given ? t('Saved. It holds for what comes from now on.') : t('The rule is made, and runs.'));
    onSaved(rule.name);
  });
  return (
    <SimpleGrid cols={{ base: 1, lg: 2 }}>
      <Stack>
        <Group justify="space-between">
          <Turn draft={draft} />
          {!readOnly && <Button loading={busy} onClick={() => void save()}>{given ? t('Save') : t('Make the rule')}</Button>}
        </Group>
        <ProblemAlert error={draft.error} />
        <Edited draft={draft} label={t('Rule')} readOnly={readOnly}><Form file={{ ...draft.file, to: draft.file.to ?? {} }} isNew={!given} onChange={draft.setFile} /></Edited>
      </Stack>
      {!readOnly && <Trial rule={draft.current} />}
    </SimpleGrid>
  );
}

function Form({ file, isNew, onChange }: { file: RuleFile; isNew: boolean; onChange: (file: RuleFile) => void }) {
  const { t } = useWords();
  const from = file.from ?? {};
  const type = from.type ?? 'points';
  const products = useProducts();
  const models = useQuery({
    queryKey: ['models', 'all'],
    queryFn: async () => (await ok(api.GET('/api/v1/models', { params: { query: { limit: 1000 } } }))).items as unknown as ModelFile[],
  });
  const channels = useQuery({
    queryKey: ['channels', 'names'],
    queryFn: async () => (await ok(api.GET('/api/v1/channels', { params: { query: { limit: 1000 } } }))).items.map((channel) => (channel as { name: string }).name),
  });
  const listen = (members: Partial<NonNullable<RuleFile['from']>>) => onChange({ ...file, from: { ...from, ...members } });
  const chosen = (models.data ?? []).filter((model) => !from.models?.length || from.models.includes(model.name));
  const known = [...new Set(chosen.flatMap((model) => Object.keys((type === 'points' ? model.measurepoints : type === 'events' ? model.events : model.attributes) ?? {})))];
  const names = { points: t('Points'), events: t('Events'), attributes: t('Attributes') }[type];
  return (
    <Stack>
      <SimpleGrid cols={{ base: 1, sm: 2 }}>
        <TextInput label={t('Name')} required readOnly={!isNew} value={file.name} onChange={(e) => onChange({ ...file, name: e.currentTarget.value })} />
        <Textarea label={t('Description')} autosize value={file.description ?? ''} onChange={(e) => onChange({ ...file, description: e.currentTarget.value })} />
      </SimpleGrid>
      <Card withBorder component="section" aria-label={t('1. It listens to')}>
        <Stack gap="sm">
          <Title order={2} size="h5">{t('1. It listens to')}</Title>
          <Radio.Group label={t('Rows of')} value={type} onChange={(type) => listen({ type: type as 'points' | 'events' | 'attributes' })}>
            <Group mt={4}><Radio value="points" label={t('points')} /><Radio value="events" label={t('events')} /><Radio value="attributes" label={t('attributes')} /></Group>
          </Radio.Group>
          <Text size="xs" className="quiet">{t('Only of these; all where a list is empty')}</Text>
          <SimpleGrid cols={{ base: 1, sm: 2 }}>
            <MultiSelect label={t('Products')} searchable data={(products.data ?? []).map((product) => product.name)} value={from.products ?? []} onChange={(products) => listen({ products })} />
            <MultiSelect label={t('Models')} searchable data={(models.data ?? []).map((model) => model.name)} value={from.models ?? []} onChange={(models) => listen({ models })} />
            <TagsInput label={names} data={known} value={from[type] ?? []} onChange={(names) => listen({ [type]: names })} />
            <TagsInput label={t('Devices')} placeholder={from.devices?.length ? '' : t('PRODUCT/NAME, or an asset id')} value={from.devices ?? []} onChange={(devices) => listen({ devices })} />
            <MultiSelect label={t('Channels')} searchable data={channels.data ?? []} value={from.channels ?? []} onChange={(channels) => listen({ channels })} />
            {type === 'points' && (
              <Select
                label={t('Calculated points')} allowDeselect={false} value={from.calculated ?? 'exclude'} onChange={(calculated) => listen({ calculated: calculated === 'exclude' ? undefined : calculated } as never)}
                data={[{ value: 'exclude', label: t('without them') }, { value: 'include', label: t('with them') }, { value: 'only', label: t('only them') }]}
              />
            )}
          </SimpleGrid>
          <Conditions of={from.where ?? {}} known={known} onChange={(where) => listen({ where })} />
        </Stack>
      </Card>
      <Card withBorder component="section" aria-label={t('2. It makes of a row')}>
        <Stack gap="sm">
          <Title order={2} size="h5">{t('2. It makes of a row')}</Title>
          <Steps steps={file.make ?? []} known={known} onChange={(make) => onChange({ ...file, make })} />
        </Stack>
      </Card>
      <Destination file={file} onChange={onChange} />
      <Kept of={others(file, KNOWN)} />
      {isNew && (
        <Radio.Group label={t('It begins')} value={file.begin ?? 'now'} onChange={(begin) => onChange({ ...file, begin: begin as 'now' | 'oldest' })}>
          <Group mt={4}><Radio value="now" label={t('with what is stored from now on')} /><Radio value="oldest" label={t('with what the log still holds')} /></Group>
        </Radio.Group>
      )}
    </Stack>
  );
}

function Destination({ file, onChange }: { file: RuleFile; onChange: (file: RuleFile) => void }) {
  const { t } = useWords();
  const { kafka, webhook, calculated } = file.to;
  const other = others(file.to, ['kafka', 'webhook', 'calculated']);
  const kind = kafka ? 'kafka' : calculated ? 'calculated' : Object.keys(other)[0] ?? 'webhook';
  const begun: Record<string, RuleFile['to']> = { kafka: { kafka: { topic: 'MEASURE_POINT_ORIGIN_OFFLINE_{org}' } }, webhook: { webhook: { url: '' } }, calculated: { calculated: { points: [] } } };
  const put = (to: RuleFile['to']) => onChange({ ...file, to });
  return (
    <Card withBorder component="section" aria-label={t('3. It sends that to')}>
      <Stack gap="sm">
        <Title order={2} size="h5">{t('3. It sends that to')}</Title>
        <Radio.Group aria-label={t('3. It sends that to')} value={kind} onChange={(kind) => put(begun[kind] ?? {})}>
          <Group><Radio value="kafka" label="Kafka" /><Radio value="webhook" label={t('webhook')} /><Radio value="calculated" label={t('calculated points')} /></Group>
        </Radio.Group>
        <Kept of={other} />
        {kafka && <>
          <TextInput label={t('Topic')} required value={kafka.topic} onChange={(e) => put({ kafka: { ...kafka, topic: e.currentTarget.value } })} />
          <SimpleGrid cols={{ base: 1, sm: 2 }}>
            <TextInput label={t('Record key')} placeholder="{assetId}" value={kafka.key ?? ''} onChange={(e) => put({ kafka: { ...kafka, key: e.currentTarget.value } })} />
            <Select label={t('Guarantee')} allowDeselect={false} value={kafka.guarantee ?? 'at-least-once'} onChange={(guarantee) => put({ kafka: { ...kafka, guarantee: (guarantee ?? 'at-least-once') as 'at-least-once' } })} data={[{ value: 'at-least-once', label: t('at least once') }, { value: 'exactly-once', label: t('exactly once') }]} />
          </SimpleGrid>
          <Entries label={t('Headers')} name={t('Header')} value={t('Text')} of={kafka.headers ?? {}} onChange={(headers) => put({ kafka: { ...kafka, headers } })} />
          <Text size="xs" className="quiet">{t('Places in braces: {places}', { places: '{org} {rule} {channel} {productKey} {modelId} {assetId} {deviceKey} {event} {time} {receipt}' })}</Text>
        </>}
        {webhook && <>
          <TextInput label="URL" required placeholder="https://history.example.org/in" value={webhook.url} onChange={(e) => put({ webhook: { ...webhook, url: e.currentTarget.value } })} />
          <SimpleGrid cols={{ base: 1, sm: 3 }}>
            <Select label={t('Body')} allowDeselect={false} value={webhook.format ?? 'ndjson'} onChange={(format) => put({ webhook: { ...webhook, format: (format ?? 'ndjson') as 'ndjson' } })} data={[{ value: 'ndjson', label: t('a line for each message') }, { value: 'json', label: t('an array of messages') }, { value: 'records', label: t('lines with key, headers, value') }]} />
            <NumberInput label={t('Records in a request')} min={1} max={10000} placeholder="500" value={webhook.recordsMax ?? ''} onChange={(n) => put({ webhook: { ...webhook, recordsMax: n === '' ? undefined : Number(n) } as never })} />
            <NumberInput label={t('Timeout, seconds')} min={1} max={300} placeholder="30" value={webhook.timeoutS ?? ''} onChange={(n) => put({ webhook: { ...webhook, timeoutS: n === '' ? undefined : Number(n) } as never })} />
          </SimpleGrid>
          <Entries label={t('Headers')} name={t('Header')} value={t('Text')} of={webhook.headers ?? {}} onChange={(headers) => put({ webhook: { ...webhook, headers } })} />
          <Text size="xs" className="quiet">{t('In a header, ${secret} stands for the secret of the rule, which is set once it is made.')}</Text>
        </>}
        {calculated && <TagsInput label={t('Points that are written back; the model declares them')} required value={calculated.points} onChange={(points) => put({ calculated: { points } })} />}
      </Stack>
    </Card>
  );
}
