"""Every verdict on measure points: which code, that the connection stays, and what quarantine keeps of it."""

import hashlib
import json

import pytest

import wire
from world import CHANNEL, METHOD, PRODUCT_KEY, TOPIC, eventually

T0 = 1_388_534_400_000
LIMIT_BYTES = 512 * 1024

PLANT = f"""
kind: Model
name: everything
measurepoints:
  d: {{ type: double }}
  f: {{ type: float }}
  i: {{ type: int }}
  l: {{ type: long }}
  b: {{ type: bool }}
  s: {{ type: string }}
  e: {{ type: enum, values: {{ "0": stopped, "1": running }} }}
  es: {{ type: enum, values: {{ "AUTO": automatic, "MANUAL": by hand }} }}
  t: {{ type: timestamp }}
  day: {{ type: date }}
  q: {{ type: double, quality: true }}
  a: {{ type: array, items: int }}
  pos: {{ type: struct, members: {{ x: {{ type: double }}, y: {{ type: int }} }} }}
---
kind: Product
name: plant
key: {PRODUCT_KEY}
model: everything
---
kind: Device
name: pump-7
product: plant
key: pump-7
---
kind: Device
name: pump-8
product: plant
key: pump-8
---
kind: Channel
name: {CHANNEL}
product: plant
---
kind: Channel
name: lenient-history
product: plant
mode: lenient
"""


@pytest.fixture
def farm(gateway):
    gateway.apply(PLANT)
    return gateway


def item(values=None, device="pump-7", time=T0, **more):
    return {"deviceKey": device, "time": time, "measurepoints": {"d": 1.0} if values is None else values, **more}


def body(*items, **changes):
    whole = {"id": "7", "version": "1.0", "method": METHOD, "params": list(items), **changes}
    return json.dumps({k: v for k, v in whole.items() if v is not Ellipsis}).encode()


def without(field, of=None):
    return {k: v for k, v in (of or item()).items() if k != field}


