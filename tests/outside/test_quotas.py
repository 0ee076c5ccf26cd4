"""Quotas of channels, and connects that come too fast. Rates are measured by the senders' own clocks, against what is declared."""

import json
import struct
import threading
import time

import pytest

import wire
from world import CHANNEL, TOPIC, eventually, points_message

T0 = 1_388_534_400_000


def declare(gateway, **more):
    channel = gateway.cli("get", "channel", CHANNEL, "-o", "json").json()
    gateway.apply(json.dumps({**channel, **more}))


class Sender(wire.Link):
    """A connection of its own client id."""

    def __init__(self, gateway, number=0):
        super().__init__(gateway.mqtt_address, timeout_s=60)
        strings = gateway.channel()
        client_id = strings.clientId.removesuffix("|") + f",n={number}|"
        self.send(wire.connect(client_id, strings.username, strings.password))
        assert self.receive() == (0x20, b"\0\0")

    def post(self, times, points=1):
        """Sends a message for each time at once, and returns the seconds to each acknowledgement, in order."""
        names = ["P_avg", "Ws_avg", "Va_avg", "Ot_avg"][:points]
        begun = time.monotonic()
        self.send(b"".join(wire.publish(TOPIC, points_message([("R80711", at, dict.fromkeys(names, 1.5))]), n)
                           for n, at in enumerate(times, 1)))
        seconds = []
        for n in range(1, len(times) + 1):
            assert self.receive() == (0x40, struct.pack(">H", n))
            seconds.append(time.monotonic() - begun)
        return seconds


@pytest.mark.parametrize("quotas, points", [({"messagesPerSecond": 10}, 1), ({"pointsPerSecond": 40}, 4),
                                            ({"bytesPerSecond": 1_500}, 1)])
def test_a_sender_over_its_quota_is_slowed_and_loses_nothing(farm, quotas, points):
    declare(farm, quotas=quotas)
    with Sender(farm) as sender:
        seconds = sender.post([T0 + i for i in range(40)], points)
    assert seconds == sorted(seconds)
    assert 2.0 < seconds[-1] < 30.0, "40 messages, of which a second's worth is free"
    assert len(farm.cells()) == 40 * points
    assert 'backtide_quota_waits_total{channel="scada-history"}' in farm.http("GET", "/metrics", token=False).text


def test_a_ping_is_answered_while_messages_wait(farm):
    declare(farm, quotas={"messagesPerSecond": 1})
    with Sender(farm) as sender:
        sender.send(b"".join(wire.publish(TOPIC, points_message([("R80711", T0 + i, {"P_avg": 1.5})]), i + 1)
                             for i in range(20)) + b"\xc0\0")
        kinds = []
        while 0xD0 not in kinds:
            kinds.append(sender.receive()[0])
        assert len(kinds) < 20, "the answer did not wait for all of them"


def test_recent_data_does_not_wait_for_a_backlog_of_the_same_channel(farm):
    declare(farm, quotas={"messagesPerSecond": 2, "recent": {"withinSeconds": 3600}})
    with Sender(farm, 1) as backlog, Sender(farm, 2) as live:
        held = threading.Thread(target=backlog.post, args=([T0 + i for i in range(30)],))
        held.start()
        now = int(time.time() * 1000)
        seconds = live.post([now - i for i in range(200)])
        assert held.is_alive() and seconds[-1] < 10.0
        declare(farm, quotas=None)
        held.join()
    assert len(farm.cells()) == 230


def test_a_connection_that_goes_away_takes_what_waits_with_it_and_may_send_it_again(farm):
    declare(farm, quotas={"messagesPerSecond": 1})
    with Sender(farm) as sender:
        sender.send(b"".join(wire.publish(TOPIC, points_message([("R80711", T0 + i, {"P_avg": 1.5})]), i + 1)
                             for i in range(100)))
        assert sender.receive() == (0x40, b"\0\1")
    declare(farm, quotas=None)
    with Sender(farm) as sender:
        sender.post([T0 + i for i in range(100)])
    assert len(farm.cells()) == 100


def test_a_flood_of_qos_0_over_the_quota_is_refused_with_1274_and_kept(farm):
    declare(farm, quotas={"messagesPerSecond": 2})
    with Sender(farm) as sender:
        sender.send(b"".join(wire.publish(TOPIC, points_message([("R80711", T0 + i, {"P_avg": 1.5})]))
                             for i in range(100)))
        eventually(lambda: len(farm.quarantine()) + len(farm.cells()) == 100,
                   lambda: f"{len(farm.quarantine())} refused and {len(farm.cells())} stored of 100", within_s=40)
    refused = farm.quarantine()
    assert {entry.code for entry in refused} == {1274} and len(refused) > 50
    assert "QoS 1" in refused[0].reason
    assert len(farm.cells()) >= 15


def test_quotas_that_let_nothing_in_are_refused(farm):
    channel = farm.cli("get", "channel", CHANNEL, "-o", "json").json()
    for quotas in [{"messagesPerSecond": 0}, {"recent": {}}, {"perDay": 5}]:
        run = farm.run("apply", "-f", "-", input=json.dumps({**channel, "quotas": quotas}))
        assert run.code != 0 and CHANNEL in run.err, run


# --- connects ---


def knock(gateway, password=None, client_id=None):
    strings = gateway.channel()
    return wire.connack(gateway.mqtt_address, client_id or strings.clientId, strings.username,
                        password or strings.password)


def errors(gateway):
    return [entry.message for entry in gateway.channel_log() if entry.kind == "error"]


def test_connects_that_come_too_fast_are_refused_and_the_log_says_so_once(farm):
    strings = farm.channel()
    hello = wire.connect(strings.clientId, strings.username, strings.password)
    answers = set()
    for _ in range(2_000):
        with wire.Link(farm.mqtt_address) as link:
            try:
                link.send(hello)
                answer = link.receive()
            except ConnectionError:
                answer = None
            answers.add(answer and answer[1][1])
            if answers & {None, 3}:
                break
    assert answers & {None, 3}, "the address or the channel was throttled"
    eventually(lambda: knock_or_none(farm) == 0, "later it goes on")


def knock_or_none(gateway):
    try:
        return knock(gateway)
    except (AssertionError, ConnectionError):
        return None


def test_a_throttled_login_is_in_the_channel_log_once(farm):
    for _ in range(10):
        assert knock(farm, password="wrong") == 4
    for _ in range(3):
        assert knock(farm) == 3
    told = [message for message in errors(farm) if "too many logins or failed logins" in message]
    assert len(told) == 1


def test_a_connection_beyond_the_channels_cap_is_in_its_log(farm):
    declare(farm, connectionsMax=1)
    with Sender(farm):
        assert knock(farm, client_id=farm.channel().clientId) == 3
    assert any("too many connections" in message for message in errors(farm))
