// A product: made by a form, or changed by one.
import { Button, Group, Modal, Radio, Select, Stack, TextInput, Textarea } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { api, ok } from '../api/client';
import type { ModelFile, ProductFile } from '../api/types';
import { useWords } from '../i18n';
import { ProblemAlert, tell } from '../ui/problem';
import { useWork } from '../ui/work';
import { declare } from './declare';

export function ProductForm({ file, onClose }: { file?: ProductFile; onClose: () => void }) {
  const { t } = useWords();
  const client = useQueryClient();
  const [name, setName] = useState(file?.name ?? '');
  const [key, setKey] = useState(file?.key ?? '');
  const [model, setModel] = useState<string | null>(file?.model ?? null);
  const [format, setFormat] = useState<string>(file?.format ?? 'json');
  const [description, setDescription] = useState(file?.description ?? '');
  const { busy, error, submit } = useWork();
  const models = useQuery({
    queryKey: ['models', 'all'],
    queryFn: async () => (await ok(api.GET('/api/v1/models', { params: { query: { limit: 1000 } } }))).items as unknown as ModelFile[],
  });
  const save = submit(async () => {
    const { description: _, ...rest } = file ?? { kind: 'Product' as const, name };
    await declare(client, [{ ...rest, model, format, ...(key && { key }), ...(description && { description }) }], file ? 'any' : 'new');
    tell(file ? t('Saved.') : t('The product is made.'));
    onClose();
  });
  return (
    <Modal opened onClose={onClose} title={file ? t('Change {name}', { name: file.name }) : t('New product')} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={save}>
        <Stack>
          <TextInput label={t('Name')} required readOnly={file !== undefined} value={name} onChange={(e) => setName(e.currentTarget.value)} data-autofocus />
          <TextInput label={t('Key')} description={t('Letters, digits, - _ : . and made up unless given')} readOnly={file !== undefined} value={key} onChange={(e) => setKey(e.currentTarget.value)} />
          <Select label={t('Model')} required searchable allowDeselect={false} data={(models.data ?? []).map((m) => m.name)} value={model} onChange={setModel} nothingFoundMessage={t('Make a model first.')} />
          <Radio.Group label={t('Data format')} value={format} onChange={setFormat}>
            <Group mt="xs"><Radio value="json" label="JSON" /><Radio value="custom" label={t('custom: bytes that a script decodes')} /></Group>
          </Radio.Group>
          <Textarea label={t('Description')} value={description} onChange={(e) => setDescription(e.currentTarget.value)} autosize />
          <ProblemAlert error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit" loading={busy}>{file ? t('Save') : t('Make the product')}</Button></Group>
        </Stack>
      </form>
    </Modal>
  );
}
