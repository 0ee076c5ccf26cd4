"""Subscriptions: the vendor's SDKs, unmodified, over every framing; groups, kills, keys; five thousand who wait."""

import collections
import itertools
import json
import resource
import signal
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from certs import Certs
from mqtt import Client
from subscription_wire import PULL_RSP, Session
from test_clients import HERE
from world import CSV_COLUMNS, FAILED, FARM, POINTS, SAMPLE, TOOLS, TOPIC, TURBINES, eventually, points_message

ID = "history"
OBJECTS = f"{{kind: AccessKey, name: analytics}}\n---\n{{kind: Subscription, name: {ID}, accessKey: analytics}}\n"
T0 = 1_388_534_400_000
ORGANIZATIONS = itertools.count(1)
ROWS = 9_791  # of the sample that have a value; one has none


@dataclass(frozen=True)
class Key:
    accessKey: str
    accessSecret: str


def key_of(gateway, verb="show", *options):
    shown = gateway.cli("access-key", verb, "analytics", "-o", "json", *options).json()
    return Key(shown["accessKey"], shown["accessSecret"])


def address(gateway):
    host, port = gateway.addresses["subscribe"].rsplit(":", 1)
    return host, int(port)


def status(gateway, name=ID):
    return gateway.http("GET", f"/api/v1/subscriptions/{name}/status").json()


def group_of(gateway, name):
    return next(group for group in status(gateway)["groups"] if group["group"] == name)


