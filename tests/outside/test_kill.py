"""kill -9 of a loaded server at random moments: what was answered is there, and nothing that was never sent.

`BACKTIDE_KILLS` says how often (20; `make soak` 200), `BACKTIDE_SEED` which moments.
"""

import os
import random
import struct
import threading
import time

import pytest

import truth
import wire
from world import POINTS, SEED, TOPIC, TURBINES, points_message

KILLS = int(os.environ.get("BACKTIDE_KILLS", "20"))
ROWS, STEP_MS, WINDOW = 10, 1_000, 50
T0 = 1_388_534_400_000
MESSAGES_PER_ROUND_MAX = 1_500  # keeps the reading back short


def value(writer, message, row, point):
    """What must stand there, from its place alone; a double with a busy mantissa."""
    return (writer * 1e7 + message * ROWS + row) / 7 + POINTS.index(point)


def payload(writer, message):
    return points_message([(TURBINES[writer], T0 + (message * ROWS + row) * STEP_MS,
                            {point: value(writer, message, row, point) for point in POINTS[:3]}) for row in range(ROWS)],
                          id=str(message))


class Writer(threading.Thread):
    """Sends messages `first`, `first + 1`, … of one device with a full window until its link breaks."""

    def __init__(self, gateway, login, writer, first):
        super().__init__(daemon=True)
        self.writer, self.first = writer, first
        self.sent = self.acked = first   # one past the last message sent; answered (acknowledgements come in order)
        self.wrong = None
        self.link = wire.Link(gateway.mqtt_address)
        self.link.send(wire.connect(*login))
        assert self.link.receive()[1][1] == 0
        self.start()

    def run(self):
        try:
            while self.acked < self.first + MESSAGES_PER_ROUND_MAX:
                while self.sent - self.acked < WINDOW:
                    # Counted before it leaves: a message may be stored though its write failed half-way.
                    number, self.sent = self.sent, self.sent + 1
                    self.link.send(wire.publish(TOPIC, payload(self.writer, number), packet_id=number % 65_535 + 1))
                answer = self.link.receive()
                if answer is None:
                    return
                if answer[0] == 0x40:
                    if struct.unpack(">H", answer[1][:2])[0] != self.acked % 65_535 + 1:
                        self.wrong = f"writer {self.writer}: acknowledged {answer[1].hex()} out of order"
                        return
                    self.acked += 1
        except OSError:
            return


def login(strings, writer):
    return wire.login(strings.productKey, strings.secret, timestamp=str(1_700_000_000_000 + writer))


def check(gateway, writer, acked, sent, since=0):
    """Every answered message from `since` on is there, whole; of those sent but not answered all or nothing; no other."""
    device, message_ms = TURBINES[writer], ROWS * STEP_MS
    rows = truth.read_query_csv(gateway.query(devices=[device], start=str(T0 + since * message_ms), output="csv").out)
    place = (rows["time"] - T0) // STEP_MS
    assert ((rows["time"] - T0) % STEP_MS == 0).all() and rows["time"].is_unique
    message = place // ROWS
    assert (message < sent).all(), f"{device}: message {message.max()} was never sent, {sent} were"
    there = message.value_counts()
    missing = [number for number in range(since, acked) if number not in there.index]
    assert not missing, f"{device}: {len(missing)} answered messages are lost, such as {missing[:5]}"
    halves = there[there != ROWS]
    assert halves.empty, f"{device}: half-written messages {halves.to_dict()}"
    for point in POINTS[:3]:
        expected = (writer * 1e7 + place) / 7 + POINTS.index(point)
        assert (rows[point] == expected).all(), f"{device}: wrong values of {point}"
    assert rows[POINTS[3:]].isna().all().all()


@pytest.mark.timeout(120 + 15 * KILLS)
def test_every_answered_value_survives_kill_9_at_random_moments(farm):
    draw = random.Random(SEED)
    strings = farm.channel()
    next_message = [0] * len(TURBINES)
    answered = 0
    for kill in range(KILLS):
        writers = [Writer(farm, login(strings, i), i, next_message[i]) for i in range(len(TURBINES))]
        if draw.random() < 0.4:      # some of the kills meet a flush and a merge
            threading.Thread(target=compact_quietly, args=(farm,), daemon=True).start()
        alive_until = time.monotonic() + draw.uniform(0.02, 0.5)
        while time.monotonic() < alive_until:
            writers[0].join(timeout=0.005)
        farm.kill()
        for writer in writers:
            writer.join(timeout=20)
            assert not writer.is_alive() and writer.wrong is None, writer.wrong
            writer.link.close()
        farm.start()
        for i, writer in enumerate(writers):
            check(farm, i, writer.acked, writer.sent, since=next_message[i])
            answered += writer.acked - writer.first
            next_message[i] = writer.sent + 1     # the gap marks what no one sent
    assert answered > KILLS * len(TURBINES), f"the server answered only {answered} messages under load"
    # And at the end everything from the start: no later kill took what an earlier check had seen.
    total = sum(len(truth.read_query_csv(farm.query(devices=[t], output="csv").out)) for t in TURBINES)
    assert total >= answered * ROWS
    assert farm.quarantine() == []


def compact_quietly(gateway):
    try:
        gateway.compact()
    except Exception:  # the server dies under it: that is the point
        pass


def test_a_kill_during_the_restart_after_a_kill_loses_nothing(farm):
    draw = random.Random(SEED + 1)
    strings = farm.channel()
    writer = Writer(farm, login(strings, 0), 0, 0)
    writer.join(timeout=60)
    farm.kill()
    assert writer.acked == MESSAGES_PER_ROUND_MAX and writer.wrong is None
    writer.link.close()
    for delay in [draw.uniform(0.0, 0.1) for _ in range(5)]:
        farm.start_and_kill_after(delay)
    farm.start()
    check(farm, 0, writer.acked, writer.sent)
