"""Events and attributes: every verdict, every spelling, what is stored of them, and how it is read back."""

import gzip
import json

import pytest

import wire
from mqtt import Client
from test_clients import vendor_sdk
from world import CHANNEL, EVERY_TYPE, FAILED, PRODUCT_KEY, USAGE, eventually

T0 = 1_388_534_400_000
LIMIT_BYTES = 512 * 1024
EVENT, ATTRIBUTE = "integration.event.post", "integration.attribute.post"
EVENTS, ATTRIBUTES = (f"/sys/{PRODUCT_KEY}/integration/{kind}/post" for kind in ("event", "attribute"))

PLANT = f"""
kind: Model
name: everything
measurepoints:
  P: {{ type: double }}
events:
  leak:
    level: warn
    output:{EVERY_TYPE.replace("    ", "      ")}
  restart: {{}}
attributes:{EVERY_TYPE}
---
kind: Model
name: open
passthrough: true
---
kind: Product
name: plant
key: {PRODUCT_KEY}
model: everything
---
kind: Product
name: free
key: Free1
model: open
---
kind: Product
name: coded
key: Coded1
model: everything
format: custom
---
""" + "---\n".join(f"kind: Device\nname: {name}\nproduct: {product}\nkey: {name}\n" for name, product in
                  (("pump-7", "plant"), ("pump-8", "plant"), ("free-1", "free"), ("coded-1", "coded"))) + "---\n" + \
    "---\n".join(f"kind: Channel\nname: {name}\nproduct: {product}\n{more}" for name, product, more in
                 ((CHANNEL, "plant", ""), ("lenient-history", "plant", "mode: lenient\n"),
                  ("stamping", "plant", "stampArrival: true\n"), ("free-history", "free", ""),
                  ("coded-history", "coded", "")))


@pytest.fixture
def farm(gateway):
    gateway.apply(PLANT)
    return gateway


def event(outputs=None, device="pump-7", time=T0, event="leak"):
    return {"deviceKey": device, "time": time, "events": {event: {"i": 1} if outputs is None else outputs}}


def attribute(values=None, device="pump-7"):
    return {"deviceKey": device, "attributes": {"s": "A-1"} if values is None else values}


def without(field, of):
    return {k: v for k, v in of.items() if k != field}


def body(method, /, *items, **changes):
    whole = {"id": "7", "version": "1.0", "method": method, "params": list(items), **changes}
    return json.dumps({k: v for k, v in whole.items() if v is not Ellipsis}).encode()


def post_events(client, *items, topic=EVENTS, qos=1):
    return client.ask(body(EVENT, *items), topic, qos)


def post_attributes(client, *items, topic=ATTRIBUTES):
    return client.ask(body(ATTRIBUTE, *items), topic)


def stored_events(farm, *options, product="plant"):
    return farm.cli("query", "--product", product, "--events", "-o", "ndjson", *options).ndjson()


def stored_attributes(farm, *options, product="plant"):
    return farm.cli("query", "--product", product, "--attributes", "-o", "ndjson", *options).ndjson()


def told(events):
    return [(e["deviceKey"], e["time"], e["event"], e["output"]) for e in events]


def held(attributes):
    return {(a["deviceKey"], a["attribute"]): a["value"] for a in attributes}


# --- what is taken ---

