// Fields of forms: what the gateway refuses is told at the field that it names.
import { NumberInput } from '@mantine/core';
import type { ReactNode } from 'react';
import { Problem } from '../api/client';

/** Tells of a member, by its path such as `errorBudget.refused`, why it was refused. */
export type Faults = (path: string) => string | undefined;

/** What a refusal says of members: each message that begins with the path of one. */
export function faultsOf(error: unknown): Faults {
  if (!error) return () => undefined;
  const problem = Problem.from(error);
  const said = [...problem.errors.map((error) => error.message), problem.detail];
  return (path) => {
    const found = said.find((text) => text === path || [':', '.', '['].some((end) => text.startsWith(`${path}${end}`)));
    return found?.slice(path.length).replace(/^[:\s]+/, '');
  };
}

/** A number with its unit, or none. */
export function Amount({ label, unit, help, value, onChange, error, min = 0, max, decimals = false, placeholder, w = 220 }: {
  label: string; unit: string; help?: ReactNode; value: number | undefined; onChange: (value: number | undefined) => void; error?: string | undefined; min?: number; max?: number; decimals?: boolean; placeholder?: string; w?: number | string;
}) {
  return (
    <NumberInput
      label={`${label} (${unit})`} description={help} error={error} w={w} min={min} {...(max !== undefined && { max })} clampBehavior="none" allowNegative={false} allowDecimal={decimals}
      thousandSeparator={'\u202f'} placeholder={placeholder ?? ''} inputWrapperOrder={['label', 'input', 'description', 'error']}
      value={value ?? ''} onChange={(value) => onChange(value === '' ? undefined : Number(value))}
    />
  );
}
