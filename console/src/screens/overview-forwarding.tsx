// What goes on from here, on the overview: readers, rules, and those that do not get on.
import { Anchor, Title } from '@mantine/core';
import { Link } from 'react-router';
import type { RuleStanding } from '../api/types';
import { useWords } from '../i18n';
import { Ago, count } from '../time';
import { Stat, State } from '../ui/page';
import { Rows } from '../ui/rows';
import { ruleTo, useRules } from './rules';
import { lagOf, useStandings } from './subscriptions';

const NAMED = 5;

/** Subscriptions, and how far the one that is furthest behind is. */
export function Readers() {
  const { t } = useWords();
  const standings = useStandings().data ?? [];
  if (standings.length === 0) return null;
  const [lag, failed] = [Math.max(...standings.map(lagOf)), standings.filter((one) => one.state === 'failed').length];
  const running = standings.filter((one) => one.state === 'running').length;
  return <Stat label={t('Greatest lag of a subscription')} value={count(lag)} to="/subscriptions" tone={failed > 0 ? 'bad' : undefined} detail={t('{n} of {m} subscriptions run', { n: running, m: standings.length })} />;
}

/** Rules that run, how far the one that is furthest behind is, and whether one does not get on. */
export function Lags() {
  const { t } = useWords();
  const rules = useRules().data ?? [];
  if (rules.length === 0) return null;
  const running = rules.filter((one) => one.state === 'running');
  const bad = rules.some((one) => one.error || one.state === 'failed');
  const letters = rules.reduce((sum, one) => sum + (one.deadLetters ?? 0), 0);
  const to = rules.some((one) => one.error) ? '/rules?state=failing' : rules.some((one) => one.state === 'failed') ? '/rules?state=failed' : '/rules';
  return <Stat label={t('Greatest lag of a rule')} value={count(Math.max(0, ...running.map((one) => one.lag ?? 0)))} to={to} tone={bad ? 'bad' : letters > 0 ? 'warn' : undefined} detail={t('{n} of {m} rules run, {k} dead letters', { n: running.length, m: rules.length, k: count(letters) })} />;
}

/** Rules that fail or lag behind, the worst first; nothing where all get on. */
export function Troubled() {
  const { t } = useWords();
  const rules = (useRules().data ?? []).filter((one) => one.error || one.state === 'failed' || (one.lag ?? 0) > 0 || (one.deadLettersWaiting ?? 0) > 0);
  if (rules.length === 0) return null;
  const isBad = (one: RuleStanding) => one.error !== undefined || one.state === 'failed';
  const worst = rules.toSorted((a, b) => Number(isBad(b)) - Number(isBad(a)) || (b.lag ?? 0) - (a.lag ?? 0)).slice(0, NAMED);
  return (
    <section>
      <Title order={2} size="h4" mb="xs">{t('Rules that lag or fail')}</Title>
      <Rows
        label={t('Rules that lag or fail')} rows={worst} id={(one) => one.name}
        columns={[
          { name: t('Rule'), cell: (one) => <Anchor component={Link} to={ruleTo(one.name)}>{one.name}</Anchor> },
          { name: t('State'), cell: (one) => <State state={one.error ? 'failing' : one.state} /> },
          { name: t('Lag, commits'), right: true, cell: (one) => (one.lag === undefined ? '—' : <Anchor component={Link} to={ruleTo(one.name)}>{count(one.lag)}</Anchor>) },
          { name: t('Dead letters'), right: true, cell: (one) => (one.deadLetters === undefined ? '—' : <Anchor component={Link} to={ruleTo(one.name, 'dead-letters')}>{count(one.deadLetters)}</Anchor>) },
          { name: t('Cause'), cell: (one) => (one.error ? <>{one.error.reason} · <Ago ms={one.error.since} /></> : (one.reason ?? '')) },
        ]}
      />
    </section>
  );
}
