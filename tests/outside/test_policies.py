"""Policies: what is done to values on their way in, and that it can be seen, previewed and undone for what was refused."""

import json
import time

import pytest

from pump import POST, T0, client, post, stored
from world import FAILED, OK, eventually

DAY = 24 * 3600 * 1000

PLANT = """
kind: Model
name: pump
measurepoints:
  t: { type: double, unit: Cel, quality: true }
  p: { type: double, unit: kPa }
  p_raw: { type: double, unit: kPa }
  flow: { type: double }
  power: { type: double }
  rpm: { type: int }
---
kind: Product
name: pumps
key: PUMPS
model: pump
---
kind: Device
name: pump-7
product: pumps
key: pump-7
---
kind: Channel
name: history
product: pumps
---
kind: Channel
name: lenient
product: pumps
mode: lenient
"""

POLICY = """
kind: Policy
name: pump-units
models: [pump]
processing:
  - points: [temp_f]
    unit: { from: "[degF]", to: Cel }
  - points: [temp_f]
    rename: t
  - points: [p]
    unit: { from: bar, to: kPa }
  - points: [p]
    copy: p_raw
  - points: [p]
    clamp: { min: 0, max: 1000 }
  - points: [rpm]
    scale: { factor: 0.1, offset: 1 }
  - points: [power]
    expression: "flow * p / 2.0"
"""
RANGE = """
kind: Policy
name: pump-range
order: 10
products: [pumps]
processing:
  - points: [t]
    range: { min: -20, max: 60, otherwise: %s }
"""


@pytest.fixture
def plant(gateway):
    gateway.apply(PLANT)
    return gateway


def rows(gateway, points="t,p,p_raw,flow,power,rpm"):
    return stored(gateway, points)


def test_values_are_processed_before_they_are_stored_and_say_so(plant, client):
    assert plant.apply_results(POLICY) == {("Policy", "pump-units"): "created"}
    assert plant.apply_results(POLICY) == {("Policy", "pump-units"): "unchanged"}
    reply = post(client(), {"temp_f": 98.6, "p": 12, "flow": 2, "rpm": 14_996})
    assert (reply["code"], reply["data"]) == (200, {})
    [row] = rows(plant)
    assert row["t"] == pytest.approx(37.0, abs=1e-9)
    assert {p: row[p] for p in ("p", "p_raw", "power", "rpm")} == {"p": 1000, "p_raw": 1200, "power": 1000, "rpm": 1501}

    of_p = {"product": "pumps", "device": "pump-7", "point": "p_raw", "time": T0}
    lineage = plant.http("GET", "/api/v1/points/lineage", params=of_p).json()["policies"]
    assert lineage == {"revision": 1, "steps": [
        {"policy": "pump-units", "step": 3, "point": "p", "does": "× 100 + 0 (unit bar to kPa)"},
        {"policy": "pump-units", "step": 4, "point": "p", "does": "copy to p_raw"}]}
    # What was done to a value stays true of it: after the policy changed, after a restart, from segments.
    plant.apply(POLICY.replace("from: bar", "from: mbar"))
    plant.compact()
    plant.restart()
    assert plant.http("GET", "/api/v1/points/lineage", params=of_p).json()["policies"] == lineage

    plant.cli("delete", "policy", "pump-units")
    assert post(client("lenient"), {"p": 12})["code"] == 200
    assert plant.http("GET", "/api/v1/points/lineage", params={**of_p, "point": "p"}).json().get("policies") is None
    assert rows(plant, "p")[0]["p"] == 12


