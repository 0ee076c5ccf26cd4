// Decoders that others wrote, as scripts, with example frames and what Node's own run of the same files makes of them.
//
// Prints JSON: [{name, package, source, dialect, frames: [{hex, values}]}]. A source is the package's files byte for byte,
// behind a few lines that give them what their authors' world gave them: modules by name, and a function of the dialect.
'use strict';
const fs = require('fs');
const path = require('path');
// The moment that the test names as that of receipt: some decoders complete a time of day with today's date.
const now = Number(process.argv[3]);
const RealDate = Date;
globalThis.Date = class Date extends RealDate {
  constructor(...given) { super(...(given.length ? given : [now])); }
  static now() { return now; }
};
const root = path.resolve(process.argv[2], 'node_modules');
const from = (name) => require(path.join(root, name));
const read = (name) => fs.readFileSync(path.join(root, name), 'utf8');

// CommonJS files as one script: each as the body of a function, found by its path.
function bundle(entry) {
  const files = new Map();
  const add = (file) => {
    if (files.has(file)) return;
    files.set(file, { text: fs.readFileSync(file, 'utf8'), links: {} });
    for (const [, wanted] of files.get(file).text.matchAll(/require\(["'](\.[^"']*)["']\)/g)) {
      const target = [wanted, wanted + '.js', path.join(wanted, 'index.js')]
        .map((name) => path.resolve(path.dirname(file), name)).find((name) => fs.existsSync(name) && fs.statSync(name).isFile());
      if (!target) continue;
      files.get(file).links[wanted] = path.relative(root, target);
      add(target);
    }
  };
  add(path.join(root, entry));
  const parts = [...files].map(([file, { text, links }]) =>
    `${JSON.stringify(path.relative(root, file))}: [function (module, exports, require) {\n${text}\n}, ${JSON.stringify(links)}]`);
  return `var bundled = {${parts.join(',\n')}}, made = {};
function load(name) {
  if (!made[name]) {
    var module = made[name] = { exports: {} };
    bundled[name][0](module, module.exports, function (wanted) {
      var file = bundled[name][1][wanted];
      if (!file) throw new Error('no module ' + wanted);
      return load(file);
    });
  }
  return made[name].exports;
}
`;
}

const hexOf = (text) => Buffer.from(text, 'latin1').toString('hex');
const frames = (texts, decode) => {
  const found = [];
  for (const hex of new Set(texts)) {
    let values;
    try { values = decode(hex); } catch (error) { continue; }
    if (values === null || typeof values !== 'object' || values.error) continue;
    // What has no value is left out; what is not a number stays, as JSON has it.
    const plain = JSON.parse(JSON.stringify(values));
    found.push({ hex, values: Object.fromEntries(Object.entries(plain).filter(([name]) => values[name] !== null)) });
    if (found.length === 12) break;
  }
  return found;
};
const all = [];

// --- @adeunis/codecs: one file of 238 KB, ES5, a decoder for each kind of device; frames from its own tests ---

const codec = from('@adeunis/codecs');
const PRODUCTS = { analog: 'analog', breath: 'breath', comfort: 'comfort', comfort2: 'comfort_v2', comfortCo2: 'comfort_co2', dc: 'drycontacts',
  drycontacts2: 'drycontacts_v2', deltap: 'deltap', motion: 'motion', pulse: 'pulse', pulse3: 'pulse_v3', pulse4: 'pulse_v4',
  pulse4nbiot: 'pulse_v4_nbiot', repeater: 'repeater', temp: 'temp', temp3: 'temp_v3', temp4: 'temp_v4', ticCbeLinkyMono: 'tic',
  ticCbeLinkyTri: 'tic', ticPmePmi: 'tic' };
const library = read('@adeunis/codecs/dist/lib.public.js');
for (const [kind, folder] of Object.entries(PRODUCTS)) {
  const decode = (hex) => {
    const decoder = new codec.Decoder();
    decoder.setDeviceType(kind);
    return decoder.decode(hex);
  };
  const texts = [];
  for (const of of [folder, 'generic']) {
    const here = path.join(root, '@adeunis/codecs/src/products', of);
    for (const file of fs.readdirSync(here).filter((name) => name.endsWith('.spec.ts')).sort())
      for (const [, hex] of fs.readFileSync(path.join(here, file), 'utf8').matchAll(/'((?:[0-9a-fA-F]{2}){5,})'/g)) texts.push(hex.toLowerCase());
  }
  all.push({ name: `adeunis ${kind}`, package: '@adeunis/codecs', dialect: 'Decoder', frames: frames(texts, decode),
    source: `${library}
function Decoder(bytes, port) {
  var decoder = new codec.Decoder();
  decoder.setDeviceType('${kind}');
  return decoder.decode(Buffer.from(bytes).toString('hex'));
}` });
}

// --- NMEA sentences: ES5, ES2015, ES2020 ---

