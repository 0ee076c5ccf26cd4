"""Script steps of policies: what they do to a row, that they see nothing but it, what becomes of a bad one, what they cost."""

import json
import random

import pytest

from pump import POST, T0, client, post, stored
from world import FAILED

PLANT = """
kind: Model
name: pump
measurepoints:
  p: { type: double, unit: kPa }
  flow: { type: double }
  power: { type: double }
  state: { type: int }
  label: { type: string }
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
SCRIPT = """
kind: Policy
name: pump-script
processing:
  - points: [p]
    scale: { factor: 100 }
  - points: [power, state, label]
    script:
      reads: [p, flow]
      source: |
        const EFFICIENCY = 0.5;
        let rows = 0;
        function transform(row) {
          rows += 1;
          if (row.flow < 0) throw new Error('flow runs backwards');
          return { power: row.p * row.flow * EFFICIENCY, state: row.p > 1000 ? null : rows, label: 'row ' + rows };
        }
  - points: [power]
    clamp: { max: 5000 }
"""


@pytest.fixture
def plant(gateway):
    gateway.apply(PLANT)
    return gateway


def rows(gateway, points="p,flow,power,state,label"):
    return stored(gateway, points)


def test_a_script_computes_points_of_the_row_between_other_steps_and_its_text_stays_known(plant, client):
    plant.apply(SCRIPT)
    reply = post(client(), {"p": 2, "flow": 3}, {"p": 20, "flow": 9, "state": 4}, {"flow": 1}, {"p": 1})
    assert (reply["code"], reply["data"]["reduced"]) == (200, 1), "null drops a value, counted"
    first, second, third, fourth = rows(plant)
    assert {k: first[k] for k in ("p", "power", "state", "label")} == {"p": 200, "power": 300, "state": 1, "label": "row 1"}
    assert (second["power"], second["label"]) == (5000, "row 1"), "no row sees the one before"
    assert "state" not in second
    assert "power" not in third and "power" not in fourth, "a row without all that is read is left alone"

    of_power = {"product": "pumps", "device": "pump-7", "point": "power", "time": T0}
    lineage = plant.http("GET", "/api/v1/points/lineage", params=of_power).json()["policies"]
    steps = [(step["step"], step["point"]) for step in lineage["steps"]]
    assert steps == [(2, "power"), (3, "power")]
    assert lineage["steps"][0]["does"].startswith("= transform(p, flow) of script ")
    assert "flow runs backwards" in lineage["steps"][0]["script"]
    plant.apply(SCRIPT.replace("0.5", "0.25"))
    plant.restart()
    assert plant.http("GET", "/api/v1/points/lineage", params=of_power).json()["policies"] == lineage
    assert post(client("lenient"), {"p": 2, "flow": 3})["code"] == 200
    assert rows(plant)[0]["power"] == 150

    shown = plant.http("GET", "/api/v1/effective-policy", params={k: of_power[k] for k in ("product", "device", "point")}).json()
    assert "EFFICIENCY = 0.25" in shown["processing"][0]["steps"][0]["script"]
    preview = plant.cli("policy", "preview", "-f", "-", "-o", "json", input=SCRIPT).json()
    assert {touched["point"] for touched in preview["processing"]} == {"power", "state", "label"}


def test_what_a_script_throws_refuses_its_item_with_line_and_cause_and_a_better_one_cures_it(plant, client):
    plant.apply(SCRIPT)
    reply = post(client("lenient"), {"p": 1, "flow": -1}, {"p": 1, "flow": 1})
    assert (reply["code"], reply["data"]["stored"]) == (1204, 1)
    [rejected] = reply["data"]["rejected"]
    assert (rejected["index"], rejected["code"]) == (0, 1204)
    assert "policy pump-script, step 2: line 5, column" in rejected["message"]
    assert rejected["message"].endswith("Error: flow runs backwards")
    strict = post(client(), {"p": 1, "flow": 1}, {"p": 1, "flow": -1})
    assert strict["code"] == 1204 and len(rows(plant)) == 1

    plant.apply(SCRIPT.replace("row.flow < 0", "row.flow < -5"))
    assert plant.cli("quarantine", "redrive", "--all", "-o", "json").json()["stored"] == 2


def test_a_script_that_can_never_work_is_refused_when_it_is_applied(plant):
    for wrong, says in [
        ("return { power: row.nosuch.x };", "TypeError"),
        ("return { power: Date.now() };", "Date.now is not there in a policy"),
        ("return { power: Math.random() };", "Math.random is not there in a policy"),
        ("return { power: 'much' };", "the point is double"),
        ("return { other: 1 };", "other, which is none of the points"),
        ("return 1 +;", "SyntaxError"),
        ("for (;;) {}", "ms of CPU"),
        ("globalThis.n = 1; return null;", "TypeError"),
        ("while (1) { x.push(1) } var x = [];", "TypeError"),
    ]:
        policy = {"kind": "Policy", "name": "bad", "processing": [
            {"points": ["power"], "script": {"reads": ["p"], "source": "function transform(row) { %s }" % wrong}}]}
        if wrong.startswith("return { other"):
            policy["processing"][0]["points"].append("state")
        refused = plant.apply(json.dumps(policy), code=FAILED)
        assert "policy bad" in refused.err.lower() and says in refused.err, (wrong, refused.err)
    assert plant.cli("get", "policies", "-o", "json").json() == []


# Ahead of a script: it is not plain, an engine runs it.
ENGINE = "let engine; "
CURVE = """
const CURVE = [[0, 0.4], [5, 0.62], [12, 0.71]], STATES = { on: 1, off: 0 };
const efficiency = (flow) => {
  for (let i = 1; i < CURVE.length; i++) {
    const [x0, y0] = CURVE[i - 1], [x1, y1] = CURVE[i];
    if (flow <= x1) return y0 + (flow - x0) / (x1 - x0) * (y1 - y0);
  }
  throw new RangeError('off the curve');
};
function transform({ p, flow, label }) {
  const out = { power: Math.round(p * flow * efficiency(flow) * 100) / 100, state: STATES[label] ?? null };
  if (p < -2) out.power = null;
  return out;
}
"""


def test_a_plain_script_gives_what_an_engine_gives_and_asks_none(plant, client):
    draw = random.Random(3)
    given = [{"p": draw.uniform(-4, 4), "flow": draw.uniform(0, 12), "label": draw.choice(["on", "off", "?"])} for _ in range(300)]
    found, asked = [], []
    for before in ("", ENGINE):
        plant.apply(json.dumps({"kind": "Policy", "name": "curve", "processing": [{
            "points": ["power", "state"], "script": {"reads": ["p", "flow", "label"], "source": before + CURVE}}]}))
        trials = calls(plant)
        reply = post(client("history"), *given)
        assert reply["code"] == 200
        asked.append(calls(plant) - trials)
        found.append((reply["data"].get("reduced"), rows(plant)))
        off = client("lenient").post(("pump-7", T0 - 1000, {"p": 1, "flow": 13, "label": "on"}), topic=POST)
        assert off["code"] == 1204 and "RangeError: off the curve" in off["data"]["rejected"][0]["message"]
        shown = plant.http("GET", "/api/v1/effective-policy", params={"product": "pumps", "device": "pump-7", "point": "power"}).json()
        [step] = shown["processing"][0]["steps"]
        assert step["does"].endswith(", by an engine for line 1: let engine;") == bool(before)
    assert found[0] == found[1]
    assert asked[0] == 0 < asked[1], asked


def calls(gateway):
    """How often engines were asked to run scripts of policies."""
    lines = gateway.http("GET", "/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith('backtide_script_calls_total{') and "policy " in line)


@pytest.mark.parametrize("before", ["", ENGINE])
def test_a_script_that_hangs_on_one_row_refuses_that_row_alone(plant, client, before):
    plant.apply(json.dumps({"kind": "Policy", "name": "hangs", "processing": [{"points": ["power"], "script": {
        "reads": ["p"], "source": before + "function transform(row) { while (row.p === 666) {} return { power: row.p + 1 }; }"}}]}))
    reply = post(client("lenient"), *({"p": 666 if n == 40 else n} for n in range(100)))
    assert (reply["code"], reply["data"]["stored"]) == (1204, 99)
    [rejected] = reply["data"]["rejected"]
    assert rejected["index"] == 40 and "ms of CPU" in rejected["message"]
    assert [row["power"] for row in rows(plant)] == [n + 1 for n in range(100) if n != 40]


def test_rows_in_any_order_in_messages_of_any_size_give_the_same_values(plant, client):
    plant.apply(json.dumps({"kind": "Policy", "name": "fold", "processing": [{"points": ["power"], "script": {
        "reads": ["p", "flow"],
        "source": "const seen = []; function transform({ p, flow }) { seen.push(p); return seen.reduce((a, b) => a + b) * flow; }"}}]}))
    sender, all_rows = client(), [(T0 + n, {"p": n % 17, "flow": n % 5}) for n in range(600)]
    expected = [row["p"] * row["flow"] for _, row in all_rows]
    random.Random(5).shuffle(all_rows)
    at = 0
    for size in (1, 250, 64, 65, 220):
        items = [("pump-7", time, row) for time, row in all_rows[at:at + size]]
        assert sender.post(*items, topic=POST)["code"] == 200
        at += size
    assert at == 600 and [row["power"] for row in rows(plant)] == expected


def test_rollups_that_would_appear_go_or_be_computed_anew_are_previewed_and_shown_for_a_point(plant, client):
    assert post(client(), *({"p": n, "flow": 1} for n in range(120)))["code"] == 200
    rollup = """
