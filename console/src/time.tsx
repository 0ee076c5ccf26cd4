// How times and numbers are shown: UTC unless another zone is chosen.
import { createContext, useContext, useState, type ReactNode } from 'react';
import { useWords } from './i18n';

const KEPT = 'backtide.zone';
const Context = createContext<{ zone: string; setZone: (zone: string) => void } | undefined>(undefined);

export function ZoneProvider({ children }: { children: ReactNode }) {
  const [zone, set] = useState(() => localStorage.getItem(KEPT) ?? 'UTC');
  const setZone = (zone: string) => {
    localStorage.setItem(KEPT, zone);
    set(zone);
  };
  return <Context value={{ zone, setZone }}>{children}</Context>;
}

export function useZone() {
  const zone = useContext(Context);
  if (!zone) throw new Error('outside of ZoneProvider');
  return zone;
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** `2014-03-30 01:00:00.000` in that zone; milliseconds only where there are some. */
export function formatTime(ms: number, zone: string, exact = false): string {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat('sv-SE', {
      timeZone: zone,
      year: 'numeric', month: '2-digit', day: '2-digit',
      hour: '2-digit', minute: '2-digit', second: '2-digit',
    });
    formats.set(zone, format);
  }
  const text = format.format(ms);
  const rest = ((ms % 1000) + 1000) % 1000;
  return exact || rest ? `${text}.${String(rest).padStart(3, '0')}` : text;
}

export function useTime() {
  const { zone } = useZone();
  return (ms: number, exact = false) => formatTime(ms, zone, exact);
}

export function Time({ ms, exact }: { ms: number | undefined; exact?: boolean }) {
  const { zone } = useZone();
  if (ms === undefined) return <>—</>;
  return (
    <time dateTime={new Date(ms).toISOString()} title={`${formatTime(ms, zone, true)} ${zone}`} style={{ whiteSpace: 'nowrap' }}>
      {formatTime(ms, zone, exact)}
    </time>
  );
}

/** How long ago, in words. */
export function Ago({ ms }: { ms: number | undefined }) {
  const { language, t } = useWords();
  const { zone } = useZone();
  if (ms === undefined) return <>{t('never')}</>;
  const seconds = (ms - Date.now()) / 1000;
  const size = Math.abs(seconds);
  const format = new Intl.RelativeTimeFormat(language, { numeric: 'auto' });
  const [unit, per]: [Intl.RelativeTimeFormatUnit, number] =
    size < 60 ? ['second', 1] : size < 3600 ? ['minute', 60] : size < 86400 ? ['hour', 3600] : ['day', 86400];
  return <span title={`${formatTime(ms, zone, true)} ${zone}`}>{format.format(Math.round(seconds / per), unit)}</span>;
}

export function count(number: number): string {
  return number.toLocaleString('en-US', { maximumFractionDigits: number < 10 ? 1 : 0 });
}

export function bytes(size: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (size >= 1024 && at < units.length - 1) {
    size /= 1024;
    at += 1;
  }
  return `${size.toLocaleString('en-US', { maximumFractionDigits: at === 0 ? 0 : 1 })} ${units[at]}`;
}

/** A length of time, short: `3 d 4 h`, `12 min`. */
export function span(ms: number): string {
  const [days, hours, minutes] = [Math.floor(ms / 86_400_000), Math.floor(ms / 3_600_000) % 24, Math.floor(ms / 60_000) % 60];
  if (days > 0) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours > 0) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return minutes > 0 ? `${minutes} min` : `${(ms / 1000).toLocaleString('en-US', { maximumFractionDigits: 1 })} s`;
}

/** A value as a person reads it: what only the binary form of a decimal adds is left out. */
export function figure(value: number): string {
  return String(Number(value.toPrecision(12)));
}