# As sent, and as it is read back.
VALUES = {
    "d": (7, 7.0), "f": (0.1, 0.1), "i": (-(2**31), -(2**31)), "l": (2**63 - 1, 2**63 - 1), "b": (1, True),
    "s": ('ä"\\ß', 'ä"\\ß'), "e": (1, 1), "es": ("AUTO", "AUTO"), "t": (str(T0), T0),
    "day": ("2014-03-30 02:30:00", "2014-03-30 02:30:00"), "at": ("2014-03-30T02:30:00Z", "2014-03-30T02:30:00Z"),
    "a": (["1", 2], [1, 2]), "pos": ({"y": 2, "x": 1}, {"x": 1.0, "y": 2}), "m": ({"b": [1], "a": {}}, {"a": {}, "b": [1]}),
    "u": ("local://file", "local://file"),
}
# What no reading of the protocol makes a value of the type.
MISFITS = {
    "d": "1.5", "f": 1e39, "i": 1.5, "l": 2**63, "b": "true", "s": 1, "e": 2, "es": "OFF", "t": "noon",
    "day": "2014-13-01 00:00:00", "at": "2014-03-30 02:30:00", "a": [1, 2, 3, 4], "pos": {"y": 1}, "m": [1], "u": 7,
}


def test_every_type_is_an_output_and_an_attribute(farm, connect):
    client = connect()
    sent = {name: given for name, (given, _) in VALUES.items()}
    read = {name: expected for name, (_, expected) in VALUES.items()}
    assert post_events(client, event(sent)) == {"id": "7", "code": 200, "data": {}}
    assert post_attributes(client, attribute(sent)) == {"id": "7", "code": 200, "data": {}}
    assert told(stored_events(farm)) == [("pump-7", T0, "leak", read)]
    assert held(stored_attributes(farm)) == {("pump-7", name): value for name, value in read.items()}


@pytest.mark.parametrize("name", MISFITS)
def test_a_value_that_does_not_fit_its_type_is_1204(farm, connect, name):
    client = connect()
    refused = post_events(client, event({name: MISFITS[name], "i": 1} if name != "i" else {"i": 1.5}))
    [rejected] = refused["data"]["rejected"]
    assert (refused["code"], rejected["point"], rejected["code"]) == (1204, f"leak.{name}", 1204), refused
    refused = post_attributes(client, attribute({name: MISFITS[name]}))
    [rejected] = refused["data"]["rejected"]
    assert (refused["code"], rejected["point"], rejected["deviceKey"]) == (1204, name, "pump-7"), refused
    assert stored_events(farm) == [] and stored_attributes(farm) == []


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_every_spelling_is_answered_in_its_own(farm, connect, slash, v5):
    client = connect(v5=v5)
    root = f"{slash}sys/{PRODUCT_KEY}/integration"
    assert post_events(client, event(), topic=f"{root}/event/post")["code"] == 200
    for at, kind in enumerate(["attribute", "attributes"]):
        assert post_attributes(client, attribute({"i": at}), topic=f"{root}/{kind}/post")["code"] == 200
    assert len(stored_events(farm)) == 1
    assert held(stored_attributes(farm)) == {("pump-7", "i"): 1}


def test_an_event_of_qos_0_is_stored_and_answered(farm, connect):
    assert post_events(connect(), event(), qos=0)["code"] == 200
    assert len(stored_events(farm)) == 1


def test_several_events_and_devices_fit_one_message(farm, connect):
    item = {"deviceKey": "pump-8", "time": str(T0 + 1), "events": {"leak": {"d": 4}, "restart": {}}}
    assert post_events(connect(), event({}), item)["code"] == 200
    assert told(stored_events(farm)) == [("pump-7", T0, "leak", {}), ("pump-8", T0 + 1, "leak", {"d": 4.0}),
                                         ("pump-8", T0 + 1, "restart", {})]


def test_empty_params_and_empty_items_are_a_success_that_stores_nothing(farm, connect):
    client = connect()
    for item in ([], [{"deviceKey": "pump-7", "time": T0, "events": {}}]):
        assert post_events(client, *item) == {"id": "7", "code": 200, "data": {}}
    for item in ([], [attribute({})]):
        assert post_attributes(client, *item) == {"id": "7", "code": 200, "data": {}}
    assert stored_events(farm) == [] and stored_attributes(farm) == []


def test_a_channel_that_stamps_arrival_takes_an_event_without_a_time(farm, connect):
    client = connect(farm.channel("stamping"))
    assert post_events(client, without("time", event()))["code"] == 200
    [stored] = stored_events(farm)
    assert stored["time"] == stored["arrived"] > T0
    assert post_events(client, event(time="noon"))["code"] == 1220