REFUSED = {
    "an empty payload": (b"", 1251),
    "not JSON": (b'{"id":"7",', 1220),
    "not UTF-8": (b'{"id":"\xff"}', 1220),
    "an array": (b"[]", 1220),
    "a number": (b"7", 1220),
    "JSON and more": (body(item()) + b" x", 1220),
    "version missing": (body(item(), version=...), 1220),
    "version a number": (body(item(), version=1.0), 1220),
    "params missing": (body(params=...), 1220),
    "params a string": (body(params="all"), 1220),
    "method a number": (body(item(), method=7), 1220),
    "method missing": (body(item(), method=...), 1250),
    "method unknown": (body(item(), method="integration.nothing.post"), 1250),
    "method of a device": (body(item(), method="thing.measurepoint.post"), 1250),
    "method of another topic": (body(item(), method="integration.event.post"), 1260),
    "an item that is a number": (body(7), 1220),
    "an item that is an array": (body([]), 1220),
    "an item without a deviceKey": (body(without("deviceKey")), 1220),
    "a deviceKey that is a number": (body(item(device=7)), 1220),
    "a device that nobody declared": (body(item(device="pump-9")), 1257),
    "no time": (body(without("time")), 1220),
    "time null": (body(item(time=None)), 1220),
    "time as words": (body(item(time="noon")), 1220),
    "time as ISO text": (body(item(time="2014-01-01T00:00:00Z")), 1220),
    "time with a fraction": (body(item(time=T0 + 0.5)), 1220),
    "time as true": (body(item(time=True)), 1220),
    "time before 1970": (body(item(time=-1)), 1220),
    "time after 2100": (body(item(time=4_200_000_000_000)), 1220),
    "time absurd": (body(item(time=2**63)), 1220),
    "unknown point": (body(item({"nothing": 1.0})), 1204),
    "null": (body(item({"d": None})), 1204),
    "text for a double": (body(item({"d": "1.5"})), 1204),
    "bool for a double": (body(item({"d": True})), 1204),
    "array for a double": (body(item({"d": [1.0]})), 1204),
    "object for a double without quality": (body(item({"d": {"value": 1.0, "quality": 0}})), 1204),
    "overflow of a double": (body(item({"d": 0.5})).replace(b"0.5", b"1e999"), 1204),
    "overflow of a float": (body(item({"f": 1e39})), 1204),
    "fraction for an int": (body(item({"i": 1.5})), 1204),
    "text for an int": (body(item({"i": "1"})), 1204),
    "overflow of an int": (body(item({"i": 2**31})), 1204),
    "underflow of an int": (body(item({"i": -(2**31) - 1})), 1204),
    "overflow of a long": (body(item({"l": 2**63})), 1204),
    "two for a bool": (body(item({"b": 2})), 1204),
    "text for a bool": (body(item({"b": "true"})), 1204),
    "number for a string": (body(item({"s": 1})), 1204),
    "a string over 1024 bytes": (body(item({"s": "é" * 513})), 1204),
    "outside an enum": (body(item({"e": 2})), 1204),
    "outside an enum of words": (body(item({"es": "OFF"})), 1204),
    "no timestamp": (body(item({"t": "noon"})), 1204),
    "no date": (body(item({"day": "2014-13-01 00:00:00"})), 1204),
    "quality over 9": (body(item({"q": {"value": 1.0, "quality": 10}})), 1204),
    "quality with a stranger": (body(item({"q": {"value": 1.0, "quality": 1, "unit": "m"}})), 1204),
    "text in an array of numbers": (body(item({"a": [1, "x"]})), 1204),
    "no array": (body(item({"a": 1})), 1204),
    "unknown member": (body(item({"pos": {"x": 1.0, "z": 1}})), 1204),
    "wrong member": (body(item({"pos": {"x": 1.0, "y": 1.5}})), 1204),
    "the first of two errors, device then value": (body(item(device="pump-9"), item({"d": None})), 1257),
    "the first of two errors, value then device": (body(item({"d": None}), item(device="pump-9")), 1204),
    "in one item the device before the time": (body(without("time", item(device="pump-9"))), 1257),
    "in one item the time before the values": (body(item({"d": None}, time="noon")), 1220),
    "the envelope before the items": (body(item(device="pump-9"), method="integration.event.post"), 1260),
}

TAKEN = {
    "milliseconds as digits": (item(time=str(T0)), {"d": 1.0}),
    "milliseconds as an integral float": (item(time=float(T0)), {"d": 1.0}),
    "an integer for a double": (item({"d": 7}), {"d": 7.0}),
    "an integral float for an int": (item({"i": 7.0}), {"i": 7}),
    "the widest int": (item({"i": -(2**31)}), {"i": -(2**31)}),
    "the widest long": (item({"l": 2**63 - 1}), {"l": 2**63 - 1}),
    "zero for a bool": (item({"b": 0}), {"b": False}),
    "true": (item({"b": True}), {"b": True}),
    "text with quotes and umlauts": (item({"s": 'ä"\\ß'}), {"s": 'ä"\\ß'}),
    "a word of an enum": (item({"es": "AUTO"}), {"es": "AUTO"}),
    "a number of an enum": (item({"e": 1}), {"e": 1}),
    "decimal strings in an array of numbers": (item({"a": ["1", 2]}), {"a": [1, 2]}),
    "unknown members beside an item's own": (item({"d": 1.0}, note="x"), {"d": 1.0}),
}


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_every_refusal_has_its_code_keeps_the_connection_and_stands_in_quarantine(farm, connect, v5):
    client = connect(v5=v5)
    wrong = []
    for name, (payload, code) in REFUSED.items():
        reply = client.ask(payload)
        if reply["code"] != code:
            wrong.append(f"{name}: wanted {code}, got {reply}")
        readable = payload[:1] == b"{" and code not in (1251,) and is_json(payload)
        if reply["id"] != ("7" if readable else ""):
            wrong.append(f"{name}: id {reply['id']!r}")
    assert not wrong, "\n".join(wrong)
    assert client.disconnects == [] and client.connects == 1
    assert farm.cells(devices=["pump-7", "pump-8"], points=["d"], product="plant") == {}, "nothing was stored"
    assert client.ask(body(item()))["code"] == 200

    kept = farm.quarantine()
    assert [entry.code for entry in kept] == [code for _, code in REFUSED.values()]
    for entry, (name, (payload, code)) in zip(kept, REFUSED.items()):
        assert (entry.bytes, entry.truncated, entry.topic) == (len(payload), False, TOPIC), name
        assert entry.reason, name
        shown = farm.quarantine_show(entry.id) if code in (1220, 1257) else entry
        assert shown is entry or shown.payload == payload, name
    exported = {entry.id: entry for entry in farm.quarantine_export()}
    for entry, (payload, code) in zip(kept, REFUSED.values()):
        assert exported[entry.id].payload == payload
        assert exported[entry.id].sha256 == hashlib.sha256(payload).hexdigest()
    by_name = dict(zip(REFUSED, kept))
    assert by_name["a device that nobody declared"].subject["deviceKey"] == "pump-9"
    assert by_name["fraction for an int"].subject == {"index": 0, "deviceKey": "pump-7", "point": "i"}


