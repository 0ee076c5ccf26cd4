"""The channel log: who came and went and why, what was transmitted, what went wrong."""

import pytest

import wire
from world import CHANNEL, TOPIC, eventually, points_message

T0 = 1_388_534_400_000


def entries(gateway, kind, count, channel=CHANNEL):
    """The log lags behind the message's path a little: wait for what must come."""
    return eventually(lambda: (found := [e for e in gateway.channel_log(channel) if e.kind == kind]) and
                      len(found) >= count and found, lambda: f"{count} {kind} in {gateway.channel_log(channel)}")


def test_connects_and_disconnects_are_logged_with_their_reasons(farm, connect, proxy):
    strings = farm.channel()
    politely = connect()
    politely.close()
    with wire.Link(proxy.address) as link:
        link.send(wire.connect(strings.clientId, strings.username, strings.password))
        link.receive()
        proxy.cut()
    entries(farm, "disconnect", 2)
    taken_over = connect()
    connect()
    eventually(lambda: taken_over.disconnects, "the take-over")
    entries(farm, "disconnect", 3)
    farm.cli("channel", "pause", CHANNEL)
    ends = entries(farm, "disconnect", 4)
    assert len(set(e.reason for e in ends)) == 4, f"each end has its own reason: {[e.reason for e in ends]}"
    begins = entries(farm, "connect", 4)
    assert all(e.client_id == strings.clientId for e in begins + ends)
    assert [e.time for e in farm.channel_log()] == sorted(e.time for e in farm.channel_log())


def test_transmissions_are_logged_with_size_items_code_time_and_receipt(farm, connect):
    client = connect()
    payload = points_message([("R80711", T0, {"P_avg": 1.5}), ("R80721", T0, {"P_avg": 2.5})])
    client.ask(payload)
    client.ask(points_message([("nobody", T0, {"P_avg": 1.5})]))
    good, bad = entries(farm, "transmission", 2)
    assert (good.topic, good.bytes, good.item_count, good.code) == (TOPIC, len(payload), 2, 200)
    assert good.receipt and good.ms >= 0
    assert (bad.code, bad.item_count) == (1257, 1)
    [error] = entries(farm, "error", 1)
    assert error.code == 1257 and "nobody" in error.message


@pytest.mark.parametrize("payload, code", [(b"{", 1220), (points_message([("R80711", T0, {"nothing": 1})]), 1204)])
def test_broken_json_and_model_errors_are_errors_in_the_log(farm, connect, payload, code):
    connect().ask(payload)
    [error] = entries(farm, "error", 1)
    assert (error.code, error.topic) == (code, TOPIC) and error.message


def test_a_conflict_s_receipts_are_those_of_the_log(farm, connect):
    client = connect()
    client.post(("R80711", T0, {"P_avg": 1.0}))
    client.post(("R80711", T0, {"P_avg": 2.0}))
    first, second = entries(farm, "transmission", 2)
    [conflict] = eventually(farm.conflicts, "the conflict", within_s=90, every_s=1)
    assert conflict.change == ("R80711", T0, "P_avg", 1.0, 2.0)
    assert conflict.receipts == (first.receipt, second.receipt)


def test_following_the_log_prints_what_is_there_and_what_comes(farm, connect):
    client = connect()
    client.post(("R80711", T0, {"P_avg": 1.0}))
    entries(farm, "transmission", 1)
    follower = farm.follow_channel_log()
    try:
        follower.wait_for(lambda e: e.kind == "connect", "what was there")
        follower.wait_for(lambda e: e.kind == "transmission" and e.code == 200, "what was there")
        client.ask(points_message([("nobody", T0, {"P_avg": 1.5})]))
        follower.wait_for(lambda e: e.kind == "transmission" and e.code == 1257, "what comes")
        client.close()
        follower.wait_for(lambda e: e.kind == "disconnect", "what comes")
    finally:
        follower.close()


def test_the_log_survives_a_restart(farm, connect):
    connect().post(("R80711", T0, {"P_avg": 1.0}))
    before = entries(farm, "transmission", 1)
    farm.restart()
    assert [e for e in farm.channel_log() if e.kind == "transmission"] == before
    ends = entries(farm, "disconnect", 1)
    assert ends[0].reason, "the shutdown is the reason of the last disconnect"


def test_the_log_never_holds_a_password_or_a_secret(farm, connect):
    strings = farm.channel()
    connect()
    wire.connack(farm.mqtt_address, strings.clientId, strings.username, "not-the-password-at-all")
    entries(farm, "error", 1)
    for text in (farm.cli("channel", "log", CHANNEL, "-o", "json").out, farm.log_path.read_text()):
        for hidden in (strings.password, strings.secret, "not-the-password-at-all"):
            assert hidden not in text
