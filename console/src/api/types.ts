// Shapes that the API description leaves open; the gateway's documentation tells them (docs/).

export interface LogEntry {
  id: number;
  time: number;
  channel: string;
  clientId: string;
  kind: 'connect' | 'disconnect' | 'transmission' | 'error' | 'audit' | 'dropped';
  remote?: string;
  protocol?: string;
  reason?: string;
  topic?: string;
  bytes?: number;
  items?: number;
  code?: number;
  ms?: number;
  receipt?: string;
  message?: string;
  deviceKey?: string;
  point?: string;
  entries?: number;
}

export interface Step {
  stage: string;
  ok: boolean;
  detail: string;
  made?: string;
}

export interface Recording {
  id: number;
  time: number;
  clientId: string;
  topic: string;
  code: number;
  bytes: number;
  whole: boolean;
  gzip: boolean;
  payloadHex: string;
  payloadBase64: string;
  payload?: string;
  steps: Step[];
  reply: string;
  receipt: string;
  judgeMs: number;
  commitMs: number;
  totalMs: number;
}

export interface Reason {
  index?: number;
  deviceKey?: string;
  point?: string;
  code: number;
  message: string;
}

export interface DryRun {
  code?: number;
  items?: number;
  stored?: number;
  values?: number;
  rejected?: Reason[];
  more?: number;
  steps?: Step[];
  skipped?: string;
}

export interface Quarantined {
  id: string;
  time: number;
  channel: string;
  clientId: string;
  topic: string;
  productKey: string;
  bytes: number;
  sha256: string;
  truncated: boolean;
  code: number;
  reason: string;
  subject: { index?: number; deviceKey?: string; point?: string };
  rejected: Reason[];
  more: number;
  cause: number;
  attempts: number;
  lastAttempt?: number;
  payload?: string;
  payloadBase64?: string;
}

export interface Cure {
  id: number;
  channel: string;
  productKey: string;
  code: number;
  deviceKey?: string;
  point?: string;
  entries: number;
  first: number;
  last: number;
  example: string;
  reason: string;
  wouldCure: number;
  tried: number;
  advice: string;
}

export interface Job {
  id: number;
  messagesPerSecond: number;
  began: number;
  ended?: number;
  state: 'running' | 'done' | 'cancelled';
  error?: string;
  entries: number;
  stored: number;
  partly: number;
  refused: number;
  skipped: number;
}

export interface Selection {
  all?: boolean;
  ids?: string[];
  cause?: number;
  channel?: string;
  code?: number;
  device?: string;
  point?: string;
  clientId?: string;
}

export interface DataType {
  type: string;
  unit?: string;
  signal?: string;
  quality?: boolean;
  description?: string;
  maxLength?: number;
  values?: Record<string, string>;
  [more: string]: unknown;
}

export interface ModelFile {
  kind: 'Model';
  name: string;
  description?: string;
  passthrough?: boolean;
  measurepoints?: Record<string, DataType>;
  attributes?: Record<string, DataType>;
  events?: Record<string, { level?: string; output?: Record<string, DataType>; description?: string }>;
  [more: string]: unknown;
}

export interface ProductFile {
  kind: 'Product';
  name: string;
  key?: string;
  model: string;
  format?: 'json' | 'custom';
  description?: string;
}

export interface DeviceFile {
  kind: 'Device';
  name: string;
  product: string;
  key?: string;
  assetId?: string;
  timezone?: string;
  attributes?: Record<string, unknown>;
}

/** What one share of a channel allows in a second; no number is no bound. */
export interface Rates {
  messagesPerSecond?: number;
  pointsPerSecond?: number;
  bytesPerSecond?: number;
}

export interface ChannelFile {
  kind: 'Channel';
  name: string;
  product: string;
  mode?: 'strict' | 'lenient';
  stampArrival?: boolean;
  conflict?: 'keep-last' | 'keep-first' | 'higher-quality';
  connectionsMax?: number;
  refuse?: ('sha1' | 'md5')[];
  quotas?: Rates & { recent?: Rates & { withinSeconds: number } };
  clientCertificate?: { required?: boolean; sha256?: string[]; subject?: Record<string, string> };
  errorBudget?: { refused: number; windowSeconds?: number; messagesMin?: number; hold?: boolean };
  description?: string;
  [more: string]: unknown;
}

export interface Golden {
  name?: string;
  decode?: string;
  encode?: unknown;
  time?: number;
  expect?: unknown;
  fails?: string;
}

