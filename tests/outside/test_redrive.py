"""The ways out of the quarantine: nothing refused is a dead end, and nothing re-driven overwrites what came later."""

import json

from mqtt import Client
from world import CHANNEL, FAILED, FARM, OK, PARTIAL, TOPIC, TURBINES, USAGE, eventually, points_message

T0 = 1_388_534_400_000
LATE = "R80790"


def lacking(farm_text, device=LATE):
    """The farm without one of its devices, and that device alone."""
    documents = farm_text.split("---\n")
    return "---\n".join(d for d in documents if f"name: {device}\n" not in d), \
        "".join(d for d in documents if f"name: {device}\n" in d)


def redrive(gateway, *selection, code=OK):
    return json.loads(gateway.cli("quarantine", "redrive", *selection, "-o", "json", code=code).out)


def status(gateway):
    return gateway.cli("quarantine", "status", "-o", "json").json()


def dry_run(gateway, *selection):
    return gateway.cli("quarantine", "redrive", "--dry-run", *selection, "-o", "json").json()


def what_a_reader_sees(gateway):
    """Everything that is stored, what was overwritten by what, and the latest values."""
    gateway.compact()
    latest = gateway.http("GET", "/api/v1/latest", params={"product": "wind-farm", "limit": 1000})
    assert latest.status_code == 200, latest.text
    return gateway.cells(), sorted(c.change for c in gateway.conflicts()), latest.json()["items"]


def test_history_for_a_device_registered_afterwards_is_as_if_it_had_been_there_from_the_start(
        gateways, history, tmp_path):
    # The night on which the clocks go forward holds conflicts.
    history.write_part(tmp_path / "days.csv", "2014-03-29", "2014-03-31")
    columns = ["--device-column", "Wind_turbine_name", "--time-column", "Date_time", "--batch", "20"]
    from_the_start = gateways(folder="from-the-start").start()
    from_the_start.apply(FARM)
    from_the_start.send(tmp_path / "days.csv", *columns)
    late = gateways(folder="late").start()
    without, device = lacking(FARM.read_text())
    late.apply(without)
    late.send(tmp_path / "days.csv", *columns, code=PARTIAL)
    refused = late.quarantine()
    assert refused and {entry.code for entry in refused} == {1257}
    assert dry_run(late, "--all")["summary"]["refused"] == len(refused)

    said = late.apply(device).err
    [cause] = late.cli("quarantine", "causes", "-o", "json").json()
    assert cause["entries"] == len(refused)
    assert f"would cure {len(refused)} quarantined messages on channel {CHANNEL}: " \
        f"backtide quarantine redrive --cause {cause['id']}" in said
    [cure] = late.cli("quarantine", "cures", "-o", "json").json()
    assert (cure["id"], cure["wouldCure"]) == (cause["id"], len(refused))
    tried = dry_run(late, "--cause", cause["id"])
    assert tried["summary"]["byCode"] == {"200": len(refused)} and len(tried["items"]) == len(refused)
    assert len(late.quarantine()) == len(refused), "a dry run changes nothing"

    job = redrive(late, "--cause", cause["id"])
    assert (job["state"], job["stored"], job["refused"]) == ("done", len(refused), 0)
    assert late.quarantine() == [] and late.cli("quarantine", "causes", "-o", "json").json() == []
    assert what_a_reader_sees(late) == what_a_reader_sees(from_the_start)
    assert any(e.kind == "audit" and f"re-drive {job['id']}" in e.message for e in late.channel_log())


def test_a_later_live_value_is_not_overwritten_by_an_older_one_that_is_re_driven(farm, connect, gateways):
    client = connect()
    item = (TURBINES[0], T0, {"P_avg": 1.0, "fresh": 1.0})
    assert client.post(item)["code"] == 1204, "the point is not declared"
    assert client.post((TURBINES[0], T0, {"P_avg": 2.0}))["code"] == 200, "live, and later"
    farm.apply(FARM.read_text().replace("  P_avg:", "  fresh: { type: double }\n  P_avg:"))
    assert redrive(farm, "--all")["stored"] == 1
    for _ in range(2):
        cells = farm.cells(devices=[TURBINES[0]], points=["P_avg", "fresh"])
        assert cells == {(TURBINES[0], T0, "P_avg"): 2.0, (TURBINES[0], T0, "fresh"): 1.0}
        farm.compact()
    [conflict] = farm.conflicts()
    assert conflict.change == (TURBINES[0], T0, "P_avg", 1.0, 2.0)
    answered = {e.receipt for e in farm.channel_log() if e.kind == "transmission"}
    assert set(conflict.receipts) <= answered, "both receipts are those of the first arrivals"
    [latest] = farm.http("GET", "/api/v1/latest", params={"product": "wind-farm"}).json()["items"]
    assert {point: latest["points"][point]["value"] for point in latest["points"]} == {"P_avg": 2.0, "fresh": 1.0}