def is_json(payload):
    try:
        return isinstance(json.loads(payload), dict)
    except ValueError:
        return False


@pytest.mark.parametrize("name", TAKEN)
def test_lenient_readings_of_the_protocol_are_taken(farm, connect, name):
    sent, expected = TAKEN[name]
    reply = connect().ask(body(sent))
    assert reply["code"] == 200, reply
    [row] = farm.query(devices=["pump-7"], points=list(expected), product="plant").ndjson()
    assert row == {"deviceKey": "pump-7", "time": T0, **expected}


def test_quality_is_taken_with_and_without(farm, connect):
    client = connect()
    assert client.ask(body(item({"q": {"value": 1.9, "quality": 3}})))["code"] == 200
    assert client.ask(body(item({"q": 2.5}, time=T0 + 1)))["code"] == 200


def test_empty_params_are_a_success_that_stores_nothing(farm, connect):
    assert connect().ask(body())["code"] == 200


@pytest.mark.parametrize("given, answered", [("41", "41"), (41, 41), (..., ""), ("ünï", "ünï"), (2**53 + 1, 2**53 + 1)])
def test_the_id_comes_back_in_value_and_type(farm, connect, given, answered):
    reply = connect().ask(body(item(), id=given))
    assert (reply["id"], type(reply["id"])) == (answered, type(answered))


def test_a_payload_of_the_limit_is_taken_and_one_byte_more_is_1008(farm, connect):
    client = connect()
    exact = body(item()).ljust(LIMIT_BYTES)
    assert client.ask(exact)["code"] == 200
    too_large = body(item({"d": 9.0})).ljust(LIMIT_BYTES + 1)
    assert client.ask(too_large)["code"] == 1008
    assert client.ask(body(item({"d": 2.0})))["code"] == 200, "the connection stays"
    [entry] = farm.quarantine()
    entry = farm.quarantine_show(entry.id)
    assert (entry.code, entry.bytes, entry.truncated) == (1008, LIMIT_BYTES + 1, True)
    assert entry.sha256 == hashlib.sha256(too_large).hexdigest()
    assert entry.payload == too_large[:4096]


def test_a_payload_far_over_the_limit_is_drained_and_answered(farm, connect):
    client = connect()
    before = rss_bytes(farm)
    assert client.ask(b" " * (64 * 1024 * 1024))["code"] == 1008
    assert client.ask(body(item()))["code"] == 200
    assert rss_bytes(farm) - before < 32 * 1024 * 1024, "it is not buffered"


def rss_bytes(gateway):
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def test_a_topic_of_ours_that_does_not_exist_is_answered_1009(farm, connect):
    client = connect(v5=True)
    topic = f"/sys/{PRODUCT_KEY}/integration/nothing/post"
    assert client.subscribe(topic + "_reply") <= 1
    assert client.publish(topic, body(item())) == 0x87
    reply_topic, reply = client.reply()
    assert (reply_topic, reply["code"]) == (topic + "_reply", 1009)
    assert client.ask(body(item()))["code"] == 200 and client.disconnects == []