def test_a_range_drops_with_a_count_or_flags_or_refuses_and_what_is_refused_is_cured_by_another_policy(plant, client):
    plant.apply(RANGE % "drop")
    strict = client()
    reply = post(strict, {"t": 61.5}, {"t": 20, "flow": 1})
    assert (reply["code"], reply["data"]["reduced"]) == (200, 1) and reply["data"]["receipt"]
    assert [row.get("t") for row in rows(plant)] == [20], "the row that was left without values is none"
    [entry] = [e for e in plant.channel_log("history") if e.kind == "transmission"]
    assert (entry["reduced"], entry.receipt) == (1, reply["data"]["receipt"])
    assert 'backtide_values_reduced_total{channel="history"} 1' in plant.http("GET", "/metrics").text

    plant.apply(RANGE % "flag, quality: 3")
    assert post(strict, {"t": 61.5})["data"] == {}
    assert strict.post(("pump-7", T0 + 9000, {"t": 62.5}), topic=POST)["code"] == 200
    [latest] = plant.http("GET", "/api/v1/latest", params={"product": "pumps", "points": "t"}).json()["items"]
    assert latest["points"]["t"] == {"time": T0 + 9000, "value": 62.5, "quality": 3}

    plant.apply(RANGE % "quarantine")
    reply = post(client("lenient"), {"t": 99}, {"t": 21})
    assert (reply["code"], reply["data"]["stored"]) == (1204, 1)
    [rejected] = reply["data"]["rejected"]
    assert (rejected["index"], rejected["point"]) == (0, "t")
    assert rejected["message"].endswith("policy pump-range, step 1: 99 is not between -20 and 60")
    [entry] = plant.quarantine("lenient")
    entry = plant.quarantine_show(entry.id)
    assert [item["measurepoints"] for item in entry.kept_items] == [{"t": 99}]

    said = plant.apply((RANGE % "quarantine").replace("max: 60", "max: 120")).err
    assert "would cure 1 quarantined messages on channel lenient" in said
    assert plant.cli("quarantine", "redrive", "--all", "-o", "json").json()["stored"] == 1
    assert [row["t"] for row in rows(plant)] == [99, 21, 62.5]


def test_a_policy_is_shown_for_a_point_and_a_change_is_previewed(plant):
    preview = plant.cli("policy", "preview", "-f", "-", "-o", "json", input=POLICY).json()
    assert {(t["channel"], t["point"]) for t in preview["processing"]} == {
        (channel, point) for channel in ("history", "lenient") for point in ("t", "p", "p_raw", "power", "rpm")}
    assert all(t["before"] == [] and t["devices"] == 1 for t in preview["processing"])
    assert plant.cli("get", "policies", "-o", "json").json() == [], "a preview changes nothing"
    plant.apply(POLICY)
    shown = plant.cli("policy", "show", "--device", "pump-7", "--point", "t", "-o", "csv").csv()
    assert [(line["channel"], line["step"]) for line in shown] == [
        ("history", "1"), ("history", "2"), ("lenient", "1"), ("lenient", "2")]
    assert shown[1]["does"] == "rename to t"
    table = plant.cli("policy", "preview", "-f", "-", input=POLICY.replace("max: 1000", "max: 900"))
    assert "clamp to between 0 and 1000" in table.out and "clamp to between 0 and 900" in table.out
    assert plant.cli("get", "policy", "pump-units", "-o", "json").json()["processing"][0]["points"] == ["temp_f"]


def test_what_makes_no_sense_is_refused_whole_with_its_place(plant):
    wrong = POLICY.replace("from: bar, to: kPa", "from: bar, to: m")
    refused = plant.apply(PLANT.replace("type: int", "type: long") + "---" + wrong, code=FAILED)
    assert "pump-units" in refused.err and "measure different things" in refused.err
    assert plant.cli("get", "model", "pump", "-o", "json").json()["measurepoints"]["rpm"]["type"] == "int"
    plant.apply(POLICY)
    in_use = plant.run("delete", "model", "pump")
    assert in_use.code != OK and "policy pump-units" in in_use.err


def test_raw_names_of_a_device_are_refused_where_no_policy_renames_them(plant, client):
    assert post(client(), {"temp_f": 1})["code"] == 1204
    plant.apply(POLICY)
    reply = post(client("lenient"), {"temp_f": 50, "t": 10})
    assert reply["code"] == 1204 and "has a value of t already" in reply["data"]["rejected"][0]["message"]


