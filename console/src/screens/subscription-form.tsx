// What a subscription is made of: for a new one, and to change one.
import { Button, Group, MultiSelect, NumberInput, Radio, Select, SimpleGrid, Stack, TagsInput, Text, TextInput, Textarea } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { api, ok } from '../api/client';
import type { AccessKeyFile, DeviceFile, ModelFile, SubscriptionFile } from '../api/types';
import { useWords } from '../i18n';
import { ProblemAlert, tell } from '../ui/problem';
import { Kept, others } from '../ui/kept';
import { useWork } from '../ui/work';
import { declare } from './declare';

const KNOWN = ['kind', 'name', 'type', 'accessKey', 'models', 'points', 'events', 'devices', 'retentionHours', 'partitions', 'begin', 'description'];
const HOURS = 72;
const PARTITIONS = 2;

export function SubscriptionForm({ file, readOnly = false, onSaved, onCancel }: {
  file?: SubscriptionFile; readOnly?: boolean; onSaved: (name: string) => void; onCancel?: () => void;
}) {
  const { t } = useWords();
  const client = useQueryClient();
  const [name, setName] = useState(file?.name ?? '');
  const [type, setType] = useState<string>(file?.type ?? 'points');
  const [key, setKey] = useState<string | null>(file?.accessKey ?? null);
  const [models, setModels] = useState(file?.models ?? []);
  const [points, setPoints] = useState(file?.points ?? []);
  const [events, setEvents] = useState(file?.events ?? []);
  const [devices, setDevices] = useState(file?.devices ?? []);
  const [hours, setHours] = useState<string | number>(file?.retentionHours ?? HOURS);
  const [partitions, setPartitions] = useState<string | number>(file?.partitions ?? PARTITIONS);
  const [begin, setBegin] = useState<string>(file?.begin ?? 'now');
  const [description, setDescription] = useState(file?.description ?? '');
  const [search, setSearch] = useState('');
  const { busy, error, submit } = useWork();
  const keys = useQuery({
    queryKey: ['access-keys', 'all'],
    queryFn: async () => (await ok(api.GET('/api/v1/access-keys', { params: { query: { limit: 1000 } } }))).items as unknown as AccessKeyFile[],
  });
  const known = useQuery({
    queryKey: ['models', 'all'],
    queryFn: async () => (await ok(api.GET('/api/v1/models', { params: { query: { limit: 1000 } } }))).items as unknown as ModelFile[],
  });
  const found = useQuery({
    queryKey: ['devices', 'named', search],
    queryFn: async () => ((await ok(api.GET('/api/v1/devices', { params: { query: { limit: 50, ...(search && { name: search.split('/').at(-1) ?? '' }) } } }))).items as unknown as DeviceFile[]).map((d) => `${d.product}/${d.name}`),
  });
  const chosen = (known.data ?? []).filter((model) => models.length === 0 || models.includes(model.name));
  const all = (of: (model: ModelFile) => Record<string, unknown> | undefined) => [...new Set(chosen.flatMap((model) => Object.keys(of(model) ?? {})))];
  const save = submit(async () => {
    const made: SubscriptionFile = {
      // What the form has no field for stays as it is.
      ...others(file, KNOWN), kind: 'Subscription', name, type: type as 'points' | 'events', accessKey: key ?? '', retentionHours: Number(hours), partitions: Number(partitions), begin: begin as 'now' | 'oldest',
      ...(models.length > 0 && { models }), ...(devices.length > 0 && { devices }),
      ...(type === 'points' ? points.length > 0 && { points } : events.length > 0 && { events }),
      ...(description && { description }),
    };
    await declare(client, [made], file ? 'any' : 'new');
    tell(file ? t('Saved. It holds for what comes from now on.') : t('The subscription is made.'));
    onSaved(name);
  });
  return (
    <form onSubmit={save}>
      <fieldset disabled={readOnly} style={{ border: 0, padding: 0, margin: 0, minWidth: 0 }}>
        <Stack>
          <TextInput label={t('Subscription id')} description={t('What applications give; letters, digits, - _ .')} required readOnly={file !== undefined} value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <Select label={t('Access key')} description={t('Who may read')} required searchable allowDeselect={false} disabled={readOnly} data={(keys.data ?? []).map((one) => one.name)} value={key} onChange={setKey} nothingFoundMessage={t('Make an access key first.')} />
          <Radio.Group label={t('Messages are')} value={type} onChange={setType}>
            <Group mt={4}>
              <Radio value="points" label={t('points: one for each row of a device')} disabled={file !== undefined} />
              <Radio value="events" label={t('events: one for each event')} disabled={file !== undefined} />
            </Group>
          </Radio.Group>
          <Text size="sm" fw={600}>{t('Only of these; all where a list is empty')}</Text>
          <SimpleGrid cols={{ base: 1, sm: 2 }}>
            <MultiSelect label={t('Models')} searchable disabled={readOnly} data={(known.data ?? []).map((model) => model.name)} value={models} onChange={setModels} />
            {type === 'points'
              ? <TagsInput label={t('Points')} disabled={readOnly} data={all((model) => model.measurepoints)} value={points} onChange={setPoints} />
              : <TagsInput label={t('Events')} disabled={readOnly} data={all((model) => model.events)} value={events} onChange={setEvents} />}
          </SimpleGrid>
          <TagsInput label={t('Devices')} description={t('PRODUCT/NAME, or an asset id')} disabled={readOnly} data={found.data ?? []} searchValue={search} onSearchChange={setSearch} value={devices} onChange={setDevices} />
          <SimpleGrid cols={{ base: 1, sm: 2 }}>
            <NumberInput label={t('Kept for hours')} min={1} max={8760} disabled={readOnly} value={hours} onChange={setHours} />
            <NumberInput label={t('Partitions')} description={t('How many consumers of a group read at one time; never changed')} min={1} max={64} disabled={file !== undefined} value={partitions} onChange={setPartitions} />
          </SimpleGrid>
          {!file && (
            <Radio.Group label={t('It begins')} value={begin} onChange={setBegin}>
              <Group mt={4}><Radio value="now" label={t('with what is stored from now on')} /><Radio value="oldest" label={t('with what the log still holds')} /></Group>
            </Radio.Group>
          )}
          <Textarea label={t('Description')} value={description} onChange={(e) => setDescription(e.currentTarget.value)} autosize />
          <Kept of={others(file, KNOWN)} />
          <ProblemAlert error={error} />
          {!readOnly && (
            <Group justify="flex-end">
              {onCancel && <Button variant="default" onClick={onCancel}>{t('Cancel')}</Button>}
              <Button type="submit" loading={busy}>{file ? t('Save') : t('Make the subscription')}</Button>
            </Group>
          )}
        </Stack>
      </fieldset>
    </form>
  );
}