def test_another_product_s_topic_is_refused_logged_and_the_connection_stays(farm, connect):
    for v5, reason in ((True, 0x87), (False, 0)):
        client = connect(v5=v5)
        assert client.publish("/sys/another1/integration/measurepoint/post", body(item())) == reason
        assert client.ask(body(item()))["code"] == 200 and client.disconnects == []
    eventually(lambda: [e for e in farm.channel_log() if e.kind == "error" and e.get("code") == 1009],
               "an error entry with 1009")


def test_a_content_refusal_is_acknowledged_with_reason_0(farm, connect):
    client = connect(v5=True)
    client.subscribe(TOPIC + "_reply")
    assert client.publish(TOPIC, body(item(device="pump-9"))) == 0
    assert client.reply()[1]["code"] == 1257


def test_strict_stores_nothing_of_a_message_with_one_bad_item_and_lists_every_bad_one(farm, connect):
    reply = connect().ask(body(item(), item(device="pump-9"), item({"i": 1}, "pump-8"), item({"d": None, "i": 2}, "pump-8")))
    assert reply["code"] == 1257
    assert reply["data"].get("stored", 0) == 0
    rejected = reply["data"]["rejected"]
    assert [(r["index"], r["deviceKey"], r["code"]) for r in rejected] == [(1, "pump-9", 1257), (3, "pump-8", 1204)]
    assert rejected[1]["point"] == "d" and all(r["message"] for r in rejected)
    assert farm.cells(devices=["pump-7", "pump-8"], points=["d", "i"], product="plant") == {}
    [entry] = farm.quarantine()
    assert [(r["index"], r["code"]) for r in entry.rejected] == [(1, 1257), (3, 1204)]


def test_lenient_stores_the_good_items_and_quarantines_the_bad_ones(farm, connect):
    client = connect(farm.channel("lenient-history"))
    payload = body(item(), item(device="pump-9"), item({"i": 1}, "pump-8"), item({"d": None, "i": 2}, "pump-8", T0 + 1))
    reply = client.ask(payload)
    assert reply["code"] == 1257, "200 only when everything is stored"
    assert reply["data"]["stored"] == 2
    assert [(r["index"], r["code"]) for r in reply["data"]["rejected"]] == [(1, 1257), (3, 1204)]
    assert reply["data"]["receipt"]
    assert farm.cells(devices=["pump-7", "pump-8"], points=["d", "i"], product="plant") == {
        ("pump-7", T0, "d"): 1.0, ("pump-8", T0, "i"): 1}, "a bad item is refused whole"
    [entry] = farm.quarantine("lenient-history")
    assert [(r["index"], r["code"]) for r in entry.rejected] == [(1, 1257), (3, 1204)]
    sent = json.loads(payload)["params"]
    kept = farm.quarantine_show(entry.id).kept_items
    assert sent[1] in kept and sent[3] in kept
    assert client.ask(body(item()))["code"] == 200


def test_a_refusal_of_thousands_of_items_is_answered_in_a_bounded_size(farm, connect):
    reply = connect().ask(body(*[item(device=f"no-{i}") for i in range(3_000)]))
    assert reply["code"] == 1257
    listed = len(reply["data"]["rejected"])
    assert listed < 3_000 and listed + reply["data"]["more"] == 3_000


def test_quarantine_survives_a_kill(farm, connect):
    assert connect().ask(body(item(device="pump-9")))["code"] == 1257
    before = farm.quarantine()
    farm.kill()
    farm.start()
    assert farm.quarantine() == before and len(before) == 1


def test_a_refused_message_is_acknowledged_only_when_quarantine_has_it(farm):
    strings = farm.channel()
    payload = body(item(device="pump-9"))
    with wire.Link(farm.mqtt_address) as link:
        link.send(wire.connect(strings.clientId, strings.username, strings.password))
        link.receive()
        link.send(wire.publish(TOPIC, payload, packet_id=5))
        assert link.receive() == (0x40, b"\x00\x05")
    farm.kill()
    farm.start()
    [entry] = farm.quarantine()
    assert farm.quarantine_show(entry.id).payload == payload
