"""The flight recorder: what came in, what was made of it, and what would be made of it now."""

import json

from world import CHANNEL, FARM, PARTIAL, TOPIC, TURBINES, eventually, points_message

T0 = 1_388_534_400_000


def recordings(gateway, *options):
    return gateway.cli("channel", "log", CHANNEL, "--trace", *options, "-o", "json").json()


def test_a_recorded_channel_shows_payload_stages_verdict_reply_and_timings(farm, connect):
    client = connect()
    client.post((TURBINES[0], T0, {"P_avg": 1.0}))
    assert recordings(farm) == [], "nothing is recorded unless it is asked for"
    farm.cli("channel", "trace", CHANNEL, "--for", "10m")
    good = points_message([(TURBINES[0], T0, {"P_avg": 2.0})])
    bad = points_message([(TURBINES[0], T0, {"nothing": 2.0})])
    replies = [client.ask(good), client.ask(bad), client.ask(b"\xff{")]
    farm.cli("channel", "trace", CHANNEL, "--stop")
    client.post((TURBINES[0], T0, {"P_avg": 3.0}))

    first, second, third = recordings(farm)
    assert [r["code"] for r in (first, second, third)] == [200, 1204, 1220]
    assert first["payload"] == good.decode() and first["payloadHex"] == good.hex()
    assert "payload" not in third and third["payloadHex"] == b"\xff{".hex()
    assert [(s["stage"], s["ok"]) for s in first["steps"]] == \
        [("authorize", True), ("decode", True), ("check", True), ("commit", True)]
    assert [(s["stage"], s["ok"]) for s in second["steps"]] == \
        [("authorize", True), ("decode", True), ("check", False), ("commit", True)]
    assert second["steps"][2]["detail"] and third["steps"][1]["ok"] is False
    assert [json.loads(r["reply"]) for r in (first, second, third)] == replies
    for r in (first, second, third):
        assert 0 <= r["judgeMs"] <= r["totalMs"] and 0 < r["commitMs"] <= r["totalMs"] and r["receipt"]
    table = farm.cli("channel", "log", CHANNEL, "--trace").out
    assert "LAST STAGE" in table and "nothing" in table
    assert [r["id"] for r in recordings(farm, "--code", 1204)] == [second["id"]]
    assert [r["id"] for r in recordings(farm, "--last", 1)] == [third["id"]]


def test_a_recorded_and_a_quarantined_message_run_again_against_what_is_declared_now(farm, connect):
    farm.cli("channel", "trace", CHANNEL, "--always")
    client = connect()
    assert client.post((TURBINES[0], T0, {"fresh": 2.0}))["code"] == 1204
    [recorded], [refused] = recordings(farm), farm.quarantine()
    for run in (("channel", "run", CHANNEL, recorded["id"]), ("quarantine", "run", refused.id)):
        verdict = farm.cli(*run, "-o", "json", code=PARTIAL).json()
        assert (verdict["code"], verdict["stored"]) == (1204, 0)
        assert verdict["steps"][-1]["stage"] == "check" and verdict["rejected"][0]["point"] == "fresh"
    farm.apply(FARM.read_text().replace("  P_avg:", "  fresh: { type: double }\n  P_avg:"))
    for run in (("channel", "run", CHANNEL, recorded["id"]), ("quarantine", "run", refused.id)):
        verdict = farm.cli(*run, "-o", "json").json()
        assert (verdict["code"], verdict["stored"], verdict["values"]) == (200, 1, 1)
    assert "check      ok" in farm.cli("quarantine", "run", refused.id).out
    assert farm.cells(devices=TURBINES[:1], points=["fresh"]) == {}, "a dry run stores nothing"
    assert len(farm.quarantine()) == 1


def test_a_sample_takes_its_share_and_a_window_outlives_a_restart(farm, connect):
    farm.cli("channel", "trace", CHANNEL, "--always", "--sample", "0.1")
    client = connect()
    for n in range(50):
        client.paho.publish(TOPIC,
                            points_message([(TURBINES[0], T0 + n, {"P_avg": 1.0})]), 1)
    eventually(lambda: len(farm.cells(devices=TURBINES[:1], points=["P_avg"])) == 50, "all are stored")
    assert len(recordings(farm)) == 5
    farm.restart()
    state = farm.http("GET", f"/api/v1/channels/{CHANNEL}/trace").json()
    assert state == {"recording": True, "sample": 0.1, "dropped": 0}
    assert len(recordings(farm)) == 5
