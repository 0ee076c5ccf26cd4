// How long the disk lasts as the data grows, and what is said while too little is known.
import type { ReactNode } from 'react';
import type { Schemas } from '../api/client';
import { useWords } from '../i18n';
import { bytes, span } from '../time';
import { Stat } from '../ui/page';

type Growth = Schemas['DataGrowth'];

const WARN_DAYS = 30;
const BAD_DAYS = 7;

function useGrowth(growth: Growth): { lasts: ReactNode; why: string } {
  const { t } = useWords();
  const measured = span(1000 * growth.measuredSeconds);
  const perDay = growth.bytesPerDay ?? 0;
  if (growth.state === 'unknown') return { lasts: t('not known yet'), why: t('measured for {span}; an hour says something', { span: measured }) };
  const rate = perDay < 0 ? t('{size} a day less', { size: bytes(-perDay) }) : t('{size} a day more', { size: bytes(perDay) });
  const why = t('{rate}, as measured for {span}', { rate, span: measured });
  if (growth.state === 'steady') return { lasts: t('for years'), why };
  const days = growth.daysLeft;
  if (days == null) return { lasts: t('not known'), why: t('the free space cannot be read; {rate}', { rate }) };
  return { lasts: t('{n} days', { n: days < 10 ? Number(days.toFixed(1)) : Math.floor(days) }), why };
}

export function Lasts({ growth }: { growth: Growth }) {
  const { t } = useWords();
  const { lasts, why } = useGrowth(growth);
  const days = growth.daysLeft ?? Infinity;
  return <Stat label={t('The disk lasts')} value={lasts} to="/storage" tone={days < BAD_DAYS ? 'bad' : days < WARN_DAYS ? 'warn' : undefined} detail={why} />;
}

/** The same as rows of a list. */
export function useGrowthPairs(growth: Growth | undefined): [string, ReactNode][] {
  const { t } = useWords();
  const { lasts, why } = useGrowth(growth ?? { state: 'unknown', measuredSeconds: 0, neededSeconds: 0 });
  if (!growth) return [];
  return [
    [t('Data directory'), growth.dataBytes == null ? '—' : bytes(growth.dataBytes)],
    [t('The disk lasts'), <>{lasts} <span className="quiet">({why})</span></>],
  ];
}
