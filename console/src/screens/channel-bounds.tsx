// What a channel's bounds say, in words.
import type { ReactNode } from 'react';
import type { ChannelFile, Rates } from '../api/types';
import { useWords } from '../i18n';
import { bytes, count, span } from '../time';

export const WINDOW_S = 300;
export const MESSAGES_MIN = 20;

/** A share as a person reads it: 0.2 is 20. */
export const percentOf = (share: number) => Number((share * 100).toPrecision(12));
export const shareOf = (percent: number) => Number((percent / 100).toPrecision(12));

/** Name and meaning of each bound. */
export function useBounds(file: ChannelFile): [string, ReactNode][] {
  const { t } = useWords();
  const rates = (of: Rates) => [
    of.messagesPerSecond !== undefined && t('{n} messages a second', { n: count(of.messagesPerSecond) }),
    of.pointsPerSecond !== undefined && t('{n} values a second', { n: count(of.pointsPerSecond) }),
    of.bytesPerSecond !== undefined && t('{size} a second', { size: bytes(of.bytesPerSecond) }),
  ].filter(Boolean).join(' · ') || t('as much as the gateway takes');
  const certificate = () => {
    const rule = file.clientCertificate;
    if (!rule) return t('not asked for');
    const subject = Object.entries(rule.subject ?? {}).map(([name, value]) => `${name}=${value}`);
    return [
      rule.required ? t('needed') : t('may be left out; one that is shown has to fit'),
      ...(subject.length > 0 ? [subject.join(', ')] : []),
      ...(rule.sha256?.length ? [t('one of {n} fingerprints', { n: rule.sha256.length })] : []),
    ].join(' · ');
  };
  const budget = () => {
    const of = file.errorBudget;
    if (!of) return t('none');
    return t('{percent} % of messages may be refused within {span}, of {n} or more', { percent: percentOf(of.refused), span: span(1000 * (of.windowSeconds ?? WINDOW_S)), n: count(of.messagesMin ?? MESSAGES_MIN) })
      + ` · ${of.hold ? t('beyond, the channel is held') : t('beyond, an alarm is raised')}`;
  };
  const { quotas } = file;
  return [
    [t('Client certificate'), certificate()],
    [t('Quotas'), quotas ? rates(quotas) : t('none')],
    ...(quotas?.recent ? [[t('Quotas of recent data'), `${t('values of the last {span}', { span: span(1000 * quotas.recent.withinSeconds) })}: ${rates(quotas.recent)}`] as [string, ReactNode]] : []),
    [t('Connections at one time'), file.connectionsMax === undefined ? t('the gateway’s own limit') : count(file.connectionsMax)],
    ...(file.refuse?.length ? [[t('Sign methods refused'), file.refuse.join(', ')] as [string, ReactNode]] : []),
    [t('Error budget'), budget()],
  ];
}
