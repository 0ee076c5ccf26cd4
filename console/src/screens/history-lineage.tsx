// Where a value came from: the channel, the message, the time of its arrival.
import { Alert, Anchor, Stack } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import { useWords } from '../i18n';
import { Time } from '../time';
import { Asked, Pairs } from '../ui/page';

export interface Picked {
  device: string;
  point: string;
  time: number;
}

export function Lineage({ product, picked }: { product: string; picked: Picked }) {
  const { t } = useWords();
  const query = useQuery({
    queryKey: ['lineage', product, picked],
    queryFn: () => ok(api.GET('/api/v1/points/lineage', { params: { query: { product, ...picked } } })),
  });
  return (
    <Asked query={query}>
      {(found) => (
        <Stack data-testid="lineage">
          <Pairs of={[
            [t('Device'), <Anchor key="d" component={Link} to={`/devices?product=${encodeURIComponent(product)}&key=${encodeURIComponent(found.deviceKey)}`}>{found.deviceKey}</Anchor>], [t('Point'), found.point], [t('Time'), <Time key="t" ms={found.time} exact />],
            [t('Channel'), found.channel ? <Anchor key="c" component={Link} to={`/channels/${encodeURIComponent(found.channel)}/log?text=${encodeURIComponent(found.receipt)}`}>{found.channel}</Anchor> : '—'],
            [t('Arrived'), <Time key="a" ms={found.arrived ?? undefined} exact />],
            [t('Client'), <span key="k" className="mono">{found.clientId ?? '—'}</span>],
            [t('Topic'), <span key="o" className="mono">{found.topic ?? '—'}</span>],
            [t('Message'), <span key="m" className="mono">{found.messageId ?? '—'}</span>],
            [t('Receipt'), <span key="r" className="mono">{found.receipt}</span>],
          ]} />
          {found.channel == null && <Alert color="gray" variant="light">{t('The message is too old to be known.')}</Alert>}
          {found.channel != null && <Anchor component={Link} to={`/channels/${encodeURIComponent(found.channel)}/messages?receipt=${encodeURIComponent(found.receipt)}`}>{t('Look for the message in the flight recorder')}</Anchor>}
        </Stack>
      )}
    </Asked>
  );
}
