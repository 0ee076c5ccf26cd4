"""No content closes a connection, loops or blocks other messages: ten thousand bad messages among good ones."""

import hashlib
import json
import random
import threading

import pytest

from mqtt import Client
from wire import Link, connect, login, publish
from world import CHANNEL, FARM, METHOD, SEED, TOPIC, TURBINES, eventually, points_message

T0 = 1_388_534_400_000
LIMIT_BYTES = 512 * 1024
BAD = 10_000
CONNECTIONS = 4
GOOD_PER_CONNECTION = 500


def malformed(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return b"\x00" + rng.randbytes(rng.randrange(1, 400)), {1220}
    if kind == 1:
        return b'{"id":"\xc3\x28' + rng.randbytes(8).hex().encode() + b'"}', {1220}
    if kind == 2:
        noise = "".join(rng.choice('{}[]":,\\ue0123456789tfn ') for _ in range(rng.randrange(2, 200)))
        return ("}" + noise).encode(), {1220}
    return json.dumps(rng.choice([[], 7, "x", None, True, [{"id": 1}]])).encode() + b" " * rng.randrange(1, 2000), {1220}


def truncated(rng):
    whole = points_message([(rng.choice(TURBINES), T0 + rng.randrange(10**9), {"P_avg": rng.random()})
                            for _ in range(rng.randrange(1, 6))], id=str(rng.random()))
    return whole[:rng.randrange(1, len(whole))], {1220}


def nested(rng):
    depth = rng.choice([100, 1_000, 50_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    inner = (opening * depth + "1" + closing * depth).encode()
    place = rng.randrange(3)
    if place == 0:
        return inner + b" " * rng.randrange(1, 5000), {1220, 1250}
    head = f'{{"id":"{rng.random()}","version":"1.0","method":"{METHOD}","params":'.encode()
    if place == 1:
        return head + inner + b"}", {1220}
    item = f'[{{"deviceKey":"{TURBINES[0]}","time":{T0},"measurepoints":{{"P_avg":'.encode()
    return head + item + inner + b"}}]}", {1204, 1220}


def mistyped(rng):
    item = {"deviceKey": rng.choice(TURBINES), "time": T0, "measurepoints": {"P_avg": 1.0}}
    whole = {"id": str(rng.random()), "version": "1.0", "method": METHOD, "params": [item]}
    wrong = rng.choice([None, "x", True, [], {}, [1, 2], {"value": {}}, "1e999"])
    for change in rng.sample(["value", "point", "device", "time", "params", "version", "method", "item"], rng.randrange(1, 4)):
        if change == "value":
            item["measurepoints"] = {"P_avg": wrong}
        elif change == "point":
            item["measurepoints"] = {"nobody-" + str(rng.randrange(50)): 1.0}
        elif change == "device":
            item["deviceKey"] = rng.choice([7, None, "stranger-" + str(rng.randrange(50)), "", ["x"]])
        elif change == "time":
            item["time"] = rng.choice([None, "noon", -1, 2**70, 0.5, []])
        elif change == "params":
            whole["params"] = rng.choice(["all", 7, None, True])
        elif change == "version":
            whole["version"] = rng.choice([1.0, None, []])
        elif change == "method":
            whole["method"] = rng.choice(["nothing", 7, None, "integration.event.post"])
        else:
            whole["params"] = [rng.choice([7, "x", None, []])]
    return json.dumps(whole).encode(), {1204, 1220, 1250, 1257, 1260}


def oversized(rng):
    return rng.randbytes(16).hex().encode().ljust(LIMIT_BYTES + rng.randrange(1, 4096)), {1008}


def bad_messages(seed):
    """As many as BAD, all different: (payload, codes that it may get)."""
    rng, seen, made = random.Random(seed), set(), []
    while len(made) < BAD:
        family = rng.choices([malformed, truncated, nested, mistyped, oversized], [30, 30, 5, 34, 1])[0]
        payload, codes = family(rng)
        if payload not in seen:
            seen.add(payload)
            made.append((payload, codes))
    return made


class Sender(threading.Thread):
    """One raw connection: keeps a window in flight, counts acknowledgements."""

    WINDOW = 100

    def __init__(self, gateway, strings, number, payloads):
        super().__init__(daemon=True)
        self.link = Link(gateway.mqtt_address, timeout_s=60)
        # An id of its own: a second connection of one id would take the first one over.
        self.link.send(connect(*login(strings.productKey, strings.secret, timestamp=str(1_700_000_000_000 + number))))
        assert self.link.receive()[1][1] == 0
        self.payloads = payloads
        self.acked, self.failure = 0, None

    def run(self):
        try:
            for at, payload in enumerate(self.payloads):
                if at - self.acked >= self.WINDOW:
                    self.take_ack()
                self.link.send(publish(TOPIC, payload, packet_id=at % 60_000 + 1))
            while self.acked < len(self.payloads):
                self.take_ack()
        except Exception as failure:  # noqa: BLE001 the test tells
            self.failure = failure

    def take_ack(self):
        while True:
            packet = self.link.receive()
            assert packet is not None, f"the connection was closed after {self.acked} acknowledgements"
            if packet[0] == 0x40:
                self.acked += 1
                return


def rss_bytes(gateway):
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def test_ten_thousand_bad_messages_among_good_ones_cost_nothing_but_themselves(farm):
    bad = bad_messages(SEED)
    rng = random.Random(SEED + 1)
    good = {}
    streams = []
    for number in range(CONNECTIONS):
        stream = [payload for payload, _ in bad[number::CONNECTIONS]]
        for n in range(GOOD_PER_CONNECTION):
            place, value = (TURBINES[number], T0 + n * 1_000), rng.random()
            good[(*place, "P_avg")] = value
            stream.insert(rng.randrange(len(stream) + 1), points_message([(*place, {"P_avg": value})]))
        streams.append(stream)
    strings = farm.channel()
    senders = [Sender(farm, strings, number, stream) for number, stream in enumerate(streams)]
    for sender in senders:
        sender.start()
    total = sum(len(stream) for stream in streams)
    eventually(lambda: sum(s.acked for s in senders) > total // 4 or any(s.failure for s in senders), "a quarter is in", 240)
    early = rss_bytes(farm)
    for sender in senders:
        sender.join(timeout=300)
    assert [sender.failure for sender in senders] == [None] * CONNECTIONS
    assert sum(sender.acked for sender in senders) == total
    grown = rss_bytes(farm) - early
    assert grown < 64 * 1024 * 1024, f"memory grew by {grown >> 20} MiB"

    assert farm.cells(points=["P_avg"]) == good, "every good one is stored, and nothing else"
    kept = {entry.sha256: entry for entry in farm.quarantine_export()}
    assert len(kept) == BAD
    for payload, codes in bad:
        entry = kept.pop(hashlib.sha256(payload).hexdigest())
        assert entry.code in codes and entry.reason, (payload[:200], entry.code, entry.reason)
        assert entry.payload == payload[:4096] if entry.truncated else entry.payload == payload
    log = farm.cli("channel", "log", CHANNEL, "--kind", "connection", "-o", "json").json()
    assert not [line for line in log if line["kind"] == "disconnect"]
    for sender in senders:
        sender.link.close()
    status = farm.cli("quarantine", "status", "-o", "json").json()
    assert status["entries"] == BAD == sum(c["entries"] for c in farm.cli("quarantine", "causes", "-o", "json").json())


def budget(hold):
    return FARM.read_text() + f"errorBudget: {{ refused: 0.2, windowSeconds: 60, messagesMin: 20, hold: {hold} }}\n"


@pytest.fixture
def client_of():
    clients = []

    def connected(gateway, **options):
        clients.append(Client(gateway.mqtt_address, gateway.channel(), **options).connect())
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


def alarms(gateway):
    return [e for e in gateway.channel_log() if e.kind == "error" and "over its error budget" in e.message]


def test_a_channel_over_its_error_budget_raises_an_alarm_and_goes_on(gateway, client_of):
    gateway.apply(budget("false"))
    client = client_of(gateway)
    for n in range(19):
        assert client.post(("nobody", T0 + n, {"P_avg": 1.0}))["code"] == 1257
    assert alarms(gateway) == []
    assert client.post(("nobody", T0, {"P_avg": 2.0}))["code"] == 1257
    eventually(lambda: len(alarms(gateway)) == 1, "the alarm")
    assert client.post((TURBINES[0], T0, {"P_avg": 1.0}))["code"] == 200
    metrics = gateway.http("GET", "/metrics").text
    assert f'backtide_channel_over_budget{{channel="{CHANNEL}"}} 1' in metrics
    assert f'backtide_channel_alarms_total{{channel="{CHANNEL}"}} 1' in metrics


def test_a_channel_that_is_to_hold_takes_nothing_until_it_is_resumed(gateway, client_of):
    gateway.apply(budget("true"))
    client = client_of(gateway, reconnect_s=1)
    for n in range(20):
        assert client.post(("nobody", T0 + n, {"P_avg": 1.0}))["code"] == 1257
    eventually(lambda: "backtide_channels_held 1" in gateway.http("GET", "/metrics").text, "it is held")
    ready = gateway.http("GET", "/readyz")
    assert ready.status_code == 200 and "over its error budget" in ready.json()["warnings"][0]
    sent = client.paho.publish(TOPIC, points_message([(TURBINES[0], T0, {"P_avg": 1.0})]), 1)
    eventually(lambda: client.disconnects, "it is not acknowledged but held, and then closed")
    assert not sent.is_published() and gateway.cells(points=["P_avg"]) == {}
    gateway.restart()
    assert "backtide_channels_held 1" in gateway.http("GET", "/metrics").text, "a restart is no release"
    gateway.cli("channel", "resume", CHANNEL)
    eventually(sent.is_published, "the client still had it, and it is taken now", 30)
    assert gateway.cells(points=["P_avg"]) == {(TURBINES[0], T0, "P_avg"): 1.0}
    assert "warnings" not in gateway.http("GET", "/readyz").json()