kind: Policy
name: derived
analysis:
  - { rollup: hourly, points: [p], interval: %s, timeZone: Europe/Paris, functions: [avg, max], quiet: 0s }
afterCommit:
  - { reduction: thin, points: [p, flow], deadBand: { deviation: 0.5 } }
"""
    preview = plant.cli("policy", "preview", "-f", "-", "-o", "json", input=rollup % "1m").json()["derived"]
    told = {(one["name"], one["change"], one["devices"], one["windowsMax"]) for one in preview}
    assert {(name, change, devices) for name, change, devices, _ in told} == {("hourly", "appears", 1), ("thin", "appears", 1)}
    assert all(1 <= windows <= 4 for *_, windows in told)
    plant.apply(rollup % "1m")
    assert plant.cli("policy", "preview", "-f", "-", "-o", "json", input=rollup % "1m").json()["derived"] == []
    again = plant.cli("policy", "preview", "-f", "-", input=rollup % "1h")
    assert "rollup hourly would be computed once more: 1 devices, at most 1 windows of 1h" in again.err
    gone = "kind: Policy\nname: derived\nprocessing: [{ points: [p], clamp: { min: 0 } }]\n"
    gone = plant.cli("policy", "preview", "-f", "-", "-o", "json", input=gone).json()["derived"]
    assert {(one["name"], one["change"]) for one in gone} == {("hourly", "goes"), ("thin", "goes")}

    effective = plant.http("GET", "/api/v1/effective-policy", params={"device": "pump-7", "point": "p"}).json()["derived"]
    assert [(one["name"], one["kind"], one["interval"]) for one in effective] == [("hourly", "rollup", "1m"), ("thin", "reduction", "1d")]
    assert (effective[0]["timeZone"], effective[0]["functions"]) == ("Europe/Paris", ["count", "avg", "max"])
    shown = plant.cli("policy", "show", "--device", "pump-7", "--point", "p")
    assert "rollup hourly (policy derived): count, avg, max for each 1m in Europe/Paris" in shown.err
    of_flow = plant.http("GET", "/api/v1/effective-policy", params={"device": "pump-7", "point": "flow"}).json()["derived"]
    assert [one["name"] for one in of_flow] == ["thin"]