def test_a_passthrough_model_takes_what_it_does_not_declare(farm, connect):
    client = connect(farm.channel("free-history"))
    events, attributes = EVENTS.replace(PRODUCT_KEY, "Free1"), ATTRIBUTES.replace(PRODUCT_KEY, "Free1")
    assert post_events(client, event({"why": {"b": 1, "a": [1.0]}}, "free-1", event="new"), topic=events)["code"] == 200
    assert post_attributes(client, attribute({"any": {"x": 1}}, "free-1"), topic=attributes)["code"] == 200
    assert told(stored_events(farm, product="free")) == [("free-1", T0, "new", {"why": {"a": [1.0], "b": 1}})]
    assert held(stored_attributes(farm, product="free")) == {("free-1", "any"): {"x": 1}}
    assert post_events(client, event(7, "free-1", event="new"), topic=events)["code"] == 1204
    assert post_attributes(client, attribute({"any": None}, "free-1"), topic=attributes)["code"] == 1204


def test_an_item_takes_200_attributes_and_201_are_1204(farm, connect):
    client = connect(farm.channel("free-history"))
    topic = ATTRIBUTES.replace(PRODUCT_KEY, "Free1")
    whole = {f"a{n:03}": n for n in range(200)}
    assert post_attributes(client, attribute(whole, "free-1"), attribute({"b": 1}, "free-1"), topic=topic)["code"] == 200
    assert len(stored_attributes(farm, product="free")) == 201
    refused = post_attributes(client, attribute({**whole, "a200": 200}, "free-1"), topic=topic)
    assert refused["code"] == 1204
    assert "201 values, at most 200" in refused["message"] and refused["data"]["rejected"][0]["index"] == 0
    assert len(stored_attributes(farm, product="free")) == 201


# --- what is refused ---

REFUSED = {
    "an empty payload": (b"", 1251),
    "not JSON": (b"{", 1220),
    "version missing": (Ellipsis, {"version": ...}, 1220),
    "params an object": (Ellipsis, {"params": {}}, 1220),
    "method missing": (Ellipsis, {"method": ...}, 1250),
    "method unknown": (Ellipsis, {"method": "integration.nothing.post"}, 1250),
    "method of another topic": (Ellipsis, {"method": "integration.measurepoint.post"}, 1260),
}
REFUSED_EVENTS = {
    "a number": (7, 1220),
    "no deviceKey": (without("deviceKey", event()), 1220),
    "no time": (without("time", event()), 1220),
    "time null": (event(time=None), 1220),
    "time as ISO text": (event(time="2014-01-01T00:00:00Z"), 1220),
    "time with a fraction": (event(time=T0 + 0.5), 1220),
    "time before 1970": (event(time=-1), 1220),
    "time after 2100": (event(time=4_200_000_000_000), 1220),
    "no events": (without("events", event()), 1220),
    "events an array": ({**event(), "events": []}, 1220),
    "a device that nobody declared": (event(device="pump-9"), 1257),
    "an event that the model does not have": (event(event="fire"), 1204),
    "an output that the event does not have": (event({"nothing": 1}, event="restart"), 1204),
    "an output null": (event({"i": None}), 1204),
    "an event that is a number": ({**event(), "events": {"leak": 7}}, 1204),
    "a device before a time": (event(device="pump-9", time="noon"), 1257),
    "a time before a value": (event({"i": "x"}, time="noon"), 1220),
}
REFUSED_ATTRIBUTES = {
    "a number": (7, 1220),
    "no deviceKey": (without("deviceKey", attribute()), 1220),
    "no attributes": (without("attributes", attribute()), 1220),
    "attributes an array": ({**attribute(), "attributes": []}, 1220),
    "a device that nobody declared": (attribute(device="pump-9"), 1257),
    "an attribute that the model does not have": (attribute({"nothing": 1}), 1204),
    "a null": (attribute({"i": None}), 1204),
}


