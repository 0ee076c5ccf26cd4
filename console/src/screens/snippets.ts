// What is ready to paste: commands that send one value to a channel, programs that read a subscription.
import type { Schemas } from '../api/client';
import type { Standing } from '../api/types';

/** For a shell: within single quotes everything stands for itself. */
const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

export function snippets(of: Schemas['Connection'], isShown: boolean): { title: string; text: string }[] {
  const url = new URL(of.brokerUrl.replace(/^(tcp|ssl|mqtts?):/, 'http:'));
  const [host, port] = [url.hostname, url.port || '1883'];
  const password = isShown ? of.password : '…';
  const topic = `/sys/${of.productKey}/integration/measurepoint/post`;
  const message = '{"id":"1","version":"1.0","method":"integration.measurepoint.post","params":[{"deviceKey":"DEVICE","time":1700000000000,"measurepoints":{"POINT":1.5}}]}';
  const publish = (host: string, port: string, more = '') =>
    `mosquitto_pub -V mqttv311 -h ${host} -p ${port}${more} -i ${quoted(of.clientId)} \\\n  -u ${quoted(of.username)} -P ${quoted(password)} -q 1 \\\n  -t ${topic} \\\n  -m '${message}'`;
  const secure = of.brokerTlsUrl ? new URL(of.brokerTlsUrl.replace(/^(tcp|ssl|mqtts?):/, 'http:')) : undefined;
  return [
    { title: 'mosquitto_pub', text: publish(host, port) },
    ...(secure ? [{ title: 'mosquitto_pub, TLS', text: publish(secure.hostname, secure.port || '8883', ' --cafile ca.pem') }] : []),
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

/** Programs that read a subscription, for pasting. */
export function readers(of: Standing, credential: Schemas['Credential'] | undefined): { title: string; text: string }[] {
  const text = (value: string) => JSON.stringify(value);
  const host = text(location.hostname);
  const [key, secret] = [text(credential?.accessKey ?? '…'), text(credential?.accessSecret ?? '…')];
  const name = text(of.name);
  const reads = of.type === 'events' ? 'EventClient' : 'OfflineClient';
  return [
    {
      title: 'Python, enos-subscribe',
      text: `# pip install enos-subscribe==2.6.0 'protobuf<3.21'
from enos_subscribe import ${reads}

client = ${reads}(host=${host}, port=${of.port}, access_key=${key}, access_secret=${secret})
client.subscribe(sub_id=${name}, consumer_group="reports")
for value in client:
    print(value)`,
    },
    {
      title: 'Python, enos-dms',
      text: `# pip install enos-dms==0.0.2 'protobuf>=6.31.1' python-dotenv
import threading
from enos_dms.core.client import DataClient

client = DataClient(host=${host}, port=${of.port}, access_key=${key}, secret=${secret},
                    sub_id=${name}, sub_type=${of.type === 'events' ? 4 : 3}, consumer_group="reports")
client.on_message = lambda message: print(message.key, message.value)
client.connect()
threading.Event().wait()`,
    },
    { title: 'backtide', text: `backtide subscription show ${of.name}` },
  ];
}
