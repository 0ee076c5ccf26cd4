"""Sessions that announce GZIP: bombs, truncated payloads, bytes after the end. Replies are compressed, refusals too."""

import gzip
import json

import pytest

import wire
from world import PRODUCT_KEY, TOPIC, points_message

T0 = 1_388_534_400_000
GOOD = points_message([("R80711", T0, {"P_avg": 1.5})], id="7")


@pytest.fixture
def session(farm):
    """A connection that announced GZIP and listens to its replies."""
    cid = PRODUCT_KEY + "{ip=10.0.0.7,version=enos-mqtt-2.2.16,compress=GZIP}"
    with wire.Link(farm.mqtt_address) as link:
        link.send(wire.connect(*wire.login(PRODUCT_KEY, farm.channel().secret, cid=cid)))
        assert link.receive() == (0x20, b"\0\0")
        link.send(wire.packet(0x82, b"\0\1" + wire.text(TOPIC + "_reply") + b"\0"))
        assert link.receive()[0] == 0x90
        yield link


def post(link, payload):
    """The reply, which is compressed like everything on this session."""
    link.send(wire.publish(TOPIC, payload, packet_id=2))
    assert link.receive() == (0x40, b"\0\2")
    first, body = link.receive()
    topic, reply = body[2:2 + int.from_bytes(body[:2])], body[2 + int.from_bytes(body[:2]):]
    assert first == 0x30 and topic.decode() == TOPIC + "_reply"
    return json.loads(gzip.decompress(reply))


def rss_peak_bytes(gateway):
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def test_a_bomb_stops_at_the_inflated_limit(farm, session):
    bomb = gzip.compress(b" " * (100 << 20))
    assert len(bomb) < 512 * 1024
    before = farm.cpu_s()
    assert post(session, bomb)["code"] == 1008
    assert farm.cpu_s() - before < 1.0, "100 MiB were not inflated"
    assert post(session, gzip.compress(b" " * (512 * 1024 - len(GOOD)) + GOOD))["code"] == 200
    assert post(session, gzip.compress(b" " * (512 * 1024 - len(GOOD) + 1) + GOOD))["code"] == 1008


def test_what_is_no_whole_gzip_is_refused_and_kept_as_it_came(farm, session):
    whole = gzip.compress(GOOD)
    wrong = [GOOD, whole[:-1], whole[:20], whole + b"garbage", whole + b"\0" * 8, whole[:-8] + b"\0" * 8]
    for payload in wrong:
        assert post(session, payload)["code"] == 1202, payload
    assert [kept.payload for kept in farm.quarantine_export()] == wrong
    assert post(session, whole)["code"] == 200
    assert farm.cells() == {("R80711", T0, "P_avg"): 1.5}


def test_a_burst_that_inflates_to_many_times_its_size_is_taken_with_little_memory(farm, session):
    empty = b"[]" + b" " * 500_000
    bad = gzip.compress(empty)
    before = rss_peak_bytes(farm)
    session.send(b"".join(wire.publish(TOPIC, bad, packet_id=n) for n in range(1, 201)))
    packets = [session.receive() for _ in range(400)]
    acks = [int.from_bytes(body) for first, body in packets if first == 0x40]
    assert acks == list(range(1, 201)), "the rest are their replies"
    grown = rss_peak_bytes(farm) - before
    assert grown < 160 << 20, f"100 MB inflated made the process grow by {grown >> 20} MiB"
    assert farm.cli("quarantine", "status", "-o", "json").json()["entries"] == 200
    assert farm.quarantine_show(farm.quarantine()[0].id).payload == empty
    assert post(session, gzip.compress(GOOD))["code"] == 200


def test_members_that_follow_each_other_are_one_payload(farm, session):
    half = len(GOOD) // 2
    assert post(session, gzip.compress(GOOD[:half]) + gzip.compress(GOOD[half:]))["code"] == 200
    assert len(farm.cells()) == 1