@pytest.mark.parametrize("method, topic, good, own", [(EVENT, EVENTS, event(), REFUSED_EVENTS),
                                                      (ATTRIBUTE, ATTRIBUTES, attribute(), REFUSED_ATTRIBUTES)],
                         ids=["events", "attributes"])
def test_every_refusal_has_its_code_keeps_the_connection_and_stands_in_quarantine(farm, connect, method, topic, good, own):
    client = connect()
    sent = [(name, case[0] if len(case) == 2 else body(method, good, **case[1]), case[-1]) for name, case in REFUSED.items()]
    sent += [(name, body(method, item), code) for name, (item, code) in own.items()]
    wrong = []
    for name, payload, code in sent:
        reply = client.ask(payload, topic)
        if reply["code"] != code or not reply["message"]:
            wrong.append(f"{name}: wanted {code}, got {reply}")
    assert not wrong, "\n".join(wrong)
    assert client.disconnects == [] and client.connects == 1
    assert stored_events(farm) == [] and stored_attributes(farm) == []
    assert client.ask(body(method, good), topic)["code"] == 200
    kept = farm.quarantine()
    assert [(entry.code, entry.topic, entry.bytes) for entry in kept] == [(code, topic, len(p)) for _, p, code in sent]
    errors = [entry.code for entry in farm.channel_log() if entry.kind == "error"]
    assert errors == [code for _, _, code in sent]


def test_a_payload_over_the_limit_is_1008(farm, connect):
    client = connect()
    for method, topic, item in ((EVENT, EVENTS, event()), (ATTRIBUTE, ATTRIBUTES, attribute())):
        assert client.ask(body(method, item).ljust(LIMIT_BYTES), topic)["code"] == 200
        assert client.ask(body(method, item).ljust(LIMIT_BYTES + 1), topic)["code"] == 1008


def test_json_for_a_custom_product_is_1202(farm, connect):
    client = connect(farm.channel("coded-history"))
    for method, topic, item in ((EVENT, EVENTS, event(device="coded-1")), (ATTRIBUTE, ATTRIBUTES, attribute(device="coded-1"))):
        assert client.ask(body(method, item), topic.replace(PRODUCT_KEY, "Coded1"))["code"] == 1202


def test_another_product_s_topic_is_1009(farm, connect):
    client = connect(v5=True)
    for method, topic, item in ((EVENT, EVENTS, event()), (ATTRIBUTE, ATTRIBUTES, attribute())):
        assert client.publish(topic.replace(PRODUCT_KEY, "Free1"), body(method, item)) == 0x87
    eventually(lambda: [entry.code for entry in farm.channel_log() if entry.kind == "error"] == [1009, 1009], "two errors 1009")


def test_strict_stores_nothing_of_a_message_with_one_bad_item_and_lists_every_fault(farm, connect):
    client = connect()
    reply = post_events(client, event(), event(device="pump-9"), event({"i": "x", "d": None}), event(event="fire"))
    assert (reply["code"], reply["data"]["stored"]) == (1257, 0)
    assert [(r["index"], r["code"], r.get("point")) for r in reply["data"]["rejected"]] == [
        (1, 1257, None), (2, 1204, "leak.d"), (2, 1204, "leak.i"), (3, 1204, "fire")]
    reply = post_attributes(client, attribute(), attribute({"i": "x", "nothing": 1}))
    assert (reply["code"], reply["data"]["stored"]) == (1204, 0)
    assert [(r["index"], r["point"]) for r in reply["data"]["rejected"]] == [(1, "i"), (1, "nothing")]
    assert stored_events(farm) == [] and stored_attributes(farm) == []


