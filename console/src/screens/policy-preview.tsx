// What a change of a policy would mean: points that would be processed otherwise, and what would go.
import { Alert, Stack, Table, Text } from '@mantine/core';
import type { PolicyPreview } from '../api/types';
import { useWords } from '../i18n';
import { bytes, count } from '../time';
import { Deeds, Retention } from './policies';
import { DerivedChanges } from './policy-reads';

const DEVICES = 10;

export function Previewed({ preview }: { preview: PolicyPreview }) {
  const { t } = useWords();
  const isNothing = preview.processing.length === 0 && preview.storage.length === 0 && !preview.derived?.length;
  return (
    <Stack data-testid="preview" role="status">
      <Text fw={600}>{t('Preview: nothing has changed')}</Text>
      {isNothing && <Text size="sm">{t('No point would be processed otherwise, and nothing would be too old.')}</Text>}
      {preview.storage.map((one) => (
        <Alert key={one.product} color={one.rows > 0 ? 'orange' : 'blue'} variant="light" title={t('Product {name}', { name: one.product })}>
          <Text size="sm">{t('Before:')} <Retention of={one.before} /></Text>
          <Text size="sm">{t('After:')} <Retention of={one.after} /></Text>
          <Losses of={one} />
          <Text size="sm"><b>{t('About {n} of {m} rows would go', { n: count(one.rows), m: count(one.rowsInAll) })}</b>{one.segments > 0 && ` · ${t('{n} segments whole, {size}', { n: one.segments, size: bytes(one.bytes) })}`}</Text>
        </Alert>
      ))}
      {preview.processing.length > 0 && (
        <Table.ScrollContainer minWidth={400} type="native" tabIndex={0} role="region" aria-label={t('Points that would be processed otherwise')}>
          <Table aria-label={t('Points that would be processed otherwise')} verticalSpacing={4}>
            <Table.Thead><Table.Tr><Table.Th>{t('Point')}</Table.Th><Table.Th>{t('Channel')}</Table.Th><Table.Th ta="right">{t('Devices')}</Table.Th><Table.Th>{t('Before')}</Table.Th><Table.Th>{t('After')}</Table.Th></Table.Tr></Table.Thead>
            <Table.Tbody>
              {preview.processing.map((one) => (
                <Table.Tr key={`${one.channel} ${one.point}`}><Table.Td>{one.point}</Table.Td><Table.Td>{one.channel}</Table.Td><Table.Td ta="right">{count(one.devices)}</Table.Td><Table.Td><Deeds steps={one.before} /></Table.Td><Table.Td><Deeds steps={one.after} /></Table.Td></Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <DerivedChanges changes={preview.derived} />
      {preview.more > 0 && <Text size="sm">{t('and {n} more', { n: count(preview.more) })}</Text>}
    </Stack>
  );
}

/** What of a product would go: in all, by point, by device. */
function Losses({ of }: { of: PolicyPreview['storage'][number] }) {
  const { t } = useWords();
  const values = of.values === undefined ? t('at most {n} values', { n: count(of.valuesMax) }) : t('{n} values', { n: count(of.values) });
  return (
    <>
      <Text size="sm"><b>{t('{values}, {n} events and {m} attribute values would go', { values, n: count(of.events), m: count(of.attributeValues) })}</b></Text>
      {of.points.map((one) => (
        <Text size="sm" key={one.point}><span className="mono">{one.point}</span>: <Retention of={one.before} /> → <Retention of={one.after} />{one.values !== undefined && ` · ${t('{n} values', { n: count(one.values) })}`}</Text>
      ))}
      {of.morePoints > 0 && <Text size="sm">{t('and {n} more', { n: count(of.morePoints) })}</Text>}
      {of.devices.slice(0, DEVICES).map((one) => (
        <Text size="xs" key={one.deviceKey}>{t('Device {name} would lose', { name: one.deviceKey })} {Object.entries(one.values).map(([point, n]) => `${count(n)} ${point}`).join(', ')}</Text>
      ))}
      {of.devices.length + of.moreDevices > DEVICES && <Text size="xs">{t('and {n} more', { n: count(Math.max(0, of.devices.length - DEVICES) + of.moreDevices) })}</Text>}
    </>
  );
}