export interface ScriptFile {
  kind?: 'Script';
  name?: string;
  product: string;
  dialect?: string;
  mapping?: unknown;
  keepState?: boolean;
  source: string;
  golden?: Golden[];
  description?: string;
}

export interface Page<T> {
  items: T[];
  next?: string;
}

export interface Conflict {
  deviceKey: string;
  point: string;
  time: number;
  overwritten: unknown;
  kept: unknown;
  overwrittenReceipt: string;
  keptReceipt: string;
  overwrittenChannel?: string;
  keptChannel?: string;
}

export interface AccessKeyFile {
  kind: 'AccessKey';
  name: string;
  key?: string;
  description?: string;
}

export interface SubscriptionFile {
  kind: 'Subscription';
  name: string;
  type?: 'points' | 'events';
  accessKey: string;
  models?: string[];
  points?: string[];
  events?: string[];
  devices?: string[];
  retentionHours?: number;
  partitions?: number;
  begin?: 'now' | 'oldest';
  description?: string;
}

/** How a subscription stands; one that does not run has neither rate nor groups. */
export interface Standing {
  name: string;
  type: 'points' | 'events';
  accessKey: string;
  state: 'running' | 'stopped' | 'failed';
  port: number;
  rate?: number;
  behind?: number;
  skippedCommits?: number;
  droppedMessages?: number;
  bytes?: number;
  partitions?: { partition: number; oldest: number; next: number }[];
  groups?: {
    group: string;
    members: number;
    lag: number;
    rate: number;
    offsets: { partition: number; committed?: number; position: number; lag: number; member?: number }[];
  }[];
}

export interface Comparison {
  above?: number;
  atLeast?: number;
  below?: number;
  atMost?: number;
  equals?: boolean | number | string;
  not?: boolean | number | string;
}

/** One step of what a rule makes: an object of one member. */
export interface RuleStep {
  select?: string[];
  rename?: Record<string, string>;
  scale?: Record<string, { factor?: number; offset?: number }>;
  set?: Record<string, string>;
  keep?: string;
  script?: string;
}

export interface RuleFile {
  kind: 'Rule';
  name: string;
  from?: {
    type?: 'points' | 'events' | 'attributes';
    channels?: string[];
    products?: string[];
    models?: string[];
    devices?: string[];
    points?: string[];
    events?: string[];
    attributes?: string[];
    where?: Record<string, Comparison>;
    calculated?: 'exclude' | 'include' | 'only';
    [more: string]: unknown;
  };
  make?: RuleStep[];
  to: {
    kafka?: { topic: string; key?: string; headers?: Record<string, string>; guarantee?: 'at-least-once' | 'exactly-once' };
    webhook?: { url: string; format?: 'ndjson' | 'json' | 'records'; headers?: Record<string, string>; recordsMax?: number; timeoutS?: number };
    calculated?: { points: string[] };
    [more: string]: unknown;
  };
  begin?: 'now' | 'oldest';
  description?: string;
}

/** How a rule stands; one that does not run has no cursor. */
export interface RuleStanding {
  name: string;
  type: 'points' | 'events' | 'attributes';
  destination: 'kafka' | 'webhook' | 'calculated';
  version: number;
  state: 'running' | 'stopped' | 'idle' | 'failed';
  reason?: string;
  hasSecret: boolean;
  cursor?: number;
  lag?: number;
  arrived?: number;
  published?: number;
  rate?: number;
  failures?: number;
  error?: { since: number; reason: string; fenced: boolean };
  skippedCommits?: number;
  deadLetters?: number;
  deadLettersWaiting?: number;
  deadLettersDropped?: number;
  replay?: { from: number; until: number; source: string; reached: number; published: number };
}

export interface DeadLetter {
  id: number;
  time: number;
  receipt: string;
  channel: string;
  assetId: string;
  cause: 'make' | 'script' | 'refused';
  reason: string;
  version: number;
  line?: number;
  column?: number;
  attempts: number;
  waits: boolean;
  message?: unknown;
  made?: unknown;
}

export interface RuleTrial {
  rows: number;
  matched: number;
  records: { address: string; key: string; headers: Record<string, string>; value: unknown }[];
  errors: { reason: string; line?: number; column?: number; message?: unknown }[];
  console?: string;
  destination: string;
  idle?: string;
}