def test_lenient_stores_the_good_items_and_keeps_the_bad_ones_alone_under_their_own_method(farm, connect):
    client = connect(farm.channel("lenient-history"))
    reply = post_events(client, event(), event(event="fire"), event(device="pump-8"))
    assert (reply["code"], reply["data"]["stored"]) == (1204, 2)
    assert [e[0] for e in told(stored_events(farm))] == ["pump-7", "pump-8"]
    reply = post_attributes(client, attribute({"i": 1}), attribute({"i": "x"}, "pump-8"))
    assert (reply["code"], reply["data"]["stored"]) == (1204, 1)
    assert held(stored_attributes(farm)) == {("pump-7", "i"): 1}
    kept = [json.loads(farm.quarantine_show(entry.id).payload) for entry in farm.quarantine("lenient-history")]
    assert [(k["method"], k["params"]) for k in kept] == [(EVENT, [event(event="fire")]),
                                                          (ATTRIBUTE, [attribute({"i": "x"}, "pump-8")])]


# --- what is stored ---


def test_the_same_event_again_is_stored_once_and_another_output_is_a_second_event(farm, connect):
    client = connect()
    for _ in range(3):
        assert post_events(client, event({"d": 4, "i": 1}), event({"i": 1, "d": 4.0}))["code"] == 200
    assert post_events(client, event({"d": 5, "i": 1}))["code"] == 200
    both = [{"d": 4.0, "i": 1}, {"d": 5.0, "i": 1}]
    assert sorted((e[3] for e in told(stored_events(farm))), key=str) == both
    figures = farm.compact()
    assert (figures["events"], figures["eventDuplicates"]) == (2, 5)
    assert post_events(client, event({"d": 4, "i": 1}))["code"] == 200
    assert len(stored_events(farm)) == 2, "written already and in memory again"
    figures = farm.compact()
    assert (figures["events"], figures["eventDuplicates"]) == (2, 6)
    assert farm.conflicts() == []


def test_an_attribute_has_its_last_value_and_its_history(farm, connect):
    client = connect()
    for number, value in enumerate(["A", "A", "B", "B", "A"]):
        assert post_attributes(client, attribute({"s": value, "i": 7}))["code"] == 200
        if number == 2:
            farm.compact()
    for again in (False, True):
        assert held(stored_attributes(farm)) == {("pump-7", "s"): "A", ("pump-7", "i"): 7}
        history = stored_attributes(farm, "--history", "--attribute", "s")
        assert [entry["value"] for entry in history] == ["A", "B", "A"]
        assert all(a["arrived"] <= a["confirmed"] <= b["arrived"] for a, b in zip(history, history[1:]))
        assert len({entry["receipt"] for entry in history}) == 3
        assert len(stored_attributes(farm, "--history", "--attribute", "i")) == 1
        if not again:
            farm.compact()


def test_events_and_attributes_say_where_they_came_from(farm, connect):
    client = connect()
    post_events(client, event())
    post_attributes(client, attribute())
    [said], [has] = stored_events(farm), stored_attributes(farm)
    for found, topic in ((said, EVENTS), (has, ATTRIBUTES)):
        assert found["channel"] == CHANNEL
        message = farm.http("GET", f"/api/v1/receipts/{found['receipt']}").json()
        assert (message["topic"], message["time"], message["channel"]) == (topic, found["arrived"], CHANNEL)


def test_what_was_answered_is_there_after_a_kill(farm, connect):
    """Before and after it has left the journal, several times over."""
    expected, values = [], {}
    for life in range(6):
        client = Client(farm.mqtt_address, farm.channel()).connect()
        for number in range(20):
            at = T0 + life * 1000 + number
            assert post_events(client, event({"i": number}, time=at))["code"] == 200
            assert post_attributes(client, attribute({"i": at % 1000, "s": f"{life}"}))["code"] == 200
            expected.append(("pump-7", at, "leak", {"i": number}))
            values = {("pump-7", "i"): at % 1000, ("pump-7", "s"): f"{life}"}
        if life % 3 == 1:
            farm.compact()
        farm.kill()
        client.close()
        farm.start()
        assert told(stored_events(farm)) == expected
        assert held(stored_attributes(farm)) == values
    history = [a["value"] for a in stored_attributes(farm, "--history", "--attribute", "s")]
    assert history == [str(life) for life in range(6)]
    assert farm.compact()["eventDuplicates"] == 0


