// Thing models of others, as JSON: the vendor's (maps keyed by identifier) and the one of lists with
// `identifier` and `dataType`. Both become one of ours; anything else stays as it is.

type Json = Record<string, unknown>;

const TYPES: Record<string, string> = {
  int: 'int', int32: 'int', integer: 'int', long: 'long', int64: 'long', float: 'float', double: 'double', bool: 'bool', boolean: 'bool',
  enum: 'enum', text: 'string', string: 'string', date: 'date', datetime: 'datetime', timestamp: 'timestamp', struct: 'struct', array: 'array',
  map: 'map', object: 'map', file: 'file',
};

const record = (value: unknown): Json => (value && typeof value === 'object' && !Array.isArray(value) ? (value as Json) : {});
const text = (value: unknown): string | undefined => {
  if (typeof value === 'string') return value;
  // Texts in several languages.
  const named = record(value);
  const told = named['defaultValue'] ?? named['en_US'] ?? named['zh_CN'];
  return typeof told === 'string' ? told : undefined;
};

function specs(value: unknown): Json {
  if (typeof value !== 'string') return record(value);
  try {
    return record(JSON.parse(value));
  } catch {
    return {};
  }
}

/** One element, of either shape. */
function element(of: Json): Json {
  const given = of['dataType'];
  const inner = record(given);
  const word = String(typeof given === 'string' ? given : (inner['type'] ?? 'string')).toLowerCase();
  const type = TYPES[word] ?? 'string';
  const more = { ...specs(of['dataDefinition']), ...specs(inner['specs']) };
  const unit = text(record(of['unit'])['unitId'] ?? of['unit'] ?? more['unit']);
  const made: Json = { type };
  if (unit) made['unit'] = unit;
  const values = record(more['enumDesc'] ?? (type === 'enum' ? (Object.keys(record(inner['specs'])).length ? inner['specs'] : undefined) : undefined));
  if (type === 'enum') made['values'] = Object.fromEntries(Object.entries(values).map(([key, value]) => [key, text(value) ?? String(value)]));
  if (type === 'array') made['items'] = TYPES[String(more['itemType'] ?? record(more['item'])['type'] ?? 'double').toLowerCase()] ?? 'double';
  if (type === 'struct') {
    const members = Array.isArray(inner['specs']) ? inner['specs'] : ((more['items'] as unknown[] | undefined) ?? []);
    made['members'] = Object.fromEntries(members.map((member) => [String(record(member)['identifier']), element(record(member))]));
  }
  if (type === 'string' && Number(more['maxLength'] ?? more['length']) > 0) made['maxLength'] = Number(more['maxLength'] ?? more['length']);
  const signal = of['signalType'];
  if (signal === 'AI' || signal === 'DI' || signal === 'PI') made['signal'] = signal;
  if (of['hasQuality'] === true) made['quality'] = true;
  return made;
}

function elements(of: unknown): Json | undefined {
  const named: [string, unknown][] = Array.isArray(of) ? of.map((one) => [String(record(one)['identifier']), one]) : Object.entries(record(of));
  if (named.length === 0) return undefined;
  return Object.fromEntries(named.map(([name, one]) => [name, element(record(one))]));
}

function events(of: unknown): Json | undefined {
  const named: [string, unknown][] = Array.isArray(of) ? of.map((one) => [String(record(one)['identifier']), one]) : Object.entries(record(of));
  if (named.length === 0) return undefined;
  return Object.fromEntries(named.map(([name, one]) => {
    const level = String(record(one)['eventType'] ?? record(one)['type'] ?? 'info').toLowerCase();
    return [name, { level: level.startsWith('err') ? 'error' : level.startsWith('warn') || level === 'alert' ? 'warn' : 'info', output: elements(record(one)['outputData']) ?? {} }];
  }));
}

/** The text as `apply` takes it. */
export function fromThingModel(given: string): string {
  if (!/^\s*\{/.test(given)) return given;
  let parsed: Json;
  try {
    parsed = JSON.parse(given) as Json;
  } catch {
    return given;
  }
  const model = record(parsed['data'] ?? parsed);
  const isOurs = 'kind' in model;
  const points = model['measurepoints'] ?? model['properties'];
  if (isOurs || points === undefined) return given;
  const name = String(model['modelId'] ?? model['identifier'] ?? record(model['profile'])['productKey'] ?? text(model['name']) ?? 'imported');
  return JSON.stringify([{
    kind: 'Model', name: name.replace(/[^\p{L}\p{N}_.-]/gu, '-').slice(0, 64),
    ...(text(model['desc']) && { description: text(model['desc']) }),
    measurepoints: elements(points) ?? {},
    ...(elements(model['attributes']) && { attributes: elements(model['attributes']) }),
    ...(events(model['events']) && { events: events(model['events']) }),
  }]);
}
