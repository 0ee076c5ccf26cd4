// A chart of many series over time. A drag chooses a range; a click asks for a value.
import { useComputedColorScheme } from '@mantine/core';
import { useEffect, useRef } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { breaks, type Gap } from './gaps';

export interface Line {
  name: string;
  times: number[];
  values: number[];
  /** Where there is nothing: the line does not go on over it. */
  gaps: Gap[];
  /** Marks each value that stands out, by its colour. */
  marks?: Map<number, string>;
}

const COLOURS = { light: ['#0b7285', '#c2255c', '#5f3dc4', '#2b8a3e', '#d9480f', '#1864ab', '#862e9c', '#5c940d'], dark: ['#66d9e8', '#faa2c1', '#b197fc', '#8ce99a', '#ffc078', '#74c0fc', '#e599f7', '#c0eb75'] };

export default function Chart({ lines, zone, label, onRange, onPick }: {
  lines: Line[]; zone: string; label: string; onRange: (from: number, to: number) => void; onPick: (line: number, time: number) => void;
}) {
  const parent = useRef<HTMLDivElement>(null);
  const scheme = useComputedColorScheme('light');
  const told = useRef({ onRange, onPick });
  told.current = { onRange, onPick };
  useEffect(() => {
    const own = parent.current;
    if (!own || lines.length === 0) return;
    const [axis, grid] = scheme === 'dark' ? ['#ced4da', '#ffffff1c'] : ['#343a40', '#00000014'];
    const data = uPlot.join(lines.map(broken));
    const isFew = lines.map((line) => line.times.length < 200);
    // Where each line's own values are among the joined times.
    const marksOf = (plot: uPlot) => {
      for (const line of lines) {
        for (const [time, colour] of line.marks ?? []) {
          const where = line.times.indexOf(time);
          const value = line.values[where];
          if (value === undefined) continue;
          const [x, y] = [plot.valToPos(time, 'x', true), plot.valToPos(value, 'y', true)];
          plot.ctx.fillStyle = colour;
          plot.ctx.beginPath();
          plot.ctx.arc(x, y, 4 * devicePixelRatio, 0, 2 * Math.PI);
          plot.ctx.fill();
        }
      }
    };
    const pick = (plot: uPlot) => {
      const { left, top } = plot.cursor;
      if (left === undefined || left < 0 || top === undefined) return;
      const time = plot.posToVal(left, 'x');
      let best: { line: number; time: number; far: number } | undefined;
      lines.forEach((line, at) => {
        const near = closest(line.times, time);
        const value = line.values[near];
        const found = line.times[near];
        if (value === undefined || found === undefined) return;
        const far = Math.hypot(plot.valToPos(found, 'x') - left, plot.valToPos(value, 'y') - top);
        if (!best || far < best.far) best = { line: at, time: found, far };
      });
      if (best) told.current.onPick(best.line, best.time);
    };
    const plot = new uPlot({
      width: own.clientWidth, height: 360, ms: 1,
      tzDate: (ms) => uPlot.tzDate(new Date(ms), zone === 'UTC' ? 'Etc/UTC' : zone),
      cursor: { drag: { x: true, y: false, setScale: false } },
      axes: [{ stroke: axis, grid: { stroke: grid }, ticks: { stroke: grid } }, { stroke: axis, grid: { stroke: grid }, ticks: { stroke: grid }, size: 70 }],
      series: [{ value: '{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}' }, ...lines.map((line, at) => ({ label: line.name, stroke: COLOURS[scheme][at % 8] ?? axis, width: 1.2, points: { show: isFew[at] ?? false, filter: (plot: uPlot, series: number) => (isFew[series - 1] ? null : alone(plot.data[series] ?? [])) } }))],
      hooks: {
        draw: [marksOf],
        setSelect: [(plot) => {
          if (plot.select.width < 5) return;
          told.current.onRange(Math.floor(plot.posToVal(plot.select.left, 'x')), Math.ceil(plot.posToVal(plot.select.left + plot.select.width, 'x')));
        }],
        ready: [(plot) => {
          let at = 0;
          plot.over.addEventListener('mousedown', (event) => { at = event.clientX; });
          plot.over.addEventListener('click', (event) => { if (Math.abs(event.clientX - at) < 4) pick(plot); });
          own.dataset['drawn'] = String(lines.reduce((sum, line) => sum + line.times.length, 0));
        }],
      },
    }, data, own);
    const resized = new ResizeObserver(() => plot.setSize({ width: own.clientWidth, height: 360 }));
    resized.observe(own);
    return () => {
      resized.disconnect();
      plot.destroy();
      delete own.dataset['drawn'];
    };
  }, [lines, zone, scheme]);
  return <div ref={parent} className="chart" role="img" aria-label={label} data-testid="chart" />;
}

/** A line that does not go on over what is missing: a value that is none begins each gap. */
function broken(line: Line): [number[], (number | null)[]] {
  const [times, values]: [number[], (number | null)[]] = [[], []];
  const gaps = breaks(line.times, line.gaps);
  line.times.forEach((time, at) => {
    times.push(time);
    values.push(line.values[at] ?? null);
    if (gaps.has(time)) {
      times.push(time + 1);
      values.push(null);
    }
  });
  return [times, values];
}

/** Where a value stands between two gaps: no line shows it. */
function alone(values: ArrayLike<number | null | undefined>): number[] {
  const found: number[] = [];
  let [before, at]: [number | null | undefined, number | undefined] = [null, undefined];
  for (let here = 0; here < values.length; here += 1) {
    const value = values[here];
    if (value === undefined) continue;
    if (value === null && at !== undefined && before === null) found.push(at);
    before = at === undefined ? null : values[at];
    at = here;
  }
  if (at !== undefined && before === null && values[at] != null) found.push(at);
  return found;
}

/** The index of the time that is nearest. */
function closest(times: number[], time: number): number {
  let [low, high] = [0, times.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((times[middle] ?? 0) <= time) low = middle;
    else high = middle;
  }
  return Math.abs((times[low] ?? 0) - time) <= Math.abs((times[high] ?? 0) - time) ? low : high;
}