/** One step of a policy: points, and one thing that is done to them. */
export interface PolicyStep {
  points: string[];
  scale?: { factor?: number; offset?: number };
  unit?: { from: string; to: string };
  clamp?: { min?: number; max?: number };
  range?: { min?: number; max?: number; otherwise: 'flag' | 'drop' | 'quarantine'; quality?: number };
  rename?: string;
  copy?: string;
  expression?: string;
  script?: { reads: string[]; source: string };
}

export interface PolicyFile {
  kind: 'Policy';
  name: string;
  order?: number;
  models?: string[];
  products?: string[];
  channels?: string[];
  processing?: PolicyStep[];
  storage?: StorageRule | StorageRule[];
  analysis?: RollupRule[];
  afterCommit?: ReductionRule[];
  description?: string;
  [more: string]: unknown;
}

export interface Done {
  policy: string;
  step: number;
  point: string;
  does: string;
  script?: string;
}

/** A rollup or reduction that reads a point. */
export interface DerivedOfPoint {
  name: string;
  kind: 'rollup' | 'reduction';
  policy: string;
  interval: string;
  timeZone?: string;
  functions?: string[];
  does: string;
}

/** What a change of policies would do to a rollup or reduction. */
export interface DerivedChange {
  name: string;
  kind: 'rollup' | 'reduction';
  product: string;
  change: 'appears' | 'recomputed' | 'goes';
  interval: string;
  devices: number;
  windowsMax: number;
}

export interface StorageRule {
  models?: string[];
  of?: 'points' | 'events' | 'attributes';
  points?: string[];
  keep?: 'raw' | 'minute' | 'both';
  changeOnly?: boolean;
  quiet?: string;
  keepDays?: number;
  rawDays?: number;
  by?: 'event' | 'import';
}

export interface Kept {
  policy: string;
  rule: number;
  keepDays?: number;
  by: 'event' | 'import';
  from?: number;
  keep: 'raw' | 'minute' | 'both';
  changeOnly: boolean;
  does: string;
}

export interface EffectivePolicy {
  product: string;
  deviceKey: string;
  point: string;
  revision: number;
  processing: { channel: string; steps: Done[] }[];
  storage?: Kept;
  derived?: DerivedOfPoint[];
}

export interface PolicyPreview {
  derived?: DerivedChange[];
  processing: { product: string; channel: string; point: string; devices: number; before: Done[]; after: Done[] }[];
  more: number;
  storage: {
    product: string; before?: Kept; after?: Kept; values?: number; valuesMax: number; rows: number; rowsInAll: number; segments: number; bytes: number;
    points: { point: string; before?: Kept; after?: Kept; values?: number }[];
    morePoints: number;
    devices: { deviceKey: string; values: Record<string, number> }[];
    moreDevices: number;
    events: number;
    attributeValues: number;
  }[];
}

export interface ArchiveFile {
  kind: 'Archive';
  name: string;
  products?: string[];
  of?: 'points' | 'events' | 'attributes';
  form?: 'wide' | 'long';
  format?: 'parquet' | 'csv';
  byPoint?: boolean;
  schedule?: { at?: string; days?: string[]; timezone?: string; everyMinutes?: number };
  to: {
    folder?: string;
    s3?: { bucket: string; prefix?: string; region?: string; endpoint?: string; accessKeyId: string };
    [more: string]: unknown;
  };
  description?: string;
  [more: string]: unknown;
}

/** How an archive stands. */
export interface ArchiveStanding {
  name: string;
  state: 'running' | 'stopped' | 'idle' | 'failed';
  hasSecret: boolean;
  lastRun?: { state: 'running' | 'complete' | 'failed' | 'interrupted'; began: number; ended?: number; days: number; files: number; rows: number; bytes: number; error?: string };
  nextRun?: number;
  files: number;
  rows: number;
  bytes: number;
  daysDue: number;
}

/** A window of points that is kept folded. */
export interface RollupRule {
  rollup: string;
  points?: string[];
  interval: string;
  timeZone?: string;
  functions: string[];
  hold?: string;
  lookback?: string;
  quiet?: string;
  within?: string;
  [more: string]: unknown;
}

/** What is said of values in the order of their times. */
export interface ReductionRule {
  reduction: string;
  points: string[];
  rateOfChange?: { most: number; per: string };
  deadBand?: { deviation: number };
  swingingDoor?: { deviation: number };
  restart?: string;
  quiet?: string;
  within?: string;
  [more: string]: unknown;
}
