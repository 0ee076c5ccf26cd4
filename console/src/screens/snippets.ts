// Commands that log in to a channel and send one value, for pasting.
import type { Schemas } from '../api/client';

/** For a shell: within single quotes everything stands for itself. */
const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

export function snippets(of: Schemas['Connection'], isShown: boolean): { title: string; text: string }[] {
  const url = new URL(of.brokerUrl.replace(/^(tcp|ssl|mqtts?):/, 'http:'));
  const [host, port] = [url.hostname, url.port || '1883'];
  const password = isShown ? of.password : '…';
  const topic = `/sys/${of.productKey}/integration/measurepoint/post`;
  const message = '{"id":"1","version":"1.0","method":"integration.measurepoint.post","params":[{"deviceKey":"DEVICE","time":1700000000000,"measurepoints":{"POINT":1.5}}]}';
  return [
    {
      title: 'mosquitto_pub',
      text: `mosquitto_pub -V mqttv311 -h ${host} -p ${port} -i ${quoted(of.clientId)} \\\n  -u ${quoted(of.username)} -P ${quoted(password)} -q 1 \\\n  -t ${topic} \\\n  -m '${message}'`,
    },
    {
      title: 'Python, paho-mqtt',
      text: `import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=${JSON.stringify(of.clientId)})
client.username_pw_set(${JSON.stringify(of.username)}, ${JSON.stringify(password)})
client.on_message = lambda client, userdata, message: print(message.payload.decode())
client.connect(${JSON.stringify(host)}, ${port})
client.subscribe("${topic}_reply", qos=1)
client.loop_start()
client.publish("${topic}", '${message}', qos=1).wait_for_publish()`,
    },
    {
      title: 'Node-RED',
      text: JSON.stringify([
        { id: 'backtide-broker', type: 'mqtt-broker', name: 'Backtide', broker: host, port, clientid: of.clientId, credentials: { user: of.username, password }, protocolVersion: '4', keepalive: '60', cleansession: true },
        { id: 'backtide-out', type: 'mqtt out', name: topic, topic, qos: '1', retain: 'false', broker: 'backtide-broker', wires: [] },
      ]),
    },
    {
      title: 'Java, the vendor’s SDK',
      text: `MqttClient client = new MqttClient(new DefaultProfile(
    new MessageIntegrationLoginInput(${JSON.stringify(of.brokerUrl)}, ${JSON.stringify(of.productKey)}, ${JSON.stringify(isShown ? of.secret : '…')})));
client.connect();
client.publish(IntMeasurepointPostRequest.builder()
    .addMeasurepoint("DEVICE", 1700000000000L, Map.of("POINT", 1.5)).build());`,
    },
  ];
}