def test_a_value_that_was_said_again_after_the_refusal_is_not_overwritten_either(farm, connect):
    client = connect()
    def post(value, **more):
        return client.post((TURBINES[0], T0, {"P_avg": value, **more}))["code"]
    assert [post(1.0), post(2.0, fresh=1.0), post(1.0)] == [200, 1204, 200]
    farm.compact()
    farm.apply(FARM.read_text().replace("  P_avg:", "  fresh: { type: double }\n  P_avg:"))
    assert redrive(farm, "--all")["stored"] == 1
    farm.compact()
    assert farm.cells(devices=[TURBINES[0]], points=["P_avg"]) == {(TURBINES[0], T0, "P_avg"): 1.0}


def test_what_is_still_refused_stays_the_same_entry_with_its_new_reason(farm, connect):
    client = connect()
    assert client.post(("nobody", T0, {"what": 1.0}))["code"] == 1257
    [before] = farm.quarantine()
    farm.apply("kind: Device\nname: nobody\nproduct: wind-farm\nkey: nobody\n")
    job = redrive(farm, before.id, code=PARTIAL)
    assert (job["refused"], job["stored"]) == (1, 0)
    [after] = farm.quarantine()
    assert (after.id, after.code, after["attempts"]) == (before.id, 1204, 1)
    assert after.subject["point"] == "what" and after["lastAttempt"] >= after["time"] == before["time"]
    [cause] = farm.cli("quarantine", "causes", "-o", "json").json()
    assert (cause["code"], cause["entries"]) == (1204, 1)


def test_of_a_lenient_message_only_the_bad_items_are_re_driven_and_only_what_is_bad_still_stays(farm, connect):
    farm.apply(f"kind: Channel\nname: lenient\nproduct: wind-farm\nmode: lenient\n")
    client = connect(farm.channel("lenient"))
    items = [(device, T0, {"P_avg": 1.0}) for device in (TURBINES[0], "one", "two")]
    assert client.post(*items)["data"]["stored"] == 1
    farm.apply("kind: Device\nname: one\nproduct: wind-farm\nkey: one\n")
    job = redrive(farm, "--device", "one", code=PARTIAL)
    assert (job["partly"], job["stored"]) == (1, 0)
    [entry] = farm.quarantine("lenient")
    assert [item["deviceKey"] for item in farm.quarantine_show(entry.id).kept_items] == ["two"]
    assert farm.cells(devices=["one"], points=["P_avg"]) == {("one", T0, "P_avg"): 1.0}
    farm.apply("kind: Device\nname: two\nproduct: wind-farm\nkey: two\n")
    assert redrive(farm, "--channel", "lenient")["stored"] == 1
    assert farm.quarantine("lenient") == [] and farm.conflicts() == []
    assert status(farm)["stored"] == 1


def test_a_selection_is_by_cause_channel_code_device_point_time_and_id(farm, connect):
    client = connect()
    for device, point in (("x", "P_avg"), ("y", "P_avg"), (TURBINES[0], "q")):
        client.post((device, T0, {point: 1.0}))
    ids = [entry.id for entry in farm.quarantine()]
    def found(*selection):
        return [line["id"] for line in dry_run(farm, *selection)["items"]]
    assert found("--device", "x") == ids[:1] and found("--code", 1204) == ids[2:]
    assert found("--point", "q") == ids[2:] and found(ids[1]) == ids[1:2]
    assert found("--channel", CHANNEL) == ids == found("--all")
    assert found("--from", "2000-01-01T00:00:00Z") == ids and found("--to", "2000-01-01T00:00:00Z") == []
    nothing = farm.run("quarantine", "redrive")
    assert nothing.code == FAILED and "nothing is selected" in nothing.err


def test_a_discard_asks_for_consent_and_is_written_down(farm, connect):
    client = connect()
    for device in ("x", "y"):
        client.post((device, T0, {"P_avg": 1.0}))
    refused = farm.run("quarantine", "discard", "--device", "x")
    assert refused.code == USAGE and "--yes" in refused.err and len(farm.quarantine()) == 2
    assert farm.http("POST", "/api/v1/quarantine/discard", json={"selection": {"all": True}}).status_code == 400
    farm.cli("quarantine", "discard", "--device", "x", "--yes")
    [left] = farm.quarantine()
    assert left.subject["deviceKey"] == "y" and status(farm)["discarded"] == 1
    [line] = [e for e in farm.channel_log() if e.kind == "audit"]
    assert "1 messages were discarded" in line.message and '"device":"x"' in line.message


