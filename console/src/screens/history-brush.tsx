// The whole history as a strip below the chart: two handles choose the range that is shown.
import { RangeSlider } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { api, ok, type Schemas } from '../api/client';
import { useWords } from '../i18n';
import { useTime } from '../time';

const BUCKETS = 200;
/** By which an arrow key moves a handle: parts of the whole. */
const STEPS = 200;
const HEIGHT = 40;

/** `from` and `to` are the range that is asked for, in milliseconds; none is an end of the whole. */
export function Brush({ product, device, points, from, to, onRange }: {
  product: string; device: string; points: string; from: number | undefined; to: number | undefined; onRange: (from: number | undefined, to: number | undefined) => void;
}) {
  const { t } = useWords();
  const time = useTime();
  const whole = useQuery({
    queryKey: ['extremes', 'whole', product, device, points],
    queryFn: () => ok(api.GET('/api/v1/points/extremes', { params: { query: { product, device, points, buckets: BUCKETS } } })),
    placeholderData: (before) => before,
  });
  const series = whole.data?.series ?? [];
  const first = Math.min(...series.map((one) => one.times[0] ?? Infinity));
  const last = Math.max(...series.map((one) => one.times.at(-1) ?? -Infinity));
  const [range, setRange] = useState<[number, number]>();
  const within = (value: number | undefined, otherwise: number) => Math.min(last, Math.max(first, value ?? otherwise));
  useEffect(() => setRange(undefined), [from, to, first, last]);
  if (!(last > first)) return null;
  const shown = range ?? [within(from, first), within(to, last)];
  const step = Math.max(1, Math.floor((last - first) / STEPS));
  const choose = ([low, high]: [number, number]) => {
    if (high <= low) return setRange(undefined);
    // The end is exclusive; a handle at an end of the whole leaves it open.
    onRange(low - first < step ? undefined : low, last - high < step ? undefined : high);
  };
  return (
    <div data-testid="brush">
      <svg viewBox={`0 0 1000 ${HEIGHT}`} preserveAspectRatio="none" width="100%" height={HEIGHT} aria-hidden>
        {series.map((one, at) => <polyline key={`${one.deviceKey} ${one.point}`} points={outline(one, first, last)} className={`brush-line brush-line-${at % 4}`} vectorEffect="non-scaling-stroke" />)}
        <rect className="brush-out" x={0} y={0} height={HEIGHT} width={(1000 * (shown[0] - first)) / (last - first)} />
        <rect className="brush-out" x={(1000 * (shown[1] - first)) / (last - first)} y={0} height={HEIGHT} width={(1000 * (last - shown[1])) / (last - first)} />
      </svg>
      <RangeSlider
        min={first} max={last} step={step} minRange={step} value={shown} onChange={setRange} onChangeEnd={choose} label={(value) => time(Math.round(value))} size="sm"
        thumbFromLabel={t('Shown from')} thumbToLabel={t('Shown to')} thumbValueText={(value) => time(Math.round(value))}
      />
    </div>
  );
}

/** A line of the least and greatest values, over the whole height. */
function outline({ times, values }: Schemas['ExtremeSeries'], first: number, last: number): string {
  const [low, high] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const scale = high > low ? (HEIGHT - 4) / (high - low) : 0;
  return times.map((time, at) => `${((1000 * (time - first)) / (last - first)).toFixed(1)},${(HEIGHT - 2 - ((values[at] ?? low) - low) * scale).toFixed(1)}`).join(' ');
}
