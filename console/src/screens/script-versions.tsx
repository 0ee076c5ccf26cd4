// The versions of a script: compared, and run again.
import { Badge, Button, Group, Stack, Table } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { api, ok } from '../api/client';
import type { Cure, ScriptFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, bytes } from '../time';
import { Asked, Empty, Sure, Waiting } from '../ui/page';

const Differences = lazy(() => import('../ui/differences'));

export function Versions({ name, hasDraft, onCures }: { name: string; hasDraft: boolean; onCures: (cures: Cure[]) => void }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const path = { params: { path: { name } } };
  const [shown, setShown] = useState<{ from: string; to: string }>();
  const versions = useQuery({ queryKey: ['script', name, 'versions'], queryFn: () => ok(api.GET('/api/v1/scripts/{name}/versions', path)) });
  return (
    <Asked query={versions}>
      {({ items }) => items.length === 0 ? <Empty>{t('Nothing is published yet: messages of the product are refused.')}</Empty> : (
        <Stack>
          <Table aria-label={t('Versions')}>
            <Table.Thead><Table.Tr><Table.Th>{t('Version')}</Table.Th><Table.Th>{t('Published')}</Table.Th><Table.Th>{t('Size')}</Table.Th><Table.Th>{t('Golden tests')}</Table.Th><Table.Th>{t('Do')}</Table.Th></Table.Tr></Table.Thead>
            <Table.Tbody>
              {hasDraft && <Table.Tr><Table.Td>{t('draft')}</Table.Td><Table.Td /><Table.Td /><Table.Td /><Table.Td><Button size="compact-sm" variant="default" onClick={() => setShown({ from: 'live', to: 'draft' })}>{t('Compare with the one that runs')}</Button></Table.Td></Table.Tr>}
              {items.map((version) => (
                <Table.Tr key={version.version}>
                  <Table.Td>{version.version} {version.live && <Badge color="green" variant="light">{t('runs')}</Badge>}</Table.Td>
                  <Table.Td><Time ms={Date.parse(version.published)} /></Table.Td><Table.Td>{bytes(version.sourceBytes)}</Table.Td><Table.Td>{version.golden}</Table.Td>
                  <Table.Td>
                    {!version.live && (
                      <Group gap="xs">
                        <Button size="compact-sm" variant="default" onClick={() => setShown({ from: 'live', to: String(version.version) })}>{t('Compare with the one that runs')}</Button>
                        {may && <Sure size="compact-sm" color="orange" label={t('Run this version')} title={t('Run version {n}?', { n: version.version })} onSure={async () => {
                          const published = await ok(api.POST('/api/v1/scripts/{name}/rollback', { params: { path: { name }, query: { to: version.version } } }));
                          onCures((published as unknown as { cures?: Cure[] }).cures ?? []);
                          await client.invalidateQueries({ queryKey: ['script', name] });
                        }}>{t('Messages from now on are decoded by it.')}</Sure>}
                      </Group>
                    )}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
          {shown && <Suspense fallback={<Waiting />}><Compared key={`${shown.from} ${shown.to}`} name={name} {...shown} /></Suspense>}
        </Stack>
      )}
    </Asked>
  );
}

function Compared({ name, from, to }: { name: string; from: string; to: string }) {
  const { t } = useWords();
  const sourceOf = async (version: string) => {
    const path = { params: { path: { name } } };
    const file = await ok(version === 'live' ? api.GET('/api/v1/scripts/{name}', path) : version === 'draft' ? api.GET('/api/v1/scripts/{name}/draft', path) : api.GET('/api/v1/scripts/{name}/versions/{version}', { params: { path: { name, version: Number(version) } } }));
    return (file as unknown as ScriptFile).source;
  };
  const both = useQuery({ queryKey: ['script', name, 'both', from, to], queryFn: () => Promise.all([sourceOf(from), sourceOf(to)]) });
  return <Asked query={both}>{([a, b]) => <Differences label={t('From {from} to {to}', { from, to })} from={a} to={b} />}</Asked>;
}
