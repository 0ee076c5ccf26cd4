"""QoS 2 over a crash and over a clean stop: nothing is lost, whatever a client does with its packet ids."""

import random
import struct
import time

import wire
from world import SEED, TOPIC, points_message

T0 = 1_388_534_400_000


def publish(packet_id, at, dup=False):
    body = points_message([("R80711", at, {"P_avg": float(at - T0)})])
    return wire.packet(0x3C if dup else 0x34, wire.text(TOPIC) + struct.pack(">H", packet_id) + body)


class Session(wire.Link):
    """A connection of a session that stays."""

    def __init__(self, gateway, strings):
        super().__init__(gateway.mqtt_address)
        self.send(wire.connect(strings.clientId, strings.username, strings.password, clean=False))
        first, body = self.receive()
        assert first == 0x20 and body[1] == 0
        self.is_present = body[0] == 1

    def finish(self, packet_id):
        """From PUBREC on."""
        id = struct.pack(">H", packet_id)
        assert self.receive() == (0x50, id)
        self.send(wire.packet(0x62, id))
        assert self.receive() == (0x70, id)


def test_a_client_that_always_uses_the_same_packet_id_loses_nothing_over_kills(farm):
    """After a kill the server must not take a new message for one that this id stood for before."""
    chance = random.Random(SEED)
    strings = farm.channel()
    at = 0
    for _ in range(6):
        # Long enough for sessions to be kept in between, which is done once a second.
        until = time.monotonic() + chance.uniform(0.8, 2.2)
        with Session(farm, strings) as link:
            while time.monotonic() < until:
                link.send(publish(1, T0 + at))
                link.finish(1)
                at += 1
            link.send(publish(1, T0 + at))
            if chance.random() < 0.5:
                link.receive()
            farm.kill()
        farm.start()
        with Session(farm, strings) as link:
            assert link.is_present
            link.send(publish(1, T0 + at, dup=True))
            link.finish(1)
        at += 1
    assert farm.cells() == {("R80711", T0 + i, "P_avg"): float(i) for i in range(at)}
    assert farm.conflicts() == []


def test_over_a_clean_stop_a_message_that_was_received_is_not_taken_again(farm):
    strings = farm.channel()
    with Session(farm, strings) as link:
        link.send(publish(7, T0))
        assert link.receive() == (0x50, b"\0\7")
    farm.restart()
    with Session(farm, strings) as link:
        assert link.is_present
        link.send(publish(7, T0, dup=True))
        link.finish(7)
        link.send(publish(7, T0 + 1))
        link.finish(7)
    sent = [entry for entry in farm.channel_log() if entry.kind == "transmission"]
    assert len(sent) == 2 and len(farm.cells()) == 2
