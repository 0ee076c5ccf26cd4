// What of the quarantine a change would cure, and the button that drives it back in.
import { Alert, Button, Group, Progress, Stack, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { api, ok } from '../api/client';
import type { Cure, Job, Selection } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { State } from '../ui/page';
import { ProblemAlert } from '../ui/problem';

export function Cured({ cures }: { cures: Cure[] }) {
  const { t } = useWords();
  const would = cures.reduce((sum, cure) => sum + cure.wouldCure, 0);
  if (would === 0) return null;
  return (
    <Alert color="teal" variant="light" title={t('{n} messages in quarantine would be stored now', { n: would })}>
      <Stack gap="xs">
        {cures.map((cure) => (
          <Group key={cure.id} justify="space-between" wrap="nowrap">
            <Text size="sm">{t('{n} of {m}', { n: cure.wouldCure, m: cure.entries })} · {cure.reason}</Text>
            <Redrive selection={{ cause: cure.id }} />
          </Group>
        ))}
      </Stack>
    </Alert>
  );
}

/** Drives a selection back in, and shows how far it is. */
export function Redrive({ selection, label }: { selection: Selection; label?: string }) {
  const { t } = useWords();
  const may = useMay('operator');
  const [id, setId] = useState<number>();
  const [error, setError] = useState<unknown>();
  if (!may) return null;
  if (id !== undefined) return <JobProgress id={id} />;
  const begin = async () => {
    setError(undefined);
    try {
      const job = (await ok(api.POST('/api/v1/quarantine/redrives', { body: { selection } as never }))) as unknown as Job;
      setId(job.id);
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Stack gap="xs">
      <Button size="sm" onClick={() => void begin()}>{label ?? t('Re-drive')}</Button>
      <ProblemAlert error={error} />
    </Stack>
  );
}

export function JobProgress({ id }: { id: number }) {
  const { t } = useWords();
  const client = useQueryClient();
  const job = useQuery({
    queryKey: ['redrive', id],
    queryFn: async () => (await ok(api.GET('/api/v1/quarantine/redrives/{id}', { params: { path: { id } } }))) as unknown as Job,
    refetchInterval: (query) => (query.state.data?.state === 'running' ? 500 : false),
  });
  const isOver = job.data !== undefined && job.data.state !== 'running';
  useEffect(() => {
    if (isOver) void client.invalidateQueries({ queryKey: ['quarantine'] });
  }, [isOver, client]);
  if (!job.data) return <ProblemAlert error={job.error} />;
  const { entries, stored, partly, refused, skipped, state, error } = job.data;
  const done = stored + partly + refused + skipped;
  const cancel = () => ok(api.POST('/api/v1/quarantine/redrives/{id}/cancel', { params: { path: { id } } })).then(() => job.refetch());
  return (
    <Stack gap={4} miw={260} data-testid="redrive">
      <Progress value={entries ? (100 * done) / entries : 100} aria-label={t('Re-drive {id}', { id })} />
      <Group gap="xs">
        <State state={state} />
        <Text size="sm" className="numbers" role="status">{t('{n} stored, {p} partly, {r} refused again, {s} skipped, of {m}', { n: stored, p: partly, r: refused, s: skipped, m: entries })}</Text>
        {state === 'running' && <Button size="compact-xs" variant="default" onClick={() => void cancel()}>{t('Cancel')}</Button>}
      </Group>
      {error && <Text size="sm">{error}</Text>}
    </Stack>
  );
}
