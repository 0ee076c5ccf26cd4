"""History sent by MQTT arrives in real Apache Kafka: complete, in order per device, and under exactly once one time,
whatever is killed, stopped or cut on the way. The judge is confluent-kafka with `read_committed`.

`BACKTIDE_KAFKA_TROUBLES` says how often trouble comes (4; `make soak` 40), `BACKTIDE_SEED` which and when,
`BACKTIDE_KAFKA_STOP_S` how long Kafka is away at most (2; `make soak` 120).
"""

import collections
import json
import os
import random
import shutil
import threading

import pytest

import kafka
from mqtt import Client
from proxy import Proxy
from world import FARM, SEED, TOPIC, TURBINES, eventually, points_message

pytestmark = pytest.mark.xdist_group("kafka")
TROUBLES = int(os.environ.get("BACKTIDE_KAFKA_TROUBLES", "4"))
STOP_S = float(os.environ.get("BACKTIDE_KAFKA_STOP_S", "2"))
ORIGIN = "MEASURE_POINT_ORIGIN_OFFLINE_o1"
T0 = 1_388_534_400_000
RULE = """
kind: Rule
name: default-points
from: {{ type: points }}
begin: oldest
to: {{ kafka: {{ topic: "MEASURE_POINT_ORIGIN_OFFLINE_{{org}}", guarantee: {guarantee} }} }}
"""


