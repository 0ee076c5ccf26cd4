// Which column of a file is the device, the time, a point: as the gateway's mapping says it (docs/files.md).

export interface Mapping {
  device?: string | undefined;
  deviceColumn?: string | undefined;
  timeColumn?: string | undefined;
  timezone?: string | undefined;
  long: boolean;
  pointColumn?: string | undefined;
  valueColumn?: string | undefined;
  qualityColumn?: string | undefined;
  /** Points by the names of columns, or by the names that a long file gives them. */
  map: Record<string, string>;
  drop: string[];
  absent: string[];
}

export const PLAIN: Mapping = { long: false, map: {}, drop: [], absent: [] };

const QUALITY = '.quality';

export type Role = { is: 'device' | 'time' | 'drop' } | { is: 'quality' | 'point'; point: string } | { is: 'name' | 'value' | 'grade' };

/** What a column is by this mapping. */
export function roleOf(column: string, mapping: Mapping): Role {
  const mapped = mapping.map[column];
  if (mapped !== undefined && !mapping.long) return { is: 'point', point: mapped };
  if (mapping.drop.includes(column) && !mapping.long) return { is: 'drop' };
  if (mapping.device === undefined && column === (mapping.deviceColumn ?? 'deviceKey')) return { is: 'device' };
  if (column === (mapping.timeColumn ?? 'time')) return { is: 'time' };
  if (mapping.long) {
    if (column === (mapping.pointColumn ?? 'point')) return { is: 'name' };
    if (column === (mapping.valueColumn ?? 'value')) return { is: 'value' };
    if (column === (mapping.qualityColumn ?? 'quality')) return { is: 'grade' };
    return { is: 'drop' };
  }
  if (column.endsWith(QUALITY)) return { is: 'quality', point: column.slice(0, -QUALITY.length) };
  return { is: 'point', point: column };
}

/** The mapping in which a column of a wide file is that: device, time, drop, or the name of a point behind a colon. */
export function withRole(mapping: Mapping, column: string, role: string): Mapping {
  const { [column]: _, ...map } = mapping.map;
  const made: Mapping = { ...mapping, map, drop: mapping.drop.filter((other) => other !== column) };
  if (made.deviceColumn === column) made.deviceColumn = undefined;
  if (made.timeColumn === column) made.timeColumn = undefined;
  if (role === 'device') return { ...made, device: undefined, deviceColumn: column };
  if (role === 'time') return { ...made, timeColumn: column };
  if (role === 'drop') return { ...made, drop: [...made.drop, column] };
  const point = role.slice(1);
  return point === column ? made : { ...made, map: { ...map, [column]: point } };
}

const DEVICE_LIKE = /device|turbine|asset|equipment|station|machine|sensor|serial/i;
const TIME_LIKE = /^(t|ts)$|time|date|zeit/i;

/** What the columns of a file look like; a guess for a person to look over. */
export function guessed(columns: string[], points: string[]): Mapping {
  const made: Mapping = { ...PLAIN };
  const free = columns.filter((column) => !points.includes(column));
  if (columns.includes('point') && columns.includes('value')) made.long = true;
  if (!columns.includes('deviceKey')) made.deviceColumn = free.find((column) => DEVICE_LIKE.test(column));
  if (!columns.includes('time')) made.timeColumn = free.find((column) => TIME_LIKE.test(column) && column !== made.deviceColumn);
  if (made.long || points.length === 0) return made;
  // A point of the same name but for its case, else what no point takes is left out.
  for (const column of free) {
    if (roleOf(column, made).is !== 'point') continue;
    const same = points.find((point) => point.toLowerCase() === column.toLowerCase());
    if (same) made.map = { ...made.map, [column]: same };
    else made.drop = [...made.drop, column];
  }
  return made;
}

/** As a mapping file, in JSON, which is YAML: names of columns may hold anything. */
export function textOf(mapping: Mapping): string {
  const { device, deviceColumn, timeColumn, timezone, long, pointColumn, valueColumn, qualityColumn, map, drop, absent } = mapping;
  return JSON.stringify({
    ...(device !== undefined ? { device } : deviceColumn && { 'device-column': deviceColumn }),
    ...(timeColumn && { 'time-column': timeColumn }), ...(timezone && { timezone }),
    ...(long && { long, ...(pointColumn && { 'point-column': pointColumn }), ...(valueColumn && { 'value-column': valueColumn }), ...(qualityColumn && { 'quality-column': qualityColumn }) }),
    ...(Object.keys(map).length > 0 && { map }), ...(drop.length > 0 && { drop }), ...(absent.length > 0 && { absent }),
  });
}
