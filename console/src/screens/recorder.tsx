// The flight recorder of a channel: messages as they came, what the pipeline made of them, and the
// same again as a dry run.
import { Badge, Button, Card, Drawer, Group, NumberInput, Select, Stack, Text, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { api, ok } from '../api/client';
import type { DryRun, Page, Recording } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, bytes } from '../time';
import { Asked, Empty, Pairs, useFilters } from '../ui/page';
import { DryRunOutcome, Payload, Steps } from '../ui/payload';
import { Code, ProblemAlert, tellProblem } from '../ui/problem';
import { Rows } from '../ui/rows';

export default function Recorder({ name }: { name: string }) {
  const { t } = useWords();
  const filters = useFilters();
  const client = useQueryClient();
  const may = useMay('operator');
  const [minutes, setMinutes] = useState<string | null>('15');
  const [sample, setSample] = useState<string | number>(100);
  const path = { params: { path: { name } } };
  const code = filters.get('code');
  const receipt = filters.get('receipt');
  const selected = filters.get('message');
  const state = useQuery({ queryKey: ['trace', name], queryFn: () => ok(api.GET('/api/v1/channels/{name}/trace', path)), refetchInterval: 5000 });
  const listed = useQuery({
    queryKey: ['trace', name, 'messages', code],
    queryFn: async () => (await ok(api.GET('/api/v1/channels/{name}/trace/messages', { params: { path: { name }, query: { tail: true, limit: 200, ...(code && { code: Number(code) }) } } }))) as unknown as Page<Recording>,
    refetchInterval: state.data?.recording ? 2000 : false,
  });
  const act = async (work: () => Promise<unknown>) => {
    try {
      await work();
      await client.invalidateQueries({ queryKey: ['trace', name] });
    } catch (error) {
      tellProblem(error);
    }
  };
  const start = () => act(() => ok(api.PUT('/api/v1/channels/{name}/trace', { ...path, body: { seconds: minutes ? Number(minutes) * 60 : null, sample: Number(sample) / 100 } })));
  const stop = () => act(() => ok(api.DELETE('/api/v1/channels/{name}/trace', path)));
  return (
    <Stack>
      <Card withBorder>
        <Asked query={state}>
          {(state) => (
            <Group align="flex-end">
              <Badge variant="light" color={state.recording ? 'red' : 'gray'} size="lg" role="status">{state.recording ? t('recording') : t('not recording')}</Badge>
              {state.recording
                ? <>
                    <Text size="sm">{state.until ? <>{t('until')} <Time ms={state.until} /></> : t('until it is stopped')} · {Math.round(100 * (state.sample ?? 1))} %</Text>
                    {may && <Button variant="default" onClick={() => void stop()}>{t('Stop')}</Button>}
                  </>
                : may && <>
                    <Select label={t('For')} w={150} clearable placeholder={t('until stopped')} value={minutes} onChange={setMinutes} data={[{ value: '15', label: t('15 minutes') }, { value: '60', label: t('1 hour') }, { value: '1440', label: t('1 day') }]} />
                    <NumberInput label={t('Share of messages, %')} w={160} min={1} max={100} value={sample} onChange={setSample} />
                    <Button onClick={() => void start()}>{t('Record')}</Button>
                  </>}
              {state.dropped > 0 && <Text size="sm">{t('{n} messages found no room in the recorder', { n: state.dropped })}</Text>}
            </Group>
          )}
        </Asked>
      </Card>
      <Group align="flex-end">
        <NumberInput label={t('Code')} w={120} hideControls value={code} onChange={(code) => filters.set({ code: String(code) })} />
        {receipt && <Button variant="default" onClick={() => filters.set({ receipt: null })}>{t('Receipt {receipt}', { receipt })} ✕</Button>}
      </Group>
      <Asked query={listed}>
        {(page) => (
          <Rows
            label={t('Messages')} rows={page.items.filter((r) => !receipt || r.receipt === receipt).toReversed()} id={(r) => String(r.id)}
            onSelect={(r) => filters.set({ message: String(r.id) })}
            columns={[
              { name: t('Time'), cell: (r) => <Time ms={r.time} exact /> },
              { name: t('Code'), cell: (r) => <Code code={r.code} /> },
              { name: t('Topic'), cell: (r) => <span className="mono">{r.topic}</span> },
              { name: t('Size'), right: true, cell: (r) => bytes(r.bytes) },
              { name: t('Took'), right: true, cell: (r) => `${r.totalMs.toFixed(1)} ms` },
            ]}
            empty={<Empty>{receipt ? t('The recorder does not hold that message: it was not recording when it came.') : t('Nothing is recorded. Start the recorder, then let a client send.')}</Empty>}
          />
        )}
      </Asked>
      <Drawer opened={selected !== ''} onClose={() => filters.set({ message: null })} position="right" size="xl" title={t('Message')} closeButtonProps={{ 'aria-label': t('Close') }}>
        {selected && <Inspector channel={name} id={Number(selected)} />}
      </Drawer>
    </Stack>
  );
}

function Inspector({ channel, id }: { channel: string; id: number }) {
  const { t } = useWords();
  const path = { params: { path: { name: channel, id } } };
  const query = useQuery({
    queryKey: ['trace', channel, 'message', id],
    queryFn: async () => (await ok(api.GET('/api/v1/channels/{name}/trace/messages/{id}', path))) as unknown as Recording,
  });
  const [run, setRun] = useState<DryRun>();
  const [error, setError] = useState<unknown>();
  const again = async () => {
    setError(undefined);
    try {
      setRun((await ok(api.POST('/api/v1/channels/{name}/trace/messages/{id}/run', path))) as unknown as DryRun);
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Asked query={query}>
      {(message) => (
        <Stack>
          <Pairs of={[
            [t('Arrived'), <Time key="t" ms={message.time} exact />],
            [t('Verdict'), <Code key="c" code={message.code} />],
            [t('Topic'), <span key="o" className="mono">{message.topic}</span>],
            [t('Client'), <span key="k" className="mono">{message.clientId}</span>],
            [t('Size'), `${bytes(message.bytes)}${message.gzip ? ', GZIP' : ''}${message.whole ? '' : `, ${t('only its beginning is kept')}`}`],
            [t('Receipt'), <span key="r" className="mono">{message.receipt}</span>],
            [t('Took'), t('{judge} ms to judge, {commit} ms to make durable, {total} ms in all', { judge: message.judgeMs.toFixed(2), commit: message.commitMs.toFixed(2), total: message.totalMs.toFixed(2) })],
          ]} />
          <section><Title order={3} size="h5">{t('Payload')}</Title><Payload text={message.payload} hex={message.payloadHex} /></section>
          <section><Title order={3} size="h5">{t('Steps')}</Title><Steps steps={message.steps} /></section>
          <section><Title order={3} size="h5">{t('Reply')}</Title><pre className="mono pre" tabIndex={0} aria-label={t('Reply')}>{message.reply}</pre></section>
          <Button onClick={() => void again()}>{t('Run again as dry run')}</Button>
          <ProblemAlert error={error} />
          {run && <DryRunOutcome run={run} />}
        </Stack>
      )}
    </Asked>
  );
}