def test_a_message_sent_again_after_a_kill_changes_nothing(farm):
    strings = farm.channel()
    payload = body(EVENT, *[event({"i": n}, time=T0 + n) for n in range(50)])
    for life in range(3):
        with wire.Link(farm.mqtt_address) as link:
            link.send(wire.connect(strings.clientId, strings.username, strings.password))
            link.receive()
            link.send(wire.publish(EVENTS, payload, packet_id=5))
            assert link.receive() == (0x40, b"\x00\x05")
        farm.kill()
        farm.start()
        assert len(stored_events(farm)) == 50
    figures = farm.compact()
    assert (figures["events"], figures["eventDuplicates"]) == (50, 100)


def test_what_is_driven_again_never_overwrites_what_came_later(farm, connect):
    client = connect()
    late = {"deviceKey": "pump-9", "time": T0, "events": {"leak": {"i": 1}}}
    assert post_attributes(client, attribute({"s": "first"}, "pump-9"))["code"] == 1257
    assert post_events(client, late)["code"] == 1257
    farm.apply("kind: Device\nname: pump-9\nproduct: plant\nkey: pump-9\n")
    assert post_attributes(client, attribute({"s": "second"}, "pump-9"))["code"] == 200
    assert post_events(client, late)["code"] == 200
    assert len(farm.quarantine()) == 2
    farm.cli("quarantine", "redrive", "--all")
    eventually(lambda: farm.quarantine() == [], "quarantine is empty")
    for _ in range(2):
        assert held(stored_attributes(farm)) == {("pump-9", "s"): "second"}
        assert [a["value"] for a in stored_attributes(farm, "--history")] == ["first", "second"]
        assert told(stored_events(farm)) == [("pump-9", T0, "leak", {"i": 1})]
        figures = farm.compact()
    assert (figures["events"], figures["eventDuplicates"], figures["attributeValues"]) == (1, 1, 2)


def test_points_are_as_they_were(farm, connect):
    client = connect()
    post_events(client, event())
    client.post(("pump-7", T0, {"P": 1.5}))
    post_attributes(client, attribute())
    assert farm.cells(devices=["pump-7"], points=["P"], product="plant") == {("pump-7", T0, "P"): 1.5}
    latest = farm.http("GET", "/api/v1/latest?product=plant&device=pump-7").json()["items"]
    assert [list(item["points"]) for item in latest] == [["P"]]


# --- how it is read ---