def test_a_full_quarantine_holds_until_somebody_discards(gateways, connect):
    full = gateways(folder="full")
    full.options += ["--config", str(full.folder / "backtide.toml")]
    (full.folder / "backtide.toml").write_text("[quarantine]\nbytes_max = 1048576\n")
    full.start().apply(FARM)
    client = connect(full.channel(), full)
    bad = points_message([("nobody", T0, {"P_avg": 1.0})]).ljust(200_000)
    while status(full)["full"] is False:
        assert client.ask(bad)["code"] == 1257
    assert "% full" in full.log()
    assert full.http("GET", "/readyz").status_code == 503
    assert client.post((TURBINES[0], T0, {"P_avg": 1.0}))["code"] == 200, "good ones are taken"
    full.cli("quarantine", "discard", "--all", "--yes")
    eventually(lambda: full.http("GET", "/readyz").status_code == 200, "there is room again")
    assert client.ask(bad)["code"] == 1257


def refuse(gateway, client, count):
    """So many messages of a device that nobody registered, a value each."""
    for n in range(count):
        client.paho.publish(TOPIC, points_message([("late", T0 + n, {"P_avg": float(n)})]), 1)
    eventually(lambda: status(gateway)["entries"] == count, "all are refused")


def test_a_re_drive_that_is_killed_goes_on_and_stores_nothing_twice(farm, connect):
    client = connect()
    refuse(farm, client, 300)
    farm.apply("kind: Device\nname: late\nproduct: wind-farm\nkey: late\n")
    job = farm.cli("quarantine", "redrive", "--all", "--rate", "100", "--detach", "-o", "json").json()

    def now():
        return farm.http("GET", f"/api/v1/quarantine/redrives/{job['id']}").json()
    eventually(lambda: now()["stored"] > 20, "some are stored")
    farm.kill()
    farm.start()
    assert now()["state"] == "running"
    eventually(lambda: now()["state"] == "done", "it goes on by itself")
    assert farm.quarantine() == [] and now()["refused"] == 0
    assert farm.cells(devices=["late"], points=["P_avg"]) == {("late", T0 + n, "P_avg"): float(n) for n in range(300)}
    farm.compact()
    assert farm.conflicts() == []


def test_a_re_drive_can_be_cancelled(farm, connect):
    client = connect()
    refuse(farm, client, 50)
    farm.apply("kind: Device\nname: late\nproduct: wind-farm\nkey: late\n")
    job = farm.cli("quarantine", "redrive", "--all", "--rate", "1", "--detach", "-o", "json").json()
    farm.cli("quarantine", "cancel", job["id"])
    [listed] = farm.cli("quarantine", "jobs", "-o", "json").json()
    assert (listed["id"], listed["state"]) == (job["id"], "cancelled")
    assert 40 <= len(farm.quarantine()) <= 50
    assert redrive(farm, "--all")["state"] == "done" and farm.quarantine() == []


RAW = f"""
kind: Product
name: raw-farm
key: RAWfarm
model: turbine
format: custom
---
kind: Device
name: raw-1
product: raw-farm
---
kind: Channel
name: raw-history
product: raw-farm
"""


def test_raw_messages_are_cured_by_a_script_that_is_published_later(farm, gateways):
    farm.apply(RAW)
    script = farm.folder / "script.js"

    def publish(point, *options):
        script.write_text("function rawDataToJsonStr(raw) { return JSON.stringify({id: 'r', version: '1.0', "
                          f"method: 'integration.measurepoint.post', params: [{{deviceKey: 'raw-1', time: {T0} + raw[0], "
                          f"measurepoints: {{{point}: raw[1]}}}}]}}); }}")
        farm.cli("script", "draft", "raw", "--product", "raw-farm", "-f", script)
        return farm.cli("script", "publish", "raw").err
    client = Client(farm.mqtt_address, farm.channel("raw-history")).connect()
    topic = "/sys/RAWfarm/integration/model/up_raw"
    for n in range(5):
        assert client.ask(bytes([n, 10 + n]), topic)["code"] == 1202, "there is no script"
    said = publish("nothing_of_the_kind")
    assert "would cure" not in said, said
    [entry] = farm.quarantine("raw-history")[:1]
    verdict = farm.cli("quarantine", "run", entry.id, "-o", "json", code=PARTIAL).json()
    assert verdict["code"] == 1204 and "nothing_of_the_kind" in verdict["steps"][1]["made"]
    said = publish("P_avg")
    assert "would cure 5 quarantined messages on channel raw-history" in said
    assert redrive(farm, "--channel", "raw-history")["stored"] == 5
    assert farm.cells(devices=["raw-1"], points=["P_avg"], product="raw-farm") == {
        ("raw-1", T0 + n, "P_avg"): 10.0 + n for n in range(5)}
    client.close()
