// 40 bytes, big-endian: id (4), packet (2), device (2), time in ms (8), six values in hundredths (4 each).
function i32(bytes, at) { return bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]; }
function u32(bytes, at) { return i32(bytes, at) >>> 0; }

function rawDataToJsonStr(bytes) {
  var device = bytes[6] << 8 | bytes[7];
  return JSON.stringify({
    id: u32(bytes, 0) + '-' + (bytes[4] << 8 | bytes[5]), version: '1.0', method: 'integration.measurepoint.post',
    params: [{
      deviceKey: 'T' + ('00000' + device).slice(-6), time: u32(bytes, 8) * 4294967296 + u32(bytes, 12),
      measurepoints: {
        Ba_avg: i32(bytes, 16) / 100, P_avg: i32(bytes, 20) / 100, Ws_avg: i32(bytes, 24) / 100,
        Va_avg: i32(bytes, 28) / 100, Ot_avg: i32(bytes, 32) / 100, Ya_avg: i32(bytes, 36) / 100
      }
    }]
  });
}