class Reader:
    """An SDK in a process of its own; what it prints."""

    def __init__(self, gateway, sdk, **orders):
        host, port = address(gateway)
        key = key_of(gateway)
        orders = {"host": host, "port": port, "accessKey": key.accessKey, "accessSecret": key.accessSecret,
                  "subscription": ID, **orders}
        self.process = subprocess.Popen([TOOLS / sdk / "bin/python", f"{HERE}/clients/{sdk.replace('-', '_')}_reader.py"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.process.stdin.write(json.dumps(orders))
        self.process.stdin.close()
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    @property
    def messages(self):
        return [line for line in self.lines if "value" in line]

    def wait(self, count, within_s=60):
        eventually(lambda: len(self.messages) >= count, lambda: f"{count} messages, {len(self.messages)} came", within_s)
        return self.messages

    @contextmanager
    def still(self):
        """Stands still meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def read():
    """Starts SDKs that end with the test."""
    readers = []

    def start(gateway, sdk, **orders):
        readers.append(Reader(gateway, sdk, **orders))
        return readers[-1]

    yield start
    for reader in readers:
        reader.kill()


@pytest.fixture(params=["log", pytest.param("kafka", marks=pytest.mark.xdist_group("kafka"))])
def subscribed(request, gateways):
    """The farm with a subscription to everything, which lies in Backtide's own files or in real Kafka."""
    gateway = gateways()
    if request.param == "kafka":
        node = request.getfixturevalue("kafka_node")
        # An organization of its own, and so topics of its own.
        config = gateway.folder / "backtide.toml"
        config.write_text(f'organization = "o{next(ORGANIZATIONS)}"\n[kafka]\nbootstrap_servers = "{node.address}"\n')
        gateway.options += ["--config", str(config)]
    gateway.start()
    gateway.apply(FARM)
    gateway.apply(OBJECTS)
    return gateway


@pytest.fixture
def connect(subscribed):
    """Connects paho clients to the channel; they go away with the test."""
    clients = []

    def connected():
        clients.append(Client(subscribed.mqtt_address, subscribed.channel()).connect())
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


def rows_of(messages):
    """(deviceKey, time, point): value of each message, and how often each row came."""
    cells, rows = {}, collections.Counter()
    for message in messages:
        value = json.loads(message["value"])
        payload, = value["payload"]
        assert value["channel"] == "OFFLINE" and payload["time"] == value["time"]
        assert json.loads(payload["points"]) == payload["measurepoints"]
        rows[value["deviceKey"], value["time"]] += 1
        for point, number in payload["measurepoints"].items():
            cells[value["deviceKey"], value["time"], point] = number
    return cells, rows


def check_order(messages):
    """Offsets have no gap, and an asset stays in its partition."""
    partition_of, next_offset = {}, {}
    for message in messages:
        assert partition_of.setdefault(message["key"], message["partition"]) == message["partition"]
        assert next_offset.get(message["partition"], message["offset"]) == message["offset"]
        next_offset[message["partition"]] = message["offset"] + 1


def send(connect, count, first=0):
    """A row for each turbine and time, in messages of one time."""
    client = connect()
    for n in range(first, first + count):
        items = [(turbine, T0 + n * 1_000, {"P_avg": n + 0.5}) for turbine in TURBINES]
        client.publish(TOPIC, points_message(items, id=str(n)))
    client.close()


# --- the SDKs ---


def test_both_sdks_get_what_was_stored(subscribed, read):
    by_web_socket = read(subscribed, "enos-subscribe")
    by_tcp = read(subscribed, "enos-dms", group="second")
    subscribed.send(SAMPLE, *CSV_COLUMNS)
    stored = subscribed.cells(devices=TURBINES, points=POINTS)
    for reader in (by_web_socket, by_tcp):
        cells, rows = rows_of(reader.wait(ROWS))
        assert cells == stored
        # Repeats: rows that the file itself holds twice.
        assert sum(rows.values()) == ROWS
    check_order(by_tcp.messages)


def test_an_sdk_over_tls_gets_what_was_stored(gateways, tmp_path, read):
    certs = Certs(tmp_path / "certs")
    certs.cli("server")
    certs.cli("client", "plant-7")
    config = tmp_path / "backtide.toml"
    config.write_text("[mqtts]\n" + "".join(f"{name} = {json.dumps(certs[file])}\n" for name, file in [
        ("certificate", "server.pem"), ("key", "server.key"), ("client_ca", "ca.pem")]))
    gateway = gateways("--config", str(config), "--mqtts", "127.0.0.1:0").start()
    gateway.apply(FARM)
    gateway.apply(OBJECTS)
    one_way = {"enable_ssl": True, "ssl_ca_file": certs["ca.pem"]}
    mutual = {**one_way, "ssl_cert_file": certs["plant-7.pem"], "ssl_key_file": certs["plant-7.key"]}
    gateway.send(SAMPLE, *CSV_COLUMNS)
    for group, tls in [("one way", one_way), ("mutual", mutual), ("plain", {})]:
        assert sum(rows_of(read(gateway, "enos-dms", group=group, tls=tls).wait(ROWS))[1].values()) == ROWS


@pytest.mark.parametrize("sdk", ["enos-subscribe", "enos-dms"])
def test_kills_between_pull_and_commit_lose_nothing_and_repeat_what_was_not_committed(subscribed, connect, read, sdk):
    reader = read(subscribed, sdk, group="g")
    sent, allowed = 0, 0
    for _ in range(3):
        send(connect, 60, first=sent)
        sent += 60
        rows = len(TURBINES) * sent
        reader.wait(rows // 2)
        subscribed.kill()
        # While it stands still it neither reads nor commits: what is committed now is what everything goes on from.
        with reader.still():
            subscribed.start()
            groups = status(subscribed)["groups"]
            allowed += rows - sum(offset.get("committed", 0) for group in groups for offset in group["offsets"])
        eventually(lambda: len(rows_of(reader.messages)[1]) == rows, "every row", 60)
    assert len(reader.messages) <= rows + allowed
    cells, _ = rows_of(reader.messages)
    assert cells == {(t, T0 + n * 1_000, "P_avg"): n + 0.5 for t in TURBINES for n in range(sent)}


def test_two_groups_see_everything_and_three_members_share_it(subscribed, connect, read):
    # More assets than the farm has: both partitions get some.
    subscribed.apply("\n---\n".join(f"{{kind: Device, name: d{n}, product: wind-farm, assetId: a{n}}}" for n in range(12)))
    members = [read(subscribed, "enos-dms", group="shared") for _ in range(3)]
    alone = read(subscribed, "enos-subscribe", group="alone")
    eventually(lambda: {g["group"]: g["members"] for g in status(subscribed)["groups"]} == {"shared": 3, "alone": 1},
               "everybody is in")
    client = connect()
    for n in range(40):
        client.publish(TOPIC, points_message([(f"d{d}", T0 + n, {"P_avg": float(n)}) for d in range(12)]))
    everything = {(f"d{d}", T0 + n): 1 for d in range(12) for n in range(40)}
    assert rows_of(alone.wait(480))[1] == everything
    eventually(lambda: sum(len(m.messages) for m in members) >= 480, "all of it among the members")
    assert rows_of([message for m in members for message in m.messages])[1] == everything
    shares = [{message["partition"] for message in m.messages} for m in members]
    assert sorted(map(sorted, shares)) == [[], [0], [1]]
    # One of those that had something leaves: the one that waited gets what was not committed, and all that comes.
    shares_of = dict(zip(map(id, members), shares))
    waiting = next(m for m in members if not shares_of[id(m)])
    leaving = next(m for m in members if shares_of[id(m)])
    leaving.kill()
    eventually(lambda: group_of(subscribed, "shared")["members"] == 2, "one left")
    client.publish(TOPIC, points_message([(f"d{d}", T0 + 1_000, {"P_avg": 1.0}) for d in range(12)]))
    eventually(lambda: {m["partition"] for m in waiting.messages} == shares_of[id(leaving)], "its partition moved")


# --- what SDKs do not show ---


@pytest.mark.xdist_group("kafka")
@pytest.mark.parametrize("subscribed", ["kafka"], indirect=True)
def test_on_kafka_the_groups_are_ones_that_its_own_tools_show(subscribed, connect, kafka_node):
    node = kafka_node
    send(connect, 5)
    session, messages = Session(address(subscribed)).subscribe(key_of(subscribed), ID, "g"), []
    while len(messages) < 20:
        messages += session.pull()
    for partition, offset, _ in messages:
        session.commit(ID, partition, offset + 1)
    organization = (subscribed.folder / "backtide.toml").read_text().split('"')[1]
    topic = f"SUBSCRIPTION_{organization}_{ID}"
    wanted = {(topic, partition): offset + 1 for partition, offset, _ in messages}
    eventually(lambda: node.committed(f"{topic}.g") == wanted, lambda: node.committed(f"{topic}.g"))
    assert node.topics()[topic] == 2 and node.settings(topic)["retention.ms"] == str(72 * 3_600_000)
    assert sorted(record.value().decode() for record in node.read(topic)) == sorted(value for _, _, value in messages)
    subscribed.cli("delete", "subscription", ID)
    eventually(lambda: topic not in node.topics(), "its topic is gone", 30)


def test_a_commit_is_where_the_group_begins_again_after_a_kill(subscribed, connect):
    key = key_of(subscribed)
    send(connect, 20)
    session = Session(address(subscribed)).subscribe(key, ID, "g")
    messages = []
    while len(messages) < 80:
        messages += session.pull()
    partition, offset, _ = messages[30]
    session.commit(ID, partition, offset)
    eventually(lambda: [o for o in group_of(subscribed, "g")["offsets"] if o.get("committed") == offset], "committed")
    subscribed.kill()
    subscribed.start()
    again, session = [], Session(address(subscribed)).subscribe(key, ID, "g")
    expected = [m for m in messages if m[0] != partition or m[1] >= offset]
    while len(again) < len(expected):
        again += session.pull()
    assert sorted(again) == sorted(expected)
    assert session.pull() == []


def test_who_may_not_read_is_told_and_shut_out(subscribed):
    key = key_of(subscribed)
    session = Session(address(subscribed))
    assert session.login(key, ID, secret="9f545c81-9839-4907-999e-307724b40183") != 0
    with pytest.raises(ConnectionError):
        session.receive()
    waiting = Session(address(subscribed)).subscribe(key, ID, "g")
    waiting.ask()
    subscribed.cli("access-key", "revoke", "analytics")
    with pytest.raises(ConnectionError):
        while waiting.receive()[0] == PULL_RSP:
            waiting.ask()
    assert Session(address(subscribed)).login(key, ID) != 0
    new = key_of(subscribed, "rotate")
    assert new.accessKey == key.accessKey and new.accessSecret != key.accessSecret
    assert Session(address(subscribed)).login(new, ID) == 0
    # In use: the key stays.
    subscribed.cli("delete", "access-key", "analytics", code=FAILED)


def test_a_subscription_is_stopped_started_replayed_and_deleted(subscribed, connect):
    key = key_of(subscribed)
    send(connect, 5)
    session = Session(address(subscribed)).subscribe(key, ID, "g")
    first = []
    while len(first) < 20:
        first += session.pull()
    for partition, offset, _ in first:
        session.commit(ID, partition, offset + 1)
    eventually(lambda: group_of(subscribed, "g")["lag"] == 0, "committed")
    listed, = subscribed.cli("subscription", "ls", "-o", "json").json()
    assert (listed["name"], listed["state"], listed["accessKey"]) == (ID, "running", "analytics")
    subscribed.cli("subscription", "stop", ID)
    assert status(subscribed)["state"] == "stopped"
    assert Session(address(subscribed)).login(key, ID) != 0
    send(connect, 1, first=5)
    subscribed.cli("subscription", "start", ID)
    session = Session(address(subscribed)).subscribe(key, ID, "g")
    rest = []
    while len(rest) < 4:
        rest += session.pull()
    assert {json.loads(value)["time"] for _, _, value in rest} == {T0 + 5_000}
    subscribed.cli("subscription", "replay", ID, "--from", "2020-01-01T00:00:00Z", "--group", "g")
    again = []
    while len(again) < 24:
        again += session.pull()
    assert sorted(again) == sorted(first + rest)
    shown = subscribed.cli("subscription", "show", ID, "-o", "csv").csv()
    assert {line["group"] for line in shown} == {"g"}
    subscribed.cli("delete", "subscription", ID)
    with pytest.raises(ConnectionError):
        while session.pull() is not None:
            pass
    eventually(lambda: not list((subscribed.data_dir / "subscriptions").iterdir()), "its file is gone")


def test_five_thousand_who_wait_cost_little(gateways):
    sessions, kib_max = 5_000, 20
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, sessions + 1_000), hard))
    folder = gateways().folder
    config = folder / "backtide.toml"
    config.write_text(f"[subscribe]\nconnections_per_address_max = {sessions + 10}\n")
    gateway = gateways("--config", str(config)).start()
    gateway.apply(FARM)
    gateway.apply(OBJECTS)
    key = key_of(gateway)
    Session(address(gateway)).subscribe(key, ID, "warm").pull()
    before = resident_kib(gateway)
    waiting = [Session(address(gateway)).subscribe(key, ID, f"g{n % 50}") for n in range(sessions)]
    for session in waiting:
        session.ask()
    assert sum(group["members"] for group in status(gateway)["groups"]) == sessions
    each = (resident_kib(gateway) - before) / sessions
    assert each <= kib_max, f"{each:.1f} KiB a session"
    print(f"{each:.1f} KiB a session")
    for session in waiting:
        session.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_kib(gateway):
    lines = (line.split() for line in open(f"/proc/{gateway.process.pid}/status"))
    return next(int(line[1]) for line in lines if line[0] == "VmRSS:")
