"""MQTT over WebSocket at /mqtt of the HTTP port: real clients, frames cut anywhere, what is refused; and that door's own caps."""

import base64
import json
import os
import socket
import struct

import paho.mqtt.client as paho
import pytest
import requests
from paho.mqtt.enums import CallbackAPIVersion

import wire
from test_clients import HERE, run_client
from world import CHANNEL, TOOLS, TOPIC, eventually, points_message

T0 = 1_388_534_400_000


def http_address(gateway):
    host, port = gateway.addresses["http"].rsplit(":", 1)
    return host, int(port)


def frame(payload, first=0x82):
    """A client's frame."""
    size = len(payload)
    length = (bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size) if size < 65_536
              else b"\xff" + struct.pack(">Q", size))
    key = os.urandom(4)
    return bytes([first]) + length + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


class Link:
    """A WebSocket by hand; `receive` is the next MQTT packet, whatever frames it came in."""

    def __init__(self, gateway, **headers):
        self.socket = socket.create_connection(http_address(gateway), timeout=20)
        named = {"Host": gateway.addresses["http"], "Upgrade": "websocket", "Connection": "Upgrade",
                 "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "mqtt",
                 "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(), **headers}
        lines = [f"{name}: {value}" for name, value in named.items() if value]
        self.socket.sendall(("GET /mqtt HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
        self.raw, self.packets, self.closed = b"", b"", None
        while b"\r\n\r\n" not in self.raw:
            self.raw += self.socket.recv(1)
        self.head, self.raw = self.raw.decode(), b""
        self.status = int(self.head.split()[1])

    def send(self, payload, first=0x82):
        self.socket.sendall(frame(payload, first))

    def receive(self):
        while True:
            found = wire.split(self.packets)
            if found:
                first, body, self.packets = found
                return first, body
            if not self._frame():
                return None

    def _exactly(self, size):
        while len(self.raw) < size:
            more = self.socket.recv(65536)
            if not more:
                return None
            self.raw += more
        taken, self.raw = self.raw[:size], self.raw[size:]
        return taken

    def _frame(self):
        head = self._exactly(2)
        if head is None:
            return False
        size = head[1]
        if size >= 126:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8))
        payload = self._exactly(size)
        if head[0] == 0x82:
            self.packets += payload
        elif head[0] == 0x88:
            self.closed = int.from_bytes(payload[:2])
        return True

    def log_in(self, gateway):
        strings = gateway.channel()
        self.send(wire.connect(strings.clientId, strings.username, strings.password))
        assert self.receive() == (0x20, b"\0\0")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def message(at, pad=0):
    body = points_message([("R80711", at, {"P_avg": 1.5})])
    return body + b" " * pad


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_paho_posts_over_websocket_and_gets_its_reply(farm, version):
    strings = farm.channel()
    client = paho.Client(CallbackAPIVersion.VERSION2, strings.clientId, protocol=version, transport="websockets")
    client.username_pw_set(strings.username, strings.password)
    replies, granted = [], []
    client.on_message = lambda c, u, m: replies.append(json.loads(m.payload))
    client.on_subscribe = lambda c, u, mid, codes, p: granted.append(codes)
    client.ws_set_options("/mqtt")
    client.connect(*http_address(farm))
    client.loop_start()
    client.subscribe(TOPIC + "_reply", 1)
    eventually(lambda: granted, "SUBACK")
    for i in range(50):
        client.publish(TOPIC, message(T0 + i), 1)
    eventually(lambda: len(replies) == 50, lambda: f"50 replies, there are {len(replies)}")
    client.disconnect()
    client.loop_stop()
    assert {reply["code"] for reply in replies} == {200}
    assert len(farm.cells()) == 50
    word = "3.1.1" if version == paho.MQTTv311 else "5.0"
    assert any(e.kind == "connect" and e["protocol"] == f"{word} over WebSocket" for e in farm.channel_log())


def test_mqtt_js_posts_over_websocket(farm):
    strings = farm.channel()
    payloads = [message(T0 + i).decode() for i in range(20)]
    outcome = run_client(["node", f"{HERE}/clients/mqttjs.cjs"],
                         {"url": f"ws://{farm.addresses['http']}/mqtt", "clientId": strings.clientId,
                          "username": strings.username, "password": strings.password, "topic": TOPIC,
                          "payloads": payloads}, NODE_PATH=str(TOOLS / "npm/node_modules"))
    assert (outcome["connack"], outcome["granted"], set(outcome["reasons"])) == (0, 1, {0})
    assert len(outcome["replies"]) == 20 and len(farm.cells()) == 20


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_frames_may_hold_parts_of_packets_or_several(farm, piece):
    packets = b"".join(wire.publish(TOPIC, message(T0 + i), i) for i in range(1, 11))
    with Link(farm).log_in(farm) as link:
        assert "sec-websocket-protocol: mqtt" in link.head.lower()
        for at in range(0, len(packets), piece):
            link.send(packets[at:at + piece])
        assert [link.receive() for _ in range(10)] == [(0x40, struct.pack(">H", i)) for i in range(1, 11)]
    assert len(farm.cells()) == 10


def test_a_payload_over_the_limit_in_one_frame_is_drained_and_answered(farm):
    with Link(farm).log_in(farm) as link:
        link.send(wire.publish(TOPIC, message(T0, pad=3 << 20), 1) + wire.publish(TOPIC, message(T0 + 1), 2))
        assert [link.receive(), link.receive()] == [(0x40, b"\0\1"), (0x40, b"\0\2")]
    assert [e.code for e in farm.quarantine()] == [1008]
    assert len(farm.cells()) == 1


def test_a_ping_of_websocket_is_answered_and_a_text_frame_closes(farm):
    with Link(farm).log_in(farm) as link:
        link.send(b"there?", first=0x89)
        assert link._exactly(8) == b"\x8a\x06there?"
        link.send(b"hello", first=0x81)
        assert link.receive() is None and link.closed == 1003
    eventually(lambda: any("text frame" in e.get("reason", "") for e in farm.channel_log()), "the reason in the log")


def test_a_wrong_password_is_told_as_over_tcp(farm):
    strings = farm.channel()
    with Link(farm) as link:
        link.send(wire.connect(strings.clientId, strings.username, "wrong"))
        assert link.receive() == (0x20, b"\0\4")
        assert link.receive() is None and link.closed == 1000


@pytest.mark.parametrize("headers, status", [({"Upgrade": None}, 426), ({"Sec-WebSocket-Protocol": "chat"}, 400),
                                             ({"Sec-WebSocket-Protocol": None}, 400), ({"Sec-WebSocket-Version": "8"}, 400),
                                             ({"Sec-WebSocket-Key": None}, 400)])
def test_what_is_no_upgrade_to_mqtt_is_refused(farm, headers, status):
    with Link(farm, **headers) as link:
        assert link.status == status


def test_a_channel_that_requires_a_certificate_is_closed_to_websockets(farm):
    channel = farm.cli("get", "channel", CHANNEL, "-o", "json").json()
    farm.apply(json.dumps({**channel, "clientCertificate": {"required": True}}))
    strings = farm.channel()
    with Link(farm) as link:
        link.send(wire.connect(strings.clientId, strings.username, strings.password))
        assert link.receive() == (0x20, b"\0\5")
    eventually(lambda: any("none came over WebSocket" in e.get("message", "") for e in farm.channel_log()), "the log says so")


def test_websockets_end_with_the_gateway_and_what_they_stored_stays(farm):
    with Link(farm).log_in(farm) as link:
        link.send(wire.publish(TOPIC, message(T0), 1))
        assert link.receive() == (0x40, b"\0\1")
        farm.terminate()
        assert link.receive() is None and link.closed == 1000
    farm.start()
    assert len(farm.cells()) == 1


# --- the HTTP door's own caps ---


def test_a_head_that_is_never_finished_closes_the_connection(farm):
    with socket.create_connection(http_address(farm), timeout=60) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        answer = link.recv(4096)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


def test_a_body_that_is_never_finished_is_answered(farm):
    with socket.create_connection(http_address(farm), timeout=60) as link:
        link.sendall(b"POST /api/v1/apply HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + farm.token.encode()
                     + b"\r\nContent-Type: application/yaml\r\nContent-Length: 100\r\n\r\nkind: ")
        assert link.recv(4096).startswith(b"HTTP/1.1 4")


def test_at_the_cap_of_http_connections_further_ones_wait_and_are_served_later(farm):
    held = [socket.create_connection(http_address(farm), timeout=20) for _ in range(1_000)]
    late = socket.create_connection(http_address(farm), timeout=20)
    late.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for link in held:
        link.close()
    assert late.recv(4096).startswith(b"HTTP/1.1 200")
    late.close()
    assert requests.get(farm.url + "/healthz", timeout=20).ok
