// What a rule could not make or deliver: why, of what, and the ways out.
import { Anchor, Button, Checkbox, Drawer, Group, Stack, Text } from '@mantine/core';
import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { Link } from 'react-router';
import { api, ok } from '../api/client';
import type { DeadLetter, RuleStanding } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Time, count } from '../time';
import { Asked, Empty, Pairs, Sure, useFilters } from '../ui/page';
import { tell, tellProblem } from '../ui/problem';
import { Rows } from '../ui/rows';

type Selection = { ids: number[] } | { all: true };

export function DeadLetters({ standing }: { standing: RuleStanding }) {
  const { t } = useWords();
  const may = useMay('operator');
  const filters = useFilters();
  const client = useQueryClient();
  const [chosen, setChosen] = useState<number[]>([]);
  const name = standing.name;
  const waiting = standing.deadLettersWaiting ?? 0;
  const letters = useInfiniteQuery({
    queryKey: ['rules', name, 'letters'],
    queryFn: async ({ pageParam }) => (await ok(api.GET('/api/v1/rules/{name}/dead-letters', { params: { path: { name }, query: { limit: 100, ...(pageParam && { cursor: pageParam }) } } }))) as unknown as { items: DeadLetter[]; next?: number },
    initialPageParam: 0,
    getNextPageParam: (last) => last.next,
  });
  // What was driven again leaves the list, or stays with a new reason.
  useEffect(() => void client.invalidateQueries({ queryKey: ['rules', name, 'letters'] }), [client, name, waiting, standing.deadLetters]);
  const path = { params: { path: { name } } };
  const redrive = async (selection: Selection) => {
    try {
      const { letters } = await ok(api.POST('/api/v1/rules/{name}/dead-letters/redrive', { ...path, body: selection }));
      setChosen([]);
      await client.invalidateQueries({ queryKey: ['rules'] });
      tell(t('{n} dead letters go through the rule again.', { n: count(letters) }));
    } catch (error) {
      tellProblem(error);
    }
  };
  const discard = async (selection: Selection) => {
    await ok(api.POST('/api/v1/rules/{name}/dead-letters/discard', { ...path, body: selection }));
    setChosen([]);
    await client.invalidateQueries({ queryKey: ['rules'] });
  };
  const toggle = (id: number) => setChosen(chosen.includes(id) ? chosen.filter((other) => other !== id) : [...chosen, id]);
  const causes = { make: t('could not be made'), script: t('the script failed'), refused: t('the destination refused it') };
  return (
    <Asked query={letters}>
      {({ pages }) => {
        const items = pages.flatMap((page) => page.items);
        const selection: Selection = chosen.length > 0 ? { ids: chosen } : { all: true };
        const n = chosen.length || (standing.deadLetters ?? items.length);
        return (
          <Stack>
            <Group>
              {may && items.length > 0 && <>
                <Button onClick={() => void redrive(selection)}>{chosen.length > 0 ? t('Re-drive {n} chosen', { n }) : t('Re-drive all')}</Button>
                <Sure label={chosen.length > 0 ? t('Discard {n} chosen', { n }) : t('Discard all')} title={t('Discard {n} dead letters?', { n })} onSure={() => discard(selection)}>{t('They are gone for good. What is stored of them stays.')}</Sure>
              </>}
              {waiting > 0 && <Text size="sm" role="status">{t('{n} dead letters are about to be driven again', { n: waiting })}</Text>}
            </Group>
            <Rows
              label={t('Dead letters')} rows={items} id={(letter) => String(letter.id)} onSelect={(letter) => filters.set({ letter: String(letter.id) })}
              columns={[
                ...(may ? [{ name: t('Choose'), cell: (l: DeadLetter) => <Checkbox aria-label={t('Choose {id}', { id: l.id })} checked={chosen.includes(l.id)} onChange={() => toggle(l.id)} /> }] : []),
                { name: t('Put aside'), cell: (l) => <Time ms={l.time} exact /> },
                { name: t('Cause'), cell: (l) => causes[l.cause] },
                { name: t('Reason'), cell: (l) => <Text size="sm" span style={{ overflowWrap: 'anywhere' }}>{l.reason}{l.line ? ` (${t('line {line}, column {column}', { line: l.line, column: l.column ?? 1 })})` : ''}</Text> },
                { name: t('Asset id'), cell: (l) => <span className="mono">{l.assetId}</span> },
                { name: t('Tried'), right: true, cell: (l) => (l.waits ? t('waits') : l.attempts) },
              ]}
              empty={<Empty>{t('Everything that the rule took could be made and delivered.')}</Empty>}
            />
            {letters.hasNextPage && <Button variant="default" onClick={() => void letters.fetchNextPage()}>{t('More')}</Button>}
            <Drawer opened={filters.get('letter') !== ''} onClose={() => filters.set({ letter: null })} position="right" size="xl" title={t('Dead letter')} closeButtonProps={{ 'aria-label': t('Close') }}>
              {filters.get('letter') && <Letter rule={name} id={Number(filters.get('letter'))} />}
            </Drawer>
          </Stack>
        );
      }}
    </Asked>
  );
}

function Letter({ rule, id }: { rule: string; id: number }) {
  const { t } = useWords();
  const query = useQuery({
    queryKey: ['rules', rule, 'letter', id],
    queryFn: async () => (await ok(api.GET('/api/v1/rules/{name}/dead-letters/{id}', { params: { path: { name: rule, id } } }))) as unknown as DeadLetter,
  });
  const shown = (title: string, of: unknown) => of !== undefined && <section><Text size="sm" fw={600}>{title}</Text><pre className="mono pre" tabIndex={0} aria-label={title}>{JSON.stringify(of, null, 2)}</pre></section>;
  return (
    <Asked query={query}>
      {(letter) => (
        <Stack>
          <Pairs of={[
            [t('Reason'), letter.reason], [t('Put aside'), <Time key="t" ms={letter.time} exact />], [t('Version of the rule'), String(letter.version)], [t('Tried again'), String(letter.attempts)],
            [t('Channel'), letter.channel], [t('Receipt'), <Anchor key="r" component={Link} className="mono" to={`/storage?receipt=${encodeURIComponent(letter.receipt)}`}>{letter.receipt}</Anchor>],
          ]} />
          {shown(t('The message as it was stored'), letter.message)}
          {shown(t('What the rule made of it'), letter.made)}
        </Stack>
      )}
    </Asked>
  );
}