def configured(gateways, servers, folder="gateway", **more):
    """A gateway that knows the farm and this Kafka."""
    gateway = gateways(folder=folder)
    settings = {"bootstrap_servers": servers, "partitions": 3, "delivery_timeout_ms": 5_000, **more}
    config = gateway.folder / "backtide.toml"
    config.write_text("[kafka]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    gateway.options += ["--config", str(config)]
    gateway.start()
    gateway.apply(FARM)
    return gateway


def send(gateway, first, count):
    """Messages of a row for each turbine; every one is answered 200, so every row is stored."""
    client = Client(gateway.mqtt_address, gateway.channel()).connect()
    for n in range(first, first + count):
        client.publish(TOPIC, points_message([(t, T0 + n * 1_000, {"P_avg": n + 0.5}) for t in TURBINES], id=str(n)))
    client.close()


def standing(gateway, rule="default-points"):
    answer = gateway.http("GET", "/api/v1/rule-status").json()
    return next(item for item in answer["items"] if item["name"] == rule)


def times_of(records):
    """{deviceKey: times in the order in which they lie in their partition}; a device keeps one partition."""
    times, partition_of = collections.defaultdict(list), {}
    for record in records:
        message = json.loads(record.value())
        payload, = message["payload"]
        assert record.key().decode() == message["assetId"] == payload["assetId"]
        assert payload["measurepoints"] == {"P_avg": (message["time"] - T0) / 1_000 + 0.5}
        assert json.loads(payload["points"]) == payload["measurepoints"]
        headers = kafka.headers_of(record)
        assert headers["backtide-channel"] == "scada-history" and headers["backtide-receipt"]
        assert int(headers["backtide-sequence"]) >= 0 and headers["backtide-schema"]
        assert partition_of.setdefault(record.key(), record.partition()) == record.partition()
        times[message["deviceKey"]].append(message["time"])
    return dict(times)


def arrives(node, count, within_s=120, **options):
    """Waits until every row is there at least once, and returns all records."""
    wanted = {(t, T0 + n * 1_000) for t in TURBINES for n in range(count)}
    found = []

    def complete():
        found[:] = node.read(ORIGIN, **options) if ORIGIN in node.topics() else []
        times = times_of(found)
        return {(device, time) for device in times for time in times[device]} >= wanted

    eventually(complete, lambda: f"{count * len(TURBINES)} rows, {len(found)} records came", within_s, every_s=0.5)
    return found


def test_history_arrives_complete_and_in_order_in_the_default_topic(gateways, own_kafka):
    gateway = configured(gateways, own_kafka.address)
    send(gateway, 0, 50)
    records = arrives(own_kafka, 50)
    assert times_of(records) == {t: [T0 + n * 1_000 for n in range(50)] for t in TURBINES}
    assert own_kafka.topics()[ORIGIN] == 3
    eventually(lambda: standing(gateway)["lag"] == 0, "no lag")


def test_kafka_down_from_the_start_delays_no_reply_and_gets_everything_when_it_returns(gateways, own_kafka):
    own_kafka.kill()
    gateway = configured(gateways, own_kafka.address)
    send(gateway, 0, 40)
    eventually(lambda: "Connection refused" in json.dumps(standing(gateway)), lambda: standing(gateway))
    own_kafka.start()
    assert set(times_of(arrives(own_kafka, 40))) == set(TURBINES)


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_whatever_is_killed_stopped_or_cut_everything_arrives(gateways, tmp_path, guarantee):
    """Backtide, Kafka or the link, at random; the link is all that Backtide knows of Kafka."""
    moments = random.Random(SEED)
    with Proxy(None) as link:
        node = kafka.Kafka(tmp_path / "kafka", link=link).start()
        try:
            gateway = configured(gateways, "%s:%d" % link.address)
            gateway.apply(RULE.format(guarantee=guarantee))
            sent = 0
            for _ in range(TROUBLES):
                trouble(moments, gateway, node, link)
                send(gateway, sent, 15)
                sent += 15
            records = arrives(node, sent, within_s=180)
        finally:
            node.close()
    times = times_of(records)
    wanted = [T0 + n * 1_000 for n in range(sent)]
    for turbine in TURBINES:
        if guarantee == "exactly-once":
            assert times[turbine] == wanted, "once, in order"
        else:
            firsts = list(dict.fromkeys(times[turbine]))
            assert firsts == wanted, "in order, but for what comes again"


def trouble(moments, gateway, node, link):
    """One of the things that happen, while a message is under way."""
    what = moments.choice(["gateway", "kafka", "freeze", "link"])
    busy = threading.Timer(moments.uniform(0, 0.3), lambda: None)
    busy.start()
    busy.join()
    match what:
        case "gateway":
            gateway.kill()
            gateway.start()
        case "kafka":
            node.kill()
            node.start()
        case "freeze":
            node.freeze()
            thaw = threading.Timer(moments.uniform(0.1, STOP_S), node.thaw)
            thaw.start()
        case "link":
            link.cut()


def test_a_second_gateway_on_a_copy_of_the_data_fences_the_first(gateways, own_kafka):
    first = configured(gateways, own_kafka.address)
    first.apply(RULE.format(guarantee="exactly-once"))
    send(first, 0, 10)
    arrives(own_kafka, 10)
    first.terminate()
    second = gateways(folder="second")
    shutil.copytree(first.data_dir, second.data_dir)
    config = first.folder / "backtide.toml"
    second.options += ["--config", str(config)]
    first.start()
    send(first, 10, 10)
    arrives(own_kafka, 20)
    before = {json.loads(record.value())["instance"] for record in own_kafka.read("BACKTIDE_CURSORS_o1")}
    second.start()
    # It has the log of the first ten, and Kafka's cursor stands at twenty: it takes over there.
    # It has, once its name stands beside the cursor.
    def names():
        return {json.loads(record.value())["instance"] for record in own_kafka.read("BACKTIDE_CURSORS_o1")}
    eventually(lambda: len(names()) > len(before), names)
    send(first, 20, 5)
    eventually(lambda: "taken over" in json.dumps(standing(first)), lambda: standing(first), 60)
    assert "taken over" in first.log()
    records = own_kafka.read(ORIGIN)
    assert times_of(records) == {t: [T0 + n * 1_000 for n in range(20)] for t in TURBINES}, "the first publishes no more"


def test_a_record_that_kafka_refuses_is_a_dead_letter_and_the_rest_arrives_once(gateways, own_kafka):
    own_kafka.make_topic(ORIGIN, partitions=3, max_message_bytes=1_100)
    gateway = configured(gateways, own_kafka.address)
    gateway.apply("""
kind: Model
name: wide
measurepoints: { P_avg: { type: double }, text: { type: string } }
---
{kind: Product, name: wide, key: wide1, model: wide}
---
{kind: Device, name: wide-1, product: wide}
---
{kind: Channel, name: wide, product: wide}
""")
    gateway.apply(RULE.format(guarantee="exactly-once"))
    strings = gateway.channel("wide")
    client = Client(gateway.mqtt_address, strings).connect()
    topic = TOPIC.replace("LHBfarm1", "wide1")
    client.publish(topic, points_message([("wide-1", T0, {"P_avg": 0.5})]))
    # Random letters do not compress below the topic's limit.
    noise = "".join(random.Random(SEED).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", k=1_000))
    client.publish(topic, points_message([("wide-1", T0 + 1_000, {"text": noise}), ("wide-1", T0 + 2_000, {"P_avg": 2.5})]))
    client.close()
    assert gateway.quarantine("wide") == []
    eventually(lambda: standing(gateway)["deadLetters"] == 1, lambda: standing(gateway), 60)
    found = []

    def there():
        found[:] = [json.loads(record.value())["time"] for record in own_kafka.read(ORIGIN)]
        return found == [T0, T0 + 2_000]

    eventually(there, lambda: found, 60)