@pytest.fixture
def filled(farm, connect):
    """200 events and 60 attribute values of two devices, part of them flushed."""
    client = connect()
    for half in range(2):
        numbers = range(half * 100, half * 100 + 100)
        items = [event({"i": n}, f"pump-{7 + n % 2}", T0 + n // 3, "restart" if n % 10 == 0 else "leak") for n in numbers]
        items = [{**item, "events": {"restart": {}}} if "restart" in item["events"] else item for item in items]
        assert post_events(client, *items)["code"] == 200
        values = [attribute({"i": half * 10 + n, "s": "same"}, device) for n in range(10) for device in ("pump-7", "pump-8")]
        assert post_attributes(client, *values)["code"] == 200
        if half == 0:
            farm.compact()
    return farm


def test_events_come_in_the_order_of_time_by_device_event_and_span(filled):
    everything = stored_events(filled)
    assert len(everything) == 200
    order = [(e["time"], e["deviceKey"], e["event"]) for e in everything]
    assert order == sorted(order)
    for options, keep in (
            (["--device", "pump-8"], lambda e: e["deviceKey"] == "pump-8"),
            (["--event", "restart"], lambda e: e["event"] == "restart"),
            (["--from", str(T0 + 10), "--to", "2014-01-01T00:00:00.030Z"], lambda e: T0 + 10 <= e["time"] < T0 + 30),
            (["--limit", "7"], lambda e: e in everything[:7])):
        assert stored_events(filled, *options) == [e for e in everything if keep(e)], options


@pytest.mark.parametrize("path", ["events?product=plant", "attributes?product=plant", "attributes?product=plant&history=true"])
def test_pages_join_to_the_stream(filled, path):
    stream = filled.http("GET", f"/api/v1/{path}&format=ndjson")
    assert stream.headers["Content-Type"] == "application/x-ndjson"
    streamed = [json.loads(line) for line in stream.text.splitlines()]
    paged, cursor = [], None
    while True:
        page = filled.http("GET", f"/api/v1/{path}&limit=7" + (f"&cursor={cursor}" if cursor else "")).json()
        assert len(page["items"]) <= 7
        paged += page["items"]
        cursor = page.get("next")
        if cursor is None:
            break
    assert paged == streamed and len(paged) in (200, 4, 42)


def test_the_command_line_prints_every_form(filled):
    for kind, first in (("--events", "deviceKey,time,event,output,channel,arrived,receipt"),
                        ("--attributes", "deviceKey,attribute,value,confirmed,channel,arrived,receipt")):
        lines = filled.cli("query", "--product", "plant", kind, "-o", "ndjson").ndjson()
        assert filled.cli("query", "--product", "plant", kind, "-o", "json").json() == lines
        csv = filled.cli("query", "--product", "plant", kind, "-o", "csv")
        assert csv.out.splitlines()[0] == first and len(csv.csv()) == len(lines)
        assert json.loads(csv.csv()[0].get("output") or csv.csv()[0]["value"]) == lines[0].get("output", lines[0].get("value"))
        table = filled.cli("query", "--product", "plant", kind, "-o", "table").out.splitlines()
        assert len(table) == len(lines) + 1 and table[1].startswith("pump-7  ")


def test_a_question_that_makes_no_sense_is_refused_in_its_place(farm):
    for path, status, place in (("events?product=plant&event=fire", 404, "event"),
                                ("attributes?product=plant&attribute=nothing", 404, "attribute"),
                                ("events?product=plant&device=pump-9", 404, "device"),
                                ("attributes?product=nothing", 404, "product"),
                                ("events?product=plant&cursor=x", 400, "cursor"),
                                ("attributes?product=plant&cursor=x", 400, "cursor"),
                                ("events?product=plant&from=noon", 400, "from, to"),
                                ("events?product=plant&limit=0", 400, "limit")):
        answer = farm.http("GET", f"/api/v1/{path}")
        assert (answer.status_code, answer.json()["where"]) == (status, place), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert farm.http("GET", "/api/v1/events?product=plant", token=False).status_code == 401
    farm.cli("query", "--product", "plant", "--events", "--points", "P", code=USAGE)
    farm.cli("query", "--product", "plant", "--history", code=USAGE)
    farm.cli("query", "--product", "plant", "--events", "--event", "fire", code=FAILED)


def test_the_channel_log_and_the_metrics_count_items_of_every_kind(farm, connect):
    client = connect()
    post_events(client, event(), event(time=T0 + 1))
    post_attributes(client, attribute(), attribute(), attribute({"i": 1, "l": 2}))
    post_attributes(client, attribute({"nothing": 1}))
    log = [(e.topic, e.item_count, e.code) for e in farm.channel_log() if e.kind == "transmission"]
    assert log == [(EVENTS, 2, 200), (ATTRIBUTES, 3, 200), (ATTRIBUTES, 1, 1204)]
    metrics = dict(line.rsplit(" ", 1) for line in farm.http("GET", "/metrics").text.splitlines() if line and line[0] != "#")
    of_channel = {name: float(metrics[f'backtide_{name}_total{{channel="{CHANNEL}"}}']) for name in
                  ("items_stored", "items_refused", "values_stored")}
    assert of_channel == {"items_stored": 5, "items_refused": 1, "values_stored": 6}


# --- the vendor's SDKs ---


def test_the_vendor_sdk_posts_events_and_its_second_event_of_a_moment_never_leaves_it(farm):
    outcome = vendor_sdk(farm, sync=[{"events": [["pump-7", T0, "leak", {"d": 4.5, "s": "seal"}], ["pump-8", T0, "restart", {}]]},
                                     {"events": [["pump-7", T0 + 1, "leak", {"i": 1}], ["pump-7", T0 + 1, "restart", {}]]},
                                     {"events": [["pump-9", T0, "leak", {}]]}])
    assert [answer["code"] for answer in outcome["sync"]] == [200, 200, 1257]
    assert told(stored_events(farm)) == [("pump-7", T0, "leak", {"d": 4.5, "s": "seal"}), ("pump-8", T0, "restart", {}),
                                         ("pump-7", T0 + 1, "leak", {"i": 1})]


def test_the_vendor_sdk_s_attribute_builder_sends_nothing_and_around_it_they_are_stored(farm):
    outcome = vendor_sdk(farm, sync=[{"attributes": [["pump-7", "s", "A-1"]]}])
    assert [(answer["code"], answer["success"]) for answer in outcome["sync"]] == [(200, True)]
    assert stored_attributes(farm) == []
    outcome = vendor_sdk(farm, sync=[{"attributeParams": [attribute({"s": "A-1", "pos": {"x": 48.1}})]},
                                     {"attributeParams": [attribute({"nothing": 1})]}])
    assert [answer["code"] for answer in outcome["sync"]] == [200, 1204]
    assert held(stored_attributes(farm)) == {("pump-7", "s"): "A-1", ("pump-7", "pos"): {"x": 48.1}}


@pytest.mark.parametrize("compress", ["GZIP", "DEFAULT"])
def test_a_session_as_the_vendor_s_java_sdk_opens_it_carries_every_kind(farm, compress):
    """The SDK itself is not served any more; this is what it sends (mqtt-channel.md §1.3, §1.7, §3.1)."""
    pack, unpack = (gzip.compress, gzip.decompress) if compress == "GZIP" else (bytes, bytes)
    cid = f"{PRODUCT_KEY}{{ip=10.0.0.7,version=enos-mqtt-2.2.16,compress={compress}}}"
    client_id, username, password = wire.login(PRODUCT_KEY, farm.channel().secret, cid)
    client = Client(farm.mqtt_address, farm.channel(), client_id=client_id, username=username, password=password).connect()
    points = "integration.measurepoint.post"
    sent = [(points, f"/sys/{PRODUCT_KEY}/integration/measurepoint/post",
             {"deviceKey": "pump-7", "time": T0, "measurepoints": {"P": 1.5}}),
            (EVENT, EVENTS, event({"s": "a<b"})), (ATTRIBUTE, ATTRIBUTES, attribute({"s": "it's"}))]
    for method, topic, item in sent:
        assert client.subscribe(topic + "_reply") <= 1
        # Gson writes < > & = ' as \u00XX.
        text = json.dumps({"id": "1", "version": "1.1", "method": method, "params": [item]})
        client.publish(topic, pack(text.replace("<", "\\u003c").replace("'", "\\u0027").encode()))
        reply_topic, reply = client.replies.get(timeout=20)
        assert reply_topic == topic + "_reply" and json.loads(unpack(reply))["code"] == 200, (topic, reply)
    client.close()
    assert farm.cells(devices=["pump-7"], points=["P"], product="plant") == {("pump-7", T0, "P"): 1.5}
    assert told(stored_events(farm)) == [("pump-7", T0, "leak", {"s": "a<b"})]
    assert held(stored_attributes(farm)) == {("pump-7", "s"): "it's"}
