// What is made of history, on the overview: rollups, archives, and files that come in.
import { useQuery } from '@tanstack/react-query';
import { api, ok } from '../api/client';
import { useWords } from '../i18n';
import { Ago, count } from '../time';
import { Stat } from '../ui/page';
import { useArchives } from './archives';
import { useDerived } from './rollups';

const LOOK_MS = 5000;

/** Rollups that are current, and how much waits to be computed. */
export function Computed() {
  const { t } = useWords();
  const all = useDerived().data ?? [];
  if (all.length === 0) return null;
  const current = all.filter((one) => one.state === 'current').length;
  const failed = all.some((one) => one.failures > 0);
  return <Stat label={t('Rollups current')} value={`${count(current)} / ${count(all.length)}`} to={failed ? '/rollups?state=failing' : '/rollups'} tone={failed ? 'bad' : undefined} detail={t('{n} spans wait to be computed', { n: count(all.reduce((sum, one) => sum + one.dirtySpans, 0)) })} />;
}

/** Archives, the days that they have to write, and whether the last run of one failed. */
export function Archived() {
  const { t } = useWords();
  const all = useArchives().data ?? [];
  if (all.length === 0) return null;
  const failed = all.filter((one) => one.state === 'failed').length;
  return <Stat label={t('Days to archive')} value={count(all.reduce((sum, one) => sum + one.daysDue, 0))} to={failed > 0 ? '/archives?state=failed' : '/archives'} tone={failed > 0 ? 'bad' : undefined} detail={failed > 0 ? t('the last run of {n} archives failed', { n: failed }) : t('{n} archives', { n: all.length })} />;
}

/** Files that come in, else the last one that did. */
export function Imported() {
  const { t } = useWords();
  const imports = useQuery({ queryKey: ['imports', 'newest'], queryFn: async () => (await ok(api.GET('/api/v1/imports', { params: { query: { limit: 20 } } }))).items, refetchInterval: LOOK_MS }).data ?? [];
  const [last] = imports;
  if (!last) return null;
  const running = imports.filter((one) => one.state === 'running').length;
  const isBad = last.state === 'failed' || last.state === 'interrupted';
  return <Stat label={t('Files that come in')} value={count(running)} to={running > 0 ? '/imports?state=running' : '/imports'} tone={isBad ? 'bad' : last.rows.rejected > 0 ? 'warn' : undefined} detail={<>{last.file} · <Ago ms={last.began} /></>} />;
}
