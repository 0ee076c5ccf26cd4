"""One paho client as the tests see it: connect, request and reply, acknowledgement."""

import json
import queue
import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from world import TOPIC, eventually, points_message


class Client:
    """A paho client on a channel's four strings. `v5=True` speaks MQTT 5."""

    def __init__(self, address, strings, v5=False, clean=True, window=20, client_id=None, username=None, password=None,
                 reconnect_s=None):
        self.address = address
        self.v5 = v5
        self.clean = clean
        options = {} if v5 else {"clean_session": clean}
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id or strings.clientId,
                                protocol=paho.MQTTv5 if v5 else paho.MQTTv311, reconnect_on_failure=reconnect_s is not None,
                                **options)
        self.paho.username_pw_set(username or strings.username, password or strings.password)
        self.paho.max_inflight_messages_set(window)
        if reconnect_s:
            self.paho.reconnect_delay_set(min_delay=reconnect_s, max_delay=reconnect_s)
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_subscribe = self._on_subscribe
        self.paho.on_publish = self._on_publish
        self.paho.on_message = self._on_message
        self.replies = queue.Queue()
        self.acked = {}          # packet id -> reason code
        self.connects = 0
        self.disconnects = []    # reason codes
        self.refusals = []       # reason codes of CONNACKs that refused
        self.granted = {}        # packet id -> SUBACK reason codes
        self.listening = set()   # request topics whose reply topic is subscribed
        self.connected = threading.Event()
        self.next_id = 0

    def _on_connect(self, client, userdata, flags, reason, properties):
        if reason.is_failure:
            self.refusals.append(reason.value)
        else:
            self.connects += 1
            self.connected.set()

    def _on_disconnect(self, client, userdata, flags, reason, properties):
        self.connected.clear()
        self.disconnects.append(reason.value)

    def _on_subscribe(self, client, userdata, mid, reasons, properties):
        self.granted[mid] = [reason.value for reason in reasons]

    def _on_publish(self, client, userdata, mid, reason, properties):
        self.acked[mid] = reason.value

    def _on_message(self, client, userdata, message):
        self.replies.put((message.topic, message.payload))

    def connect(self, keep_alive_s=60):
        options = {"clean_start": self.clean} if self.v5 else {}
        self.paho.connect(*self.address, keepalive=keep_alive_s, **options)
        self.paho.loop_start()
        eventually(lambda: self.connected.is_set() or self.refusals, "connected")
        assert not self.refusals, f"the login was refused with {self.refusals[0]:#x}"
        return self

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def subscribe(self, topic, qos=1):
        """The reason code of the SUBACK: the granted QoS, or 0x80 and more."""
        result, mid = self.paho.subscribe(topic, qos)
        assert result == paho.MQTT_ERR_SUCCESS
        return eventually(lambda: self.granted.get(mid), f"SUBACK for {topic}")[0]

    def publish(self, topic, payload, qos=1):
        """Publishes and waits for the acknowledgement; its reason code (3.1.1: always 0)."""
        sent = self.paho.publish(topic, payload, qos)
        eventually(lambda: sent.mid in self.acked, f"acknowledgement of {topic}")
        return self.acked.pop(sent.mid)

    def reply(self, within_s=20):
        """(topic, parsed body) of the next reply."""
        topic, payload = self.replies.get(timeout=within_s)
        return topic, json.loads(payload)

    def ask(self, payload, topic=TOPIC, qos=1):
        """Publishes raw bytes on a topic whose reply topic is subscribed, and returns the reply."""
        if topic not in self.listening:
            assert self.subscribe(topic + "_reply") <= 1
            self.listening.add(topic)
        self.publish(topic, payload, qos)
        reply_topic, body = self.reply()
        assert reply_topic == topic + "_reply"
        return body

    def post(self, *items, topic=TOPIC, qos=1):
        """Sends (deviceKey, time, {point: value}) items as one request, and returns the reply."""
        self.next_id += 1
        body = self.ask(points_message(items, id=str(self.next_id)), topic, qos)
        assert body["id"] == str(self.next_id)
        return body
