// A rule tried: on what is stored of a device, on a request, on a message. Nothing is published.
import { Alert, Autocomplete, Button, Card, Code, Group, NumberInput, Radio, Select, Stack, Text, TextInput, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { Problem, api, ok } from '../api/client';
import type { DeviceFile, RuleFile, RuleTrial } from '../api/types';
import { useWords } from '../i18n';
import { Waiting } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { useProducts } from './channels';

const Editor = lazy(() => import('../ui/editor'));

const REQUEST = JSON.stringify({ method: 'integration.measurepoint.post', params: [{ deviceKey: 'DEVICE', time: 1700000000000, measurepoints: { POINT: 1.5 } }] }, null, 2);
const MESSAGE = JSON.stringify({ orgId: 'o1', modelId: 'MODEL', modelIdPath: '/MODEL', assetId: 'ASSET', productKey: 'KEY', deviceKey: 'DEVICE', time: 1700000000000, channel: 'OFFLINE', payload: [{ assetId: 'ASSET', time: 1700000000000, measurepoints: { POINT: 1.5 }, points: '{"POINT":1.5}' }] }, null, 2);
const SHOWN = 20;

export function Trial({ rule }: { rule: () => RuleFile }) {
  const { t } = useWords();
  const [on, setOn] = useState('history');
  const [device, setDevice] = useState('');
  const [from, setFrom] = useState('');
  const [to, setTo] = useState('');
  const [limit, setLimit] = useState<string | number>(SHOWN);
  const [product, setProduct] = useState<string | null>(null);
  const [texts, setTexts] = useState({ envelope: REQUEST, message: MESSAGE });
  const [tried, setTried] = useState<RuleTrial>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const products = useProducts();
  const devices = useQuery({
    queryKey: ['devices', 'named', device],
    queryFn: async () => ((await ok(api.GET('/api/v1/devices', { params: { query: { limit: 50, ...(device && { name: device.split('/').at(-1) ?? '' }) } } }))).items as unknown as DeviceFile[]).map((d) => `${d.product}/${d.name}`),
  });
  const parsed = (text: string) => {
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw new Problem(0, 'bad-request', (error as Error).message, t('the sample is JSON'));
    }
  };
  const run = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const sample = on === 'history' ? { history: { device, ...(from && { from }), ...(to && { to }), limit: Number(limit) } }
        : on === 'envelope' ? { envelope: { product: product ?? '', request: parsed(texts.envelope) } } : { message: parsed(texts.message) };
      const tested = await ok(api.POST('/api/v1/rule-files/test', { body: { rule: JSON.stringify({ ...rule(), kind: 'Rule' }), sample } as never }));
      setTried(tested as unknown as RuleTrial);
    } catch (error) {
      setTried(undefined);
      setError(error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Stack>
      <Title order={2} size="h4">{t('Test')}</Title>
      <Radio.Group label={t('On')} value={on} onChange={setOn}>
        <Group mt={4}><Radio value="history" label={t('what is stored of a device')} /><Radio value="envelope" label={t('a request as a device sends it')} /><Radio value="message" label={t('a message as it is published')} /></Group>
      </Radio.Group>
      {on === 'history' && (
        <Group align="flex-end">
          <Autocomplete label={t('Device of the test')} w={230} data={devices.data ?? []} value={device} onChange={setDevice} placeholder="PRODUCT/NAME" />
          <TextInput label={t('From')} w={150} value={from} onChange={(e) => setFrom(e.currentTarget.value)} placeholder="2014-01-01T00:00Z" />
          <TextInput label={t('To')} w={150} value={to} onChange={(e) => setTo(e.currentTarget.value)} placeholder="2015-01-01T00:00Z" />
          <NumberInput label={t('Rows at most')} w={110} min={1} max={1000} value={limit} onChange={setLimit} />
        </Group>
      )}
      {on === 'envelope' && <Select label={t('Product of the test')} w={230} searchable data={(products.data ?? []).map((p) => p.name)} value={product} onChange={setProduct} />}
      {on !== 'history' && (
        <Suspense fallback={<Waiting />}>
          <Editor key={on} language="json" label={t('Sample')} value={on === 'envelope' ? texts.envelope : texts.message} onChange={(text) => setTexts((texts) => ({ ...texts, [on]: text }))} />
        </Suspense>
      )}
      <Group><Button loading={busy} disabled={(on === 'history' && !device) || (on === 'envelope' && !product)} onClick={() => void run()}>{t('Run the test')}</Button></Group>
      <ProblemAlert error={error} />
      {tried && <Outcome tried={tried} />}
    </Stack>
  );
}

function Outcome({ tried }: { tried: RuleTrial }) {
  const { t } = useWords();
  return (
    <Stack gap="xs" data-testid="trial" role="status">
      <Text fw={600}>{t('Test: nothing was published')}</Text>
      <Text size="sm">{t('{n} rows tried, {m} taken', { n: tried.rows, m: tried.matched })} · {t('{n} records would go out', { n: tried.records.length })} · {t('{n} dead letters', { n: tried.errors.length })}</Text>
      {tried.idle && <Alert color="blue" variant="light" title={t('Nothing would go out at the moment')}>{tried.idle}</Alert>}
      {tried.errors.slice(0, SHOWN).map((error, at) => (
        <Alert key={at} color="red" variant="light" title={t('A dead letter')}>
          <Text size="sm">{error.reason}{error.line ? ` (${t('line {line}, column {column}', { line: error.line, column: error.column ?? 1 })})` : ''}</Text>
        </Alert>
      ))}
      {tried.console && <><Text size="sm" fw={600}>{t('Console')}</Text><pre className="mono pre" tabIndex={0} aria-label={t('Console')}>{tried.console}</pre></>}
      <div style={{ maxHeight: '70vh', overflow: 'auto' }} tabIndex={0} role="region" aria-label={t('Records')}>
      {tried.records.slice(0, SHOWN).map((record, at) => (
        <Card withBorder padding="xs" mb="xs" key={at}>
          <Text size="sm"><Code>{record.address}</Code> {record.key && <>{t('key')} <Code>{record.key}</Code></>}</Text>
          {Object.keys(record.headers).length > 0 && <Text size="xs" className="mono quiet">{Object.entries(record.headers).map(([name, value]) => `${name}: ${value}`).join(' · ')}</Text>}
          <pre className="mono pre" tabIndex={0} aria-label={t('Record {n}', { n: at + 1 })}>{JSON.stringify(record.value, null, 2)}</pre>
        </Card>
      ))}
      </div>
      {tried.records.length > SHOWN && <Text size="xs" className="quiet">{t('and {n} more', { n: tried.records.length - SHOWN })}</Text>}
    </Stack>
  );
}
