// What stands before a script: a clock that stands, seeded chance, a console that is caught, Buffer, and the
// driver that the worker calls. Evaluated as one function; what it returns is seen by the worker alone.
//
// Scripts may change any built-in. So everything here uses what it took hold of before a script ran, and no
// syntax that looks something up in a prototype (no for-of, spread, destructuring of arrays).
(function (global, options) {
  'use strict';

  const Reflect_ = Reflect;
  const { ownKeys, getOwnPropertyDescriptor, defineProperty, deleteProperty, getPrototypeOf, isExtensible, construct,
    apply } = Reflect_;
  const { stringify, parse } = JSON;
  const { isArray } = Array;
  const { isView } = ArrayBuffer;
  const { imul } = Math;
  const { fromCharCode } = String;
  const TypeError_ = TypeError, String_ = String, Error_ = Error, Object_ = Object, Array_ = Array, Number_ = Number;
  const { freeze, hasOwn } = Object_;
  const dateToString = Date.prototype.toString, getTime = Date.prototype.getTime, charCodeAt = String_.prototype.charCodeAt;
  const numberToString = Number_.prototype.toString, trimText = String_.prototype.trim;

  const hide = (object, name, value) =>
    defineProperty(object, name, { value, writable: true, enumerable: false, configurable: true });

  // --- time and chance ---

  let now = 0;
  let chance = 0;
  const RealDate = Date;
  // Of a script over the rows of a policy: the same row gives the same values, whenever it comes.
  const rows = options.rows;
  const absent = (what) => { throw new TypeError_(what + ' is not there in a policy: the same row gives the same values'); };
  function Date_(year, month, day, hours, minutes, seconds, ms) {
    if (rows && (new.target === undefined || arguments.length === 0)) absent('the time of day');
    if (new.target === undefined) return apply(dateToString, new RealDate(now), []);
    return construct(RealDate, arguments.length === 0 ? [now] : arguments, new.target);
  }
  hide(Date_, 'name', 'Date');
  Date_.prototype = RealDate.prototype;
  defineProperty(Date_, 'prototype', { writable: false });
  hide(RealDate.prototype, 'constructor', Date_);
  hide(Date_, 'now', function now_() { return rows ? absent('Date.now') : now; });
  hide(Date_, 'parse', RealDate.parse);
  hide(Date_, 'UTC', RealDate.UTC);
  hide(global, 'Date', Date_);

  hide(Math, 'random', function random() {
    if (rows) absent('Math.random');
    chance = (chance + 0x6d2b79f5) | 0;
    let t = imul(chance ^ (chance >>> 15), 1 | chance);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  });

  // Clocks, threads and the garbage collector's doings would make the same input give another output.
  for (const name of ['performance', 'Atomics', 'SharedArrayBuffer', 'WeakRef', 'FinalizationRegistry', 'queueMicrotask'])
    deleteProperty(global, name);

  // Text that is run outside of the script could declare what no sweep finds.
  let touched = false;
  const realEval = global.eval;
  hide(global, 'eval', function eval_(text) {
    if (rows) absent('eval');
    touched = true;
    return realEval(text);
  });

  // --- console ---

  let lines = '';
  const shown = (value) => {
    if (typeof value === 'string') return value;
    if (typeof value === 'object' && value !== null && !(value instanceof Error_)) {
      try {
        const text = stringify(value);
        if (text !== undefined) return text;
      } catch (error) { /* as it names itself, then */ }
    }
    try { return String_(value); } catch (error) { return '?'; }
  };
  function log() {
    if (lines.length >= options.consoleMax) return;
    let line = '';
    for (let i = 0; i < arguments.length; i++) line += (i ? ' ' : '') + shown(arguments[i]);
    lines += line + '\n';
  }
  const console_ = {};
  for (const name of ['log', 'info', 'warn', 'error', 'debug', 'trace']) hide(console_, name, log);
  hide(global, 'console', console_);

  // --- Buffer ---

  hide(global, 'Buffer', makeBuffer());

  // --- what modules would have ---

  let module_ = { exports: {} };
  if (!rows) {
    hide(global, 'module', module_);
    hide(global, 'exports', module_.exports);
  }

  // --- calling a script ---

  const mapping = options.mapping;
  const path = (text) => text.split('.');
  const values = mapping ? (mapping.values === undefined ? (options.dialect === 'decodeUplink' ? ['data'] : []) : path(mapping.values)) : null;
  const device = mapping && mapping.device;
  const devicePath = device && typeof device === 'object' && device.result !== undefined ? path(device.result) : null;
  const timePath = mapping && mapping.time && mapping.time.result !== undefined ? path(mapping.time.result) : null;
  const timeFactor = mapping && mapping.time && mapping.time.unit === 's' ? 1000 : 1;
  const points = [];
  if (mapping && mapping.points) {
    const names = ownKeys(mapping.points);
    for (let i = 0; i < names.length; i++) points[i] = { name: names[i], path: path(mapping.points[names[i]]) };
  }
  const fail = (message) => { const error = new TypeError_(message); hide(error, 'isOurs', true); return error; };

  function at(value, steps) {
    for (let i = 0; i < steps.length; i++) {
      if (value === undefined || value === null) return undefined;
      value = value[steps[i]];
    }
    return value;
  }
  function number(bytes, range) {
    let value = 0;
    for (let i = range[0]; i < range[1]; i++) value = value * 256 + bytes[i];
    return value;
  }
  function need(bytes, end, what) {
    if (bytes.length < end) throw fail('the message has ' + bytes.length + ' bytes, the mapping reads ' + what + ' up to byte ' + end);
  }
  function part(bytes, from) {
    need(bytes, from, 'the payload');
    const rest = new Array_(bytes.length - from);
    for (let i = from; i < bytes.length; i++) rest[i - from] = bytes[i];
    return rest;
  }
  function deviceOf(bytes, result) {
    if (typeof device === 'string') return device;
    if (devicePath) {
      const key = at(result, devicePath);
      if (typeof key === 'string' && key !== '') return key;
      if (typeof key === 'number') return '' + key;
      throw fail('the result names no device at ' + device.result);
    }
    need(bytes, device.bytes[1], 'the device');
    if (device.as === 'number') return '' + number(bytes, device.bytes);
    let text = '';
    for (let i = device.bytes[0]; i < device.bytes[1]; i++) {
      if (device.as === 'text') { if (bytes[i] !== 0) text += fromCharCode(bytes[i]); }
      else text += (bytes[i] < 16 ? '0' : '') + apply(numberToString, bytes[i], [16]);
    }
    return text;
  }
  function timeOf(bytes, result) {
    if (!mapping.time) return now;
    if (timePath) {
      const time = at(result, timePath);
      if (typeof time === 'number') return time * timeFactor;
      if (typeof time === 'string') {
        const ms = apply(trimText, time, []) === '' ? NaN : RealDate.parse(time);
        if (ms === ms) return ms;
      }
      if (typeof time === 'object' && time !== null) return apply(getTime, time, []);
      throw fail('the result has no time at ' + mapping.time.result);
    }
    need(bytes, mapping.time.bytes[1], 'the time');
    return number(bytes, mapping.time.bytes) * timeFactor;
  }
  function envelope(bytes, result) {
    const found = at(result, values);
    if (found === null || typeof found !== 'object') throw fail('the result has no values' + (values.length ? ' at ' + mapping.values : '') + ': it is ' + shown(result));
    let measurepoints = found;
    if (mapping.points) {
      measurepoints = {};
      for (let i = 0; i < points.length; i++) {
        const value = at(found, points[i].path);
        if (value !== undefined && value !== null) hideNot(measurepoints, points[i].name, value);
      }
    } else {
      measurepoints = {};
      const names = ownKeys(found);
      for (let i = 0; i < names.length; i++) {
        const value = found[names[i]];
        if (typeof names[i] === 'string' && value !== undefined && value !== null) hideNot(measurepoints, names[i], value);
      }
    }
    return stringify({ id: '', version: '1.0', method: 'integration.measurepoint.post',
      params: [{ deviceKey: deviceOf(bytes, result), time: timeOf(bytes, result), measurepoints }] });
  }
  function hideNot(object, name, value) {
    defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  }
  function refuseErrors(result) {
    const errors = result !== null && typeof result === 'object' ? result.errors : undefined;
    if (errors === undefined || errors === null || (isArray(errors) && errors.length === 0)) return;
    let text = '';
    if (isArray(errors)) for (let i = 0; i < errors.length; i++) text += (i ? '; ' : '') + shown(errors[i]);
    else text = shown(errors);
    throw fail('the script cannot decode it: ' + text);
  }
  function isPromise(value) {
    return value !== null && typeof value === 'object' && typeof value.then === 'function';
  }
  function settled(value) {
    if (isPromise(value)) throw fail('the function returned a promise; scripts are synchronous: return the result itself');
    return value;
  }

  // A typed array is copied: the worker reads plain ones, of bearable length.
  function plain(value) {
    const isTyped = isView(value) && typeof value.length === 'number';
    if ((isTyped || isArray(value)) && value.length > options.outputMax)
      throw fail('the function returned ' + value.length + ' bytes, at most ' + options.outputMax + ' are taken');
    if (!isTyped) return value;
    const bytes = new Array_(value.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = value[i];
    return bytes;
  }

  const decoders = {
    rawDataToJsonStr: (decode, bytes) => settled(decode(bytes)),
    rawDataToProtocol(decode, bytes) {
      const result = settled(decode(bytes));
      if (result === null || typeof result !== 'object') throw fail('the function returned ' + shown(result) + ', not an object');
      return mapping ? envelope(bytes, result) : stringify(result);
    },
    decodeUplink(decode, bytes) {
      const result = settled(decode({ bytes: payload(bytes), fPort: port(bytes), recvTime: new RealDate(now), variables: {} }));
      refuseErrors(result);
      return envelope(bytes, result);
    },
    Decoder: (decode, bytes) => envelope(bytes, settled(decode(payload(bytes), port(bytes)))),
    Decode: (decode, bytes) => envelope(bytes, settled(decode(port(bytes), payload(bytes), {}))),
    transform(transform, text) {
      const result = settled(transform(parse(text)));
      if (typeof result !== 'object') throw fail('the function returned ' + shown(result) + ', not a message, an array of messages or null');
      return stringify(result);
    },
  };

  // --- rows of a policy ---

  // Names that an object has from the start are no place to assign to: what they come from is frozen.
  let hasPlainNames = true;
  if (rows) for (let j = 0; j < rows.reads.length; j++) if (rows.reads[j] in Object_.prototype) hasPlainNames = false;
  // What it says of each point of each row: 0 where it says nothing, null, or the value in an array.
  function saidOfAll(text) {
    const given = parse(text);
    let said = '[';
    for (let i = 0; i < given.length; i++) {
      const transform = body().decode;
      if (transform === undefined) throw fail('function transform is not defined');
      const row = {};
      for (let j = 0; j < rows.reads.length; j++) {
        if (hasPlainNames) row[rows.reads[j]] = given[i][j]; else hideNot(row, rows.reads[j], given[i][j]);
      }
      said += (i ? ',[' : '[') + saidOfRow(settled(transform(row))) + ']';
    }
    return said + ']';
  }
  function saidOfRow(result) {
    if (result === undefined) throw fail('transform returned nothing; return an object of points, or null to drop them');
    const { points } = rows;
    const isBare = typeof result !== 'object' || isArray(result);
    if (isBare && points.length > 1) throw fail('transform returned ' + shown(result) + ', not an object of points');
    if (!isBare && result !== null) {
      const names = ownKeys(result);
      for (let i = 0; i < names.length; i++) if (!isAmong(points, names[i])) throw fail('transform returned ' + String_(names[i]) + ', which is none of the points of the step');
    }
    let said = '';
    for (let j = 0; j < points.length; j++) {
      const value = isBare ? result : result === null ? null : hasOwn(result, points[j]) ? result[points[j]] : undefined;
      said += (j ? ',' : '') + (value === undefined ? '0' : value === null ? 'null' : '[' + jsonOf(value, points[j]) + ']');
    }
    return said;
  }
  function isAmong(names, name) {
    for (let i = 0; i < names.length; i++) if (names[i] === name) return true;
    return false;
  }
  function jsonOf(value, point) {
    if (typeof value === 'number') {
      if (value - value !== 0) throw fail('transform returned ' + value + ' for ' + point);
      return '' + value;
    }
    if (typeof value === 'bigint') return '' + value;
    const text = stringify(value);
    if (text === undefined) throw fail('transform returned a ' + typeof value + ' for ' + point);
    return text;
  }

  const payload = (bytes) => (mapping.payload ? part(bytes, mapping.payload.from) : bytes);
  const port = (bytes) => {
    if (mapping.fPort === undefined) return 1;
    if (typeof mapping.fPort === 'number') return mapping.fPort;
    need(bytes, mapping.fPort.byte + 1, 'the port');
    return bytes[mapping.fPort.byte];
  };
  const encoders = {
    jsonStrToRawData: (encode, text) => encode(text),
    protocolToRawData: (encode, text) => encode(parse(text)),
    encodeDownlink(encode, text) {
      const result = settled(encode({ data: parse(text), fPort: 1, variables: {} }));
      refuseErrors(result);
      if (result === null || typeof result !== 'object') throw fail('the function returned ' + shown(result) + ', not an object with bytes');
      return result.bytes;
    },
    Encoder: (encode, text) => encode(parse(text), 1),
    Encode: (encode, text) => encode(1, parse(text), {}),
  };
  const decoder = decoders[options.dialect], encoder = encoders[options.encoder];

  // A function of the script: by its name, or as a module would give it away.
  function found(own, name) {
    if (typeof own === 'function') return own;
    const given = global.module;
    if (given !== null && typeof given === 'object') {
      const exports = given.exports;
      if (exports !== null && (typeof exports === 'object' || typeof exports === 'function') && typeof exports[name] === 'function') return exports[name];
    }
    const bare = global.exports;
    return bare !== null && typeof bare === 'object' && typeof bare[name] === 'function' ? bare[name] : undefined;
  }

  let body, kept;
  function functions() {
    if (kept !== undefined) return kept;
    if (rows) return body();
    module_ = { exports: {} };
    global.module = module_;
    global.exports = module_.exports;
    return body();
  }
  function begin(time, salt) {
    now = time;
    chance = salt;
    lines = '';
  }

  // --- traces ---

  // Everything that a script can reach and that outlives a call, as it was before.
  const realm = [];
  let globalKeys = 0;
  const seen = new Set();
  const add = Set.prototype.add, has = Set.prototype.has;
  function remember(object) {
    if (object === null || (typeof object !== 'object' && typeof object !== 'function')) return;
    if (apply(has, seen, [object])) return;
    apply(add, seen, [object]);
    if (rows) freeze(object);
    const keys = ownKeys(object);
    // A function without members worth changing is frozen: what is not there cannot leave a trace, and nobody
    // assigns to `Math.abs.x`.
    if (typeof object === 'function' && keys.length === 2 && keys[0] === 'length' && keys[1] === 'name') {
      freeze(object);
      remember(getPrototypeOf(object));
      return;
    }
    const properties = [];
    const entry = { object, prototype: getPrototypeOf(object), isExtensible: isExtensible(object), keys, properties };
    realm[realm.length] = entry;
    for (let i = 0; i < keys.length; i++) {
      const property = getOwnPropertyDescriptor(object, keys[i]);
      properties[i] = property;
      if (object === global && (keys[i] === 'module' || keys[i] === 'exports')) continue;
      remember(property.value);
      remember(property.get);
      remember(property.set);
    }
    remember(entry.prototype);
  }
  const traceLimit = Error_.stackTraceLimit, traceMaker = Error_.prepareStackTrace;
  function isAsBefore(entry) {
    const object = entry.object;
    if (getPrototypeOf(object) !== entry.prototype || isExtensible(object) !== entry.isExtensible) return false;
    const keys = ownKeys(object);
    if (keys.length !== entry.keys.length) return false;
    for (let i = 0; i < keys.length; i++) {
      if (keys[i] !== entry.keys[i]) return false;
      const before = entry.properties[i], after = getOwnPropertyDescriptor(object, keys[i]);
      if (after.writable !== before.writable || after.enumerable !== before.enumerable
        || after.configurable !== before.configurable || after.get !== before.get || after.set !== before.set) return false;
      if (after.value !== before.value && after.value === after.value
        && !(object === global && (keys[i] === 'module' || keys[i] === 'exports'))) return false;
    }
    return true;
  }

  return {
    // Takes the script in: its body, to be run before each call, or what it has given already.
    take(given, isKept) {
      if (isKept) kept = given; else body = given;
      if (rows) {
        // Their setters keep what no freezing reaches.
        defineProperty(Error_, 'stackTraceLimit', { value: traceLimit, writable: false });
        defineProperty(Error_, 'prepareStackTrace', { value: traceMaker, writable: false });
      }
      remember(global);
      const hidden = [function* () {}, async function () {}, async function* () {}, [][Symbol.iterator](), new Map()[Symbol.iterator](),
        new Set()[Symbol.iterator](), ''[Symbol.iterator](), 'a'.matchAll(/a/g), Iterator.from({ next() {} }), [].values().map((x) => x)];
      for (let i = 0; i < hidden.length; i++) remember(getPrototypeOf(hidden[i]));
      if (body) remember(body);
      globalKeys = ownKeys(global).length;
    },
    // Which functions there are.
    has(time, salt) {
      begin(time, salt);
      const own = functions();
      return (found(own.decode, options.dialect) ? 1 : 0) + (found(own.encode, options.encoder) ? 2 : 0);
    },
    decode(bytes, time, salt) {
      begin(time, salt);
      if (rows) return saidOfAll(bytes);
      const decode = found(functions().decode, options.dialect);
      if (decode === undefined) throw fail('function ' + options.dialect + ' is not defined');
      return decoder(decode, bytes);
    },
    encode(text, time, salt) {
      begin(time, salt);
      const encode = found(functions().encode, options.encoder);
      if (encode === undefined) throw fail('function ' + options.encoder + ' is not defined');
      return plain(settled(encoder(encode, text)));
    },
    console: () => lines,
    // Removes what the call left among the globals; the rest is found by `isUntouched`.
    sweep() {
      const keys = ownKeys(global);
      for (let i = globalKeys; i < keys.length; i++) if (!deleteProperty(global, keys[i])) touched = true;
    },
    isUntouched() {
      if (touched || Error_.stackTraceLimit !== traceLimit || Error_.prepareStackTrace !== traceMaker) return false;
      for (let i = 0; i < realm.length; i++) if (!isAsBefore(realm[i])) return false;
      return true;
    },
  };

  function makeBuffer() {
    const U8 = Uint8Array;
    const utf8 = (text) => {
      const bytes = [];
      for (let i = 0; i < text.length; i++) {
        const code = text.codePointAt(i);
        if (code > 0xffff) i++;
        if (code < 0x80) bytes.push(code);
        else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
        else if (code >= 0xd800 && code <= 0xdfff) bytes.push(0xef, 0xbf, 0xbd);
        else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
        else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
      }
      return bytes;
    };
    const fromUtf8 = (bytes) => {
      let text = '';
      for (let i = 0; i < bytes.length;) {
        const first = bytes[i];
        let extra = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : -1;
        let code = extra === 0 ? first : extra === 1 ? first & 31 : extra === 2 ? first & 15 : first & 7;
        let used = 1;
        if (extra < 0) { text += '\ufffd'; i++; continue; }
        let good = true;
        for (; used <= extra; used++) {
          const next = bytes[i + used];
          let low = 0x80, high = 0xbf;
          if (used === 1) {
            if (first === 0xe0) low = 0xa0; else if (first === 0xed) high = 0x9f;
            else if (first === 0xf0) low = 0x90; else if (first === 0xf4) high = 0x8f;
          }
          if (!(next >= low && next <= high)) { good = false; break; }
          code = (code << 6) | (next & 63);
        }
        text += good ? String.fromCodePoint(code) : '\ufffd';
        i += used;
      }
      return text;
    };
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
    const toBase64 = (bytes, url) => {
      let text = '';
      for (let i = 0; i < bytes.length; i += 3) {
        const chunk = (bytes[i] << 16) | ((bytes[i + 1] || 0) << 8) | (bytes[i + 2] || 0);
        text += alphabet[chunk >> 18] + alphabet[(chunk >> 12) & 63]
          + (i + 1 < bytes.length ? alphabet[(chunk >> 6) & 63] : '=') + (i + 2 < bytes.length ? alphabet[chunk & 63] : '=');
      }
      return url ? text.replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '') : text;
    };
    const fromBase64 = (text) => {
      const bytes = [];
      let bits = 0, count = 0;
      for (let i = 0; i < text.length; i++) {
        const char = text[i];
        if (char === '=') break;
        const value = char === '-' ? 62 : char === '_' ? 63 : alphabet.indexOf(char);
        if (value < 0) continue;
        bits = ((bits << 6) | value) & 0xffffff;
        count += 6;
        if (count >= 8) { count -= 8; bytes.push((bits >> count) & 255); }
      }
      return bytes;
    };
    const fromHex = (text) => {
      const bytes = [];
      for (let i = 0; i + 1 < text.length; i += 2) {
        const pair = text.slice(i, i + 2);
        if (!/^[0-9a-fA-F]{2}$/.test(pair)) break;
        bytes.push(parseInt(pair, 16));
      }
      return bytes;
    };
    const toHex = (bytes) => {
      let text = '';
      for (let i = 0; i < bytes.length; i++) text += (bytes[i] < 16 ? '0' : '') + bytes[i].toString(16);
      return text;
    };
    const chars = (bytes, mask) => {
      let text = '';
      for (let i = 0; i < bytes.length; i++) text += String.fromCharCode(bytes[i] & mask);
      return text;
    };
    const units = (text, width) => {
      const bytes = [];
      for (let i = 0; i < text.length; i++) {
        const code = text.charCodeAt(i);
        bytes.push(code & 255);
        if (width === 2) bytes.push(code >> 8);
      }
      return bytes;
    };
    const encodings = {
      utf8: [utf8, fromUtf8], hex: [fromHex, toHex], base64: [fromBase64, (bytes) => toBase64(bytes, false)],
      base64url: [fromBase64, (bytes) => toBase64(bytes, true)], ascii: [(text) => units(text, 1), (bytes) => chars(bytes, 127)],
      latin1: [(text) => units(text, 1), (bytes) => chars(bytes, 255)],
      utf16le: [(text) => units(text, 2), (bytes) => {
        let text = '';
        for (let i = 0; i + 1 < bytes.length; i += 2) text += String.fromCharCode(bytes[i] | (bytes[i + 1] << 8));
        return text;
      }],
    };
    encodings['utf-8'] = encodings.utf8;
    encodings.binary = encodings.latin1;
    encodings.ucs2 = encodings['ucs-2'] = encodings['utf-16le'] = encodings.utf16le;
    const encoding = (name) => {
      const known = encodings[String(name === undefined ? 'utf8' : name).toLowerCase()];
      if (!known) throw new TypeError('Unknown encoding: ' + name);
      return known;
    };

    class Buffer extends U8 {
      constructor(value, second, third) {
        if (typeof value === 'string') super(encoding(second)[0](value));
        else if (value instanceof ArrayBuffer) super(value, second, third);
        else super(value);
      }
      static from(value, second, third) {
        if (typeof value === 'number') throw new TypeError('The first argument must not be of type number');
        if (value && value.type === 'Buffer' && Array.isArray(value.data)) return new Buffer(value.data);
        return new Buffer(value, second, third);
      }
      static alloc(size, value, name) {
        const buffer = new Buffer(size);
        return value === undefined ? buffer : buffer.fill(value, name);
      }
      static allocUnsafe(size) { return new Buffer(size); }
      static isBuffer(value) { return value instanceof Buffer; }
      static isEncoding(name) { return encodings[String(name).toLowerCase()] !== undefined; }
      static byteLength(value, name) { return typeof value === 'string' ? encoding(name)[0](value).length : value.byteLength; }
      static concat(list, size) {
        let total = 0;
        for (const part of list) total += part.length;
        const whole = new Buffer(size === undefined ? total : size);
        let at = 0;
        for (const part of list) {
          const room = whole.length - at;
          if (room <= 0) break;
          U8.prototype.set.call(whole, part.length > room ? part.slice(0, room) : part, at);
          at += part.length;
        }
        return whole;
      }
      static compare(a, b) {
        for (let i = 0; i < a.length && i < b.length; i++) if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
        return Math.sign(a.length - b.length);
      }
      compare(other) { return Buffer.compare(this, other); }
      equals(other) { return Buffer.compare(this, other) === 0; }
      toString(name, start = 0, end = this.length) { return encoding(name)[1](U8.prototype.subarray.call(this, start, end)); }
      toJSON() { return { type: 'Buffer', data: Array.from(this) }; }
      slice(start, end) { return this.subarray(start, end); }
      write(text, offset, length, name) {
        if (typeof offset === 'string') { name = offset; offset = 0; length = undefined; }
        else if (typeof length === 'string') { name = length; length = undefined; }
        offset = offset || 0;
        const bytes = encoding(name)[0](text);
        const count = Math.min(bytes.length, this.length - offset, length === undefined ? Infinity : length);
        for (let i = 0; i < count; i++) this[offset + i] = bytes[i];
        return count;
      }
      copy(target, at = 0, start = 0, end = this.length) {
        const count = Math.max(0, Math.min(end - start, target.length - at));
        U8.prototype.set.call(target, U8.prototype.subarray.call(this, start, start + count), at);
        return count;
      }
      fill(value, start, end, name) {
        if (typeof value !== 'string') return U8.prototype.fill.call(this, value, start, end);
        if (typeof start === 'string') { name = start; start = 0; }
        const bytes = encoding(name)[0](value);
        const last = end === undefined ? this.length : end;
        for (let i = start || 0; i < last && bytes.length; i++) this[i] = bytes[(i - (start || 0)) % bytes.length];
        return this;
      }
      indexOf(value, from = 0, name) {
        if (typeof value === 'number') return U8.prototype.indexOf.call(this, value & 255, from);
        const wanted = typeof value === 'string' ? encoding(name)[0](value) : value;
        for (let i = from; i + wanted.length <= this.length; i++) {
          let k = 0;
          while (k < wanted.length && this[i + k] === wanted[k]) k++;
          if (k === wanted.length) return i;
        }
        return -1;
      }
      includes(value, from, name) { return this.indexOf(value, from, name) !== -1; }
    }
    const swap = (width) => function () {
      if (this.length % width) throw new RangeError('Buffer size must be a multiple of ' + width * 8 + '-bits');
      for (let i = 0; i < this.length; i += width) U8.prototype.reverse.call(U8.prototype.subarray.call(this, i, i + width));
      return this;
    };
    const members = { swap16: swap(2), swap32: swap(4), swap64: swap(8) };
    const view = (buffer) => new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    const range = (buffer, offset, width) => {
      if (typeof offset !== 'number') throw new TypeError('The "offset" argument must be of type number');
      if (offset < 0 || offset % 1 || offset + width > buffer.length) {
        const error = new RangeError('Attempt to access memory outside buffer bounds');
        error.code = 'ERR_OUT_OF_RANGE';
        throw error;
      }
    };
    for (const [name, width, type] of [['UInt8', 1, 'Uint8'], ['Int8', 1, 'Int8'], ['UInt16', 2, 'Uint16'], ['Int16', 2, 'Int16'],
      ['UInt32', 4, 'Uint32'], ['Int32', 4, 'Int32'], ['Float', 4, 'Float32'], ['Double', 8, 'Float64'], ['BigInt64', 8, 'BigInt64'],
      ['BigUInt64', 8, 'BigUint64']]) {
      for (const end of width === 1 ? [''] : ['LE', 'BE']) {
        members['read' + name + end] = function (offset = 0) { range(this, offset, width); return view(this)['get' + type](offset, end === 'LE'); };
        members['write' + name + end] = function (value, offset = 0) {
          range(this, offset, width);
          view(this)['set' + type](offset, value, end === 'LE');
          return offset + width;
        };
      }
    }
    for (const end of ['LE', 'BE']) {
      members['readUInt' + end] = function (offset, width) {
        range(this, offset, width);
        let value = 0;
        for (let i = 0; i < width; i++) value = value * 256 + this[end === 'BE' ? offset + i : offset + width - 1 - i];
        return value;
      };
      members['readInt' + end] = function (offset, width) {
        const value = members['readUInt' + end].call(this, offset, width);
        return value >= 2 ** (8 * width - 1) ? value - 2 ** (8 * width) : value;
      };
      members['writeUInt' + end] = members['writeInt' + end] = function (value, offset, width) {
        range(this, offset, width);
        let rest = value < 0 ? value + 2 ** (8 * width) : value;
        for (let i = 0; i < width; i++) {
          this[end === 'LE' ? offset + i : offset + width - 1 - i] = rest % 256;
          rest = Math.floor(rest / 256);
        }
        return offset + width;
      };
    }
    for (const name of Object.keys(members)) {
      hide(Buffer.prototype, name, members[name]);
      if (name.includes('UInt')) hide(Buffer.prototype, name.replace('UInt', 'Uint'), members[name]);
    }
    // Old code calls it without `new`.
    return new Proxy(Buffer, { apply: (target, self, given) => construct(target, given) });
  }
})