def test_what_is_beyond_its_retention_is_not_there_and_not_taken(plant, client):
    one = client()
    now = int(time.time() * 1000)
    old, young = now - 50 * DAY, now - 21 * DAY
    def send(when, value):
        return one.post(("pump-7", when, {"flow": value}), topic=POST)
    for when, value in [(young, 1), (old, 2), (old + DAY, 3)]:
        assert send(when, value)["code"] == 200
    plant.compact()

    keep = "kind: Policy\nname: month\nproducts: [pumps]\nstorage: { keepDays: 30 }\n"
    preview = plant.cli("policy", "preview", "-f", "-", "-o", "json", input=keep).json()
    [of_product] = preview["storage"]
    assert (of_product["product"], of_product["values"]) == ("pumps", 2)
    assert of_product["devices"] == [{"deviceKey": "pump-7", "values": {"flow": 2}}]
    [flow] = [point for point in of_product["points"] if point["point"] == "flow"]
    assert flow["values"] == 2 and flow["after"]["keepDays"] == 30 and "before" not in flow
    quick = plant.cli("policy", "preview", "-f", "-", "-o", "json", "--quick", input=keep).json()["storage"][0]
    assert "values" not in quick and quick["valuesMax"] >= 2
    said = plant.cli("policy", "preview", "-f", "-", input=keep).err
    assert "device pump-7 would lose 2 of flow" in said and "pumps would lose 2 values, 0 events" in said and "nothing was changed" in said
    assert [row["flow"] for row in rows(plant, "flow")] == [2, 3, 1], "a preview drops nothing"

    plant.apply(keep)
    eventually(lambda: [row["flow"] for row in rows(plant, "flow")] == [1], "only what is young is read")
    assert "kept 30 days by event time (policy month)" in \
        plant.cli("policy", "show", "--device", "pump-7", "--point", "flow").err
    reply = send(old, 4)
    assert reply["code"] == 1204 and "storage policy month keeps by event time" in reply["data"]["rejected"][0]["message"]
    plant.compact()
    eventually(lambda: plant.compact() and plant.http("GET", "/api/v1/store").json()["rows"] == 1, "old rows leave the disk")
    plant.kill()
    plant.start()
    assert [row["flow"] for row in rows(plant, "flow")] == [1], "from the first read on"

    second = plant.run("apply", "-f", "-", input=keep.replace("month", "other"))
    assert second.code != OK and "two storage policies, month and other" in second.err
    # What was refused is stored once it is not too old any more; what was dropped is gone.
    plant.apply(keep.replace("30", "60"))
    assert plant.cli("quarantine", "redrive", "--all", "-o", "json").json()["stored"] == 1
    eventually(lambda: [row["flow"] for row in rows(plant, "flow")] == [4, 1], "the re-driven value is there")


def test_retention_by_import_counts_from_the_arrival(plant, client):
    one = client()
    assert one.post(("pump-7", T0, {"flow": 1}), topic=POST)["code"] == 200, "years old, but it arrives now"
    plant.apply("kind: Policy\nname: lately\nmodels: [pump]\nstorage: { keepDays: 1, by: import }\n")
    assert one.post(("pump-7", T0 + 1, {"flow": 2}), topic=POST)["code"] == 200
    plant.compact()
    assert [row["flow"] for row in rows(plant, "flow")] == [1, 2]
    of_point = {"product": "pumps", "device": "pump-7", "point": "flow"}
    storage = plant.http("GET", "/api/v1/effective-policy", params=of_point).json()["storage"]
    assert (storage["by"], storage["policy"]) == ("import", "lately")


MINUTE = 60_000


def test_a_rule_for_a_point_beats_the_one_for_the_rest_and_old_values_leave_their_rows(plant, client):
    one = client()
    now = int(time.time() * 1000)
    old = now - 50 * DAY
    plant.apply("""
kind: Policy
name: by-point
models: [pump]
storage:
  - keepDays: 30
  - { points: [flow], keep: raw }
""")
    answer = one.post(("pump-7", old, {"flow": 1, "power": 2}), topic=POST)
    assert answer["code"] == 200 and answer["data"]["reduced"] == 1, "what is too old is left out, and counted"
    assert one.post(("pump-7", old, {"power": 2}), topic=POST)["code"] == 1204, "nothing would be left of it"
    assert [(row.get("flow"), row.get("power")) for row in rows(plant, "flow,power")] == [(1, None)]
    effective = plant.http("GET", "/api/v1/effective-policy",
                           params={"product": "pumps", "device": "pump-7", "point": "flow"}).json()["storage"]
    assert (effective["policy"], effective["rule"], effective["does"]) == ("by-point", 2, "for ever")
    refused = plant.run("apply", "-f", "-", input="kind: Policy\nname: again\nproducts: [pumps]\n"
                        "storage: [{ points: [flow], keepDays: 3 }]\n")
    assert refused.code != OK and "two storage policies, again and by-point, for flow" in refused.err \
        or "two storage policies, by-point and again, for flow" in refused.err


