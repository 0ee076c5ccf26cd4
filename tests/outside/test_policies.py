"""Policies: what is done to values on their way in, and that it can be seen, previewed and undone for what was refused."""

import time

import pytest

from mqtt import Client
from world import FAILED, OK, eventually

T0 = 1_388_534_400_000
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
POST = "/sys/PUMPS/integration/measurepoint/post"


@pytest.fixture
def plant(gateway):
    gateway.apply(PLANT)
    return gateway


@pytest.fixture
def client(plant):
    made = []

    def make(channel="history"):
        made.append(Client(plant.mqtt_address, plant.channel(channel)).connect())
        return made[-1]

    yield make
    for one in made:
        one.close()


def rows(gateway, points="t,p,p_raw,flow,power,rpm"):
    asked = ["--product", "pumps", "--device", "pump-7", "--points", points,
             "--from", "1970-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"]
    return gateway.cli("query", *asked, "-o", "ndjson").ndjson()


def post(client, *values):
    return client.post(*(("pump-7", T0 + 1000 * n, of_row) for n, of_row in enumerate(values)), topic=POST)


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
    # A preview takes a device's rows to be spread evenly: two thirds of this span are beyond 30 days.
    old, young = now - 50 * DAY, now - 21 * DAY
    def send(when, value):
        return one.post(("pump-7", when, {"flow": value}), topic=POST)
    for when, value in [(young, 1), (old, 2), (old + DAY, 3)]:
        assert send(when, value)["code"] == 200
    plant.compact()

    keep = "kind: Policy\nname: month\nproducts: [pumps]\nstorage: { keepDays: 30 }\n"
    preview = plant.cli("policy", "preview", "-f", "-", "-o", "json", input=keep).json()
    [of_product] = preview["storage"]
    assert (of_product["product"], of_product["rows"], of_product["rowsInAll"]) == ("pumps", 2, 3) \
        and of_product["after"]["keepDays"] == 30 and "before" not in of_product
    said = plant.cli("policy", "preview", "-f", "-", input=keep).err
    assert "about 2 of 3 rows would go" in said and "nothing was changed" in said
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
