// Drives MQTT.js, unmodified, with MQTT 5. Reads orders as JSON on stdin, prints what came back as JSON.
// orders: {url, clientId, username, password, topic, payloads: [text]}
const fs = require("fs");
const mqtt = require("mqtt");

const orders = JSON.parse(fs.readFileSync(0, "utf8"));
const outcome = { connack: null, granted: null, reasons: [], replies: [] };
const late = setTimeout(() => end(new Error("not done within 30 s: " + JSON.stringify(outcome))), 30000);

const client = mqtt.connect(orders.url, {
  protocolVersion: 5,
  clientId: orders.clientId,
  username: orders.username,
  password: orders.password,
  reconnectPeriod: 0,
});

function end(error) {
  clearTimeout(late);
  if (error) outcome.error = String(error.message || error);
  client.end(Boolean(error), () => {
    console.log(JSON.stringify(outcome));
    process.exit(error ? 1 : 0);
  });
}

client.on("error", end);
client.on("message", (topic, payload) => {
  outcome.replies.push({ topic, body: JSON.parse(payload.toString()) });
  if (outcome.replies.length === orders.payloads.length) end();
});
client.on("packetreceive", (packet) => {
  if (packet.cmd === "puback") outcome.reasons.push(packet.reasonCode || 0);
});
client.on("connect", async (connack) => {
  try {
    outcome.connack = connack.reasonCode;
    outcome.granted = (await client.subscribeAsync(orders.topic + "_reply", { qos: 1 }))[0].qos;
    for (const payload of orders.payloads) await client.publishAsync(orders.topic, payload, { qos: 1 });
  } catch (error) {
    end(error);
  }
});