def test_thinned_points_read_the_same_before_and_after_the_disk_follows(plant, client):
    one = client()
    begin = T0 - T0 % DAY
    times = [begin + at * 20_000 for at in range(60)]
    shuffled = times[::2] + times[1::2][::-1]
    for at in range(0, 60, 10):
        items = [("pump-7", when, {"flow": when - begin, "rpm": (when - begin) // 400_000, "p": 1.0}) for when in shuffled[at:at + 10]]
        assert one.post(*items, topic=POST)["code"] == 200
    minutes = [last for last in times if last % MINUTE == 40_000]
    view = plant.http("GET", "/api/v1/points", params={"device": "pump-7", "points": "flow", "view": "minute"}).json()["items"]
    assert [row["time"] for row in view] == minutes, "of what is kept raw too"
    plant.apply("""
kind: Policy
name: thin
models: [pump]
storage:
  - { points: [flow], keep: minute }
  - { points: [rpm], changeOnly: true }
""")

    def read(point):
        return [row["time"] for row in rows(plant, point)]
    changes = [begin, begin + 400_000, begin + 800_000]
    eventually(lambda: read("flow") == minutes and read("rpm") == changes, "a read shows what is kept")
    # Late, into a minute that has a later value; a correction of the last of a minute.
    assert one.post(("pump-7", times[0] + 1, {"flow": 9}), ("pump-7", minutes[0], {"flow": 7}), topic=POST)["code"] == 200
    assert read("flow") == minutes and rows(plant, "flow")[0]["flow"] == 7
    plant.compact()
    assert read("flow") == minutes and read("rpm") == changes and read("p") == times
    assert plant.http("GET", "/api/v1/store").json()["values"] < 3 * 60, "the disk followed"
    plant.kill()
    plant.start()
    assert read("flow") == minutes and read("rpm") == changes


def test_events_and_the_history_of_attributes_go_by_rules_of_their_own(plant, client):
    plant.apply(PLANT.replace("""  rpm: { type: int }
""", """  rpm: { type: int }
events: { alarm: { level: warn, output: { code: { type: int } } } }
"""))
    one = client()
    now = int(time.time() * 1000)

    def send(when, code):
        item = {"deviceKey": "pump-7", "time": when, "events": {"alarm": {"code": code}}}
        message = {"id": "1", "version": "1.0", "method": "integration.event.post", "params": [item]}
        return one.ask(json.dumps(message), topic="/sys/PUMPS/integration/event/post")

    for when in (now - 9 * DAY, now - DAY):
        assert send(when, 1)["code"] == 200
    keep = "kind: Policy\nname: events\nmodels: [pump]\nstorage: { of: events, keepDays: 5 }\n"
    plant.compact()
    [of_product] = plant.cli("policy", "preview", "-f", "-", "-o", "json", input=keep).json()["storage"]
    assert (of_product["events"], of_product["values"]) == (1, 0)
    plant.apply(keep)

    def events():
        return [event["time"] for event in plant.cli("query", "--product", "pumps", "--events", "-o", "ndjson").ndjson()]

    eventually(lambda: events() == [now - DAY], "what is too old is not read")
    assert send(now - 9 * DAY, 2)["code"] == 1204


def test_kill_9_of_a_loaded_gateway_while_retention_runs_loses_nothing_that_should_stay(plant, client):
    now = int(time.time() * 1000)
    young = now - 10 * DAY
    kept = 0

    def flows():
        return [row["flow"] for row in rows(plant, "flow") if row["time"] >= young]

    for turn in range(6):
        one = client()
        days = 40 if turn % 2 == 0 else 20
        plant.apply(f"kind: Policy\nname: month\nmodels: [pump]\nstorage: [{{ points: [flow], keepDays: {days} }}, "
                    "{ points: [p], keep: minute }]\n")
        for _ in range(20):
            items = [("pump-7", young + (kept + at) * 20_000, {"flow": kept + at, "p": 1.0, "power": 2.0}) for at in range(50)]
            items += [("pump-7", now - 35 * DAY + (kept + at) * 20_000, {"flow": 1, "p": 1.0, "power": 3.0}) for at in range(50)]
            assert one.post(*items, topic=POST)["code"] == 200
            kept += 50
        plant.kill()
        plant.start()
        assert flows() == list(range(kept)), "everything that was answered and is young"
        assert len(rows(plant, "power")) == 2 * kept, "what no rule is about stays, whatever its row lost"
    plant.compact()
    assert flows() == list(range(kept)) and len(rows(plant, "power")) == 2 * kept