const SENTENCES = ['$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47', '$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A',
  '$GPGLL,4916.45,N,12311.12,W,225444,A*31', '$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K*48', '$GPGSA,A,3,04,05,,09,12,,,24,,,,,2.5,1.3,2.1*39',
  '$GPGSV,2,1,08,01,40,083,46,02,17,308,41,12,07,344,39,14,22,228,45*75', '$IIMWV,017,R,02.91,N,A*2F', '$IIDBT,036.41,f,011.10,M,006.07,F*26',
  '$GPBWC,225444,4917.24,N,12309.57,W,051.9,T,031.6,M,001.3,N,004*29', '$GPAPB,A,A,0.10,R,N,V,V,011,M,DEST,011,M,011,M*3C',
  '$GPHDT,123.456,T*32', '$HCHDM,238.5,M*22', '$HCHDG,123.4,1.2,W,12.3,E*00', '$GPZDA,160012.71,11,03,2004,-1,00*7D', '$GPROT,35.6,A*4E',
  '$GPGST,172814.0,0.006,0.023,0.020,273.6,0.023,0.020,0.031*6A', '$GPDTM,W84,,0.0,N,0.0,E,0.0,W84*6F', '$VWVHW,45.0,T,43.5,M,3.5,N,6.4,K*56',
  '$GNGNS,112257.00,3844.24011,N,00908.43828,W,AN,03,10.5,,,,*57', '$GPRMB,A,0.66,L,003,004,4917.24,N,12309.57,W,001.3,052.5,000.5,V*20'];
const checked = (line) => {
  const body = line.slice(1, line.indexOf('*'));
  const sum = [...body].reduce((sum, char) => sum ^ char.charCodeAt(0), 0);
  return `$${body}*${sum.toString(16).toUpperCase().padStart(2, '0')}`;
};
const lines = SENTENCES.map(checked);
const text = (hex) => Buffer.from(hex, 'hex').toString('latin1');
const GPS = from('gps');
all.push({ name: 'gps', package: 'gps', dialect: 'decodeUplink', frames: frames(lines.map(hexOf), (hex) => GPS.Parse(text(hex)) || null),
  source: `${read('gps/dist/gps.js')}
function decodeUplink(input) {
  var found = module.exports.Parse(String.fromCharCode.apply(null, input.bytes));
  return found ? { data: found } : { errors: ['no sentence'] };
}` });

const nmea = from('nmea');
all.push({ name: 'nmea', package: 'nmea', dialect: 'Decode', frames: frames(lines.map(hexOf), (hex) => nmea.parse(text(hex))),
  source: `${bundle('nmea/nmea.js')}
function Decode(fPort, bytes) { return load('nmea/nmea.js').parse(String.fromCharCode.apply(null, bytes)); }` });

// A codec of its own for each kind of sentence.
const simple = from('nmea-simple');
const bundledSimple = bundle('nmea-simple/dist/index.js');
for (const line of lines) {
  const kind = line.slice(3, 6);
  const decode = (hex) => simple.parseNmeaSentence(text(hex));
  all.push({ name: `nmea-simple ${kind}`, package: 'nmea-simple', dialect: 'Decoder', frames: frames([hexOf(line)], decode),
    source: `${bundledSimple}
function Decoder(bytes) { return load('nmea-simple/dist/index.js').parseNmeaSentence(String.fromCharCode.apply(null, bytes)); }` });
}

// --- ships, beacons, vehicles ---

const AIS = ['!AIVDM,1,1,,A,B69>7mh0?B<:>05B0`0e8TN000000,0*72',
  '!AIVDM,1,1,,A,55?MbV42;H;s<HtKR20EHE:0@T4@Dn2222222216L961O0000i000000000000000000000,0*2D', '!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C'];
const { AisDecode, NmeaDecode } = from('ggencoder');
const plain = (made) => ({ ...made });
all.push({ name: 'ggencoder AIS', package: 'ggencoder', dialect: 'Decoder', frames: frames(AIS.map(hexOf), (hex) => plain(new AisDecode(text(hex)))),
  source: `${bundle('ggencoder/lib/GG-AisDecode.js')}
function Decoder(bytes) { var Ais = load('ggencoder/lib/GG-AisDecode.js'); return Object.assign({}, new Ais(String.fromCharCode.apply(null, bytes))); }` });
all.push({ name: 'ggencoder NMEA', package: 'ggencoder', dialect: 'Decoder', frames: frames(lines.map(hexOf), (hex) => plain(new NmeaDecode(text(hex)))),
  source: `${bundle('ggencoder/lib/GG-NmeaDecode.js')}
function Decoder(bytes) { var Nmea = load('ggencoder/lib/GG-NmeaDecode.js'); return Object.assign({}, new Nmea(String.fromCharCode.apply(null, bytes))); }` });

const ble = from('advlib-ble');
const hexIn = (file, least) => [...read(file).matchAll(new RegExp(`["']((?:[0-9a-fA-F]{2}){${least},})["']`, 'g'))].map(([, hex]) => hex.toLowerCase());
all.push({ name: 'advlib-ble', package: 'advlib-ble', dialect: 'Decoder', frames: frames(hexIn('advlib-ble/test/unit/advlibble.test.js', 6), (hex) => ble.process(hex)),
  source: `${bundle('advlib-ble/lib/advlibble.js')}
function Decoder(bytes) { return load('advlib-ble/lib/advlibble.js').process(Buffer.from(bytes).toString('hex')); }` });

const parser = 'complete-teltonika-parser/build/Scripts/ProtocolParser.js';
const { ProtocolParser } = from(parser);
all.push({ name: 'teltonika', package: 'complete-teltonika-parser', dialect: 'Decoder',
  frames: frames(hexIn('complete-teltonika-parser/build/test/parser.test.js', 20), (hex) => plain(new ProtocolParser(hex))),
  source: `${bundle(parser)}
function Decoder(bytes) {
  var Parser = load('${parser}').ProtocolParser;
  return Object.assign({}, new Parser(Buffer.from(bytes).toString('hex')));
}` });

process.stdout.write(JSON.stringify(all.filter((decoder) => decoder.frames.length)));
