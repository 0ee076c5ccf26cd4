// Rollups and reductions: those that read a point, and what a change of policies would do to them.
import { Anchor, List, Text } from '@mantine/core';
import { Link } from 'react-router';
import type { DerivedChange, DerivedOfPoint } from '../api/types';
import { useWords } from '../i18n';
import { count } from '../time';

const of = (name: string) => `/policies/${encodeURIComponent(name)}`;

/** Those that read a point. */
export function DerivedOf({ derived }: { derived: DerivedOfPoint[] | undefined }) {
  const { t } = useWords();
  if (!derived || derived.length === 0) return <Text size="sm">{t('No rollup or reduction reads it.')}</Text>;
  return (
    <List size="sm" aria-label={t('Rollups and reductions')}>
      {derived.map((one) => (
        <List.Item key={one.name}>
          {one.kind === 'rollup' ? t('rollup {name}', { name: one.name }) : t('reduction {name}', { name: one.name })}: {one.does} · <Anchor component={Link} size="sm" to={of(one.policy)}>{one.policy}</Anchor>
        </List.Item>
      ))}
    </List>
  );
}

/** What would appear, go, or be computed once more. */
export function DerivedChanges({ changes }: { changes: DerivedChange[] | undefined }) {
  const { t } = useWords();
  if (!changes || changes.length === 0) return null;
  const would = (one: DerivedChange) => {
    const said = { name: one.name, product: one.product };
    if (one.change === 'appears') return t('{name} would appear for product {product}', said);
    return one.change === 'goes' ? t('{name} would go from product {product}, with its rows', said) : t('{name} would be computed once more for product {product}', said);
  };
  return (
    <List size="sm" aria-label={t('Rollups and reductions')}>
      {changes.map((one) => (
        <List.Item key={`${one.product} ${one.name}`}>
          {would(one)}: {t('{n} devices, at most {m} windows of {interval}', { n: count(one.devices), m: count(one.windowsMax), interval: one.interval })}
        </List.Item>
      ))}
    </List>
  );
}
