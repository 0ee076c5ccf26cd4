"""Rollups, reductions and the change feed, beside DuckDB and pandas: on the real wind farm sent shuffled, twice and corrected,
over a clock change and in four zones, with the server killed while it computes."""

import json
import os
import pathlib
import random
import time

import pandas
import pytest

import truth
from mqtt import Client
from test_aggregates import HOUR_MS, by_sql, ms, over_time, same, windows
from world import CSV_COLUMNS, POINTS, PRODUCT, SEED, TURBINES, eventually

BEGIN, END = "2014-03-22", "2014-04-12"
ZONES = [("1h", "UTC"), ("6h", "Asia/Kolkata"), ("1d", "Europe/Paris"), ("1d", "America/New_York"), ("1mo", "Europe/Paris")]
FUNCTIONS = ["count", "sum", "min", "max", "avg", "first", "last", "stddev"]


def name(interval, zone):
    return f"r-{interval}-{zone.replace('/', '-')}"


def policy(name="windows", rollups=None, extra=""):
    rollups = rollups or "".join(f"""
  - rollup: {globals()['name'](interval, zone)}
    points: [P_avg, Wa_avg]
    interval: {interval}
    timeZone: {zone}
    functions: [sum, min, max, avg, first, last, stddev, twa, increase]
    hold: 2h
    lookback: 2h
    quiet: 500ms
    within: 5s""" for interval, zone in ZONES)
    return f"kind: Policy\nname: {name}\nproducts: [{PRODUCT}]\nanalysis:{rollups}\n{extra}"


REDUCTION = """
kind: Policy
name: slim
products: [wind-farm]
afterCommit:
  - reduction: slim-power
    points: [P_avg]
    rateOfChange: { most: 600, per: 10m }
    deadBand: { deviation: 25 }
    restart: 6h
    quiet: 500ms
    within: 5s
"""


def states(gateway):
    answer = gateway.http("GET", "/api/v1/rollups")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def current(gateway, count, within_s=120):
    """Waits until everything answered is in every rollup."""
    eventually(lambda: len(states(gateway)) == count and all(one["state"] == "current" for one in states(gateway)),
               lambda: f"current: {states(gateway)}", within_s)
    assert all(one["failures"] == 0 for one in states(gateway))


def rows_of(gateway, rollup, **params):
    answer = gateway.http("GET", f"/api/v1/rollups/{rollup}/rows", params={"format": "ndjson", "product": PRODUCT, **params})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def part(history, tmp_path):
    """Three weeks of the wind farm, over a clock change, as a file and as rows."""
    file = tmp_path / "part.csv"
    rows = history.write_part(file, BEGIN, END)
    return file, rows


def shuffled(file, seed):
    header, *lines = file.read_text().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    into = file.with_name("shuffled.csv")
    into.write_text(header + "".join(lines))
    return into, truth.read_history(header + "".join(lines))


def corrected(gateway, rows):
    """Sends some values again, as others; the rows that say so."""
    some = rows.dropna(subset=["P_avg"]).drop_duplicates(["deviceKey", "time"]).sample(150, random_state=SEED)
    some = some.assign(P_avg=some["P_avg"] + 1_000.25)
    client = Client(gateway.mqtt_address, gateway.channel()).connect()
    for begin in range(0, len(some), 50):
        items = [(row.deviceKey, int(row.time), {"P_avg": row.P_avg}) for row in some.iloc[begin:begin + 50].itertuples()]
        assert client.post(*items)["code"] == 200
    client.close()
    return some[["deviceKey", "time", "P_avg"]]


def assert_true(gateway, stored):
    """Every rollup is what DuckDB and a plain computation make of the stored values."""
    for interval, zone in ZONES:
        found = {(row["deviceKey"], row["time"]): row for row in rows_of(gateway, name(interval, zone))}
        begin = min(windows(ms(BEGIN + "T00:00:00Z") - 48 * HOUR_MS, ms(BEGIN + "T00:00:00Z"), interval, zone))
        edges = windows(begin, ms(END + "T00:00:00Z") + 48 * HOUR_MS, interval, zone)
        for point in ["P_avg", "Wa_avg"]:
            expected = by_sql(stored, point, interval, zone)
            counted = {key for key, row in found.items() if row[f"{point}.count"]}
            assert counted == set(zip(expected["deviceKey"], expected["time"])), (interval, zone, point)
            for row in expected.to_dict("records"):
                of_window = found[row["deviceKey"], row["time"]]
                for function in FUNCTIONS:
                    exact = function in ("count", "min", "max", "first", "last")
                    assert same(of_window.get(f"{point}.{function}"), row[function], exact), (interval, zone, function, row)
        held = over_time(stored, "P_avg", begin, edges[-1] + 40 * 24 * HOUR_MS, edges, 2 * HOUR_MS)
        of_zone = {key: row for key, row in found.items() if key in held}
        assert {key for key, (mean, _, _) in held.items() if mean is not None} <= set(of_zone), (interval, zone)
        for key, (mean, _, _) in held.items():
            assert same(of_zone[key].get("P_avg.twa"), mean, False), (interval, zone, key, mean, of_zone[key])
        # And as the gateway itself answers over the raw values.
        raw = gateway.http("GET", "/api/v1/points/aggregates", params={
            "product": PRODUCT, "points": "P_avg,Wa_avg", "interval": interval, "timezone": zone, "format": "ndjson",
            "aggregate": "count,sum,min,max,avg,first,last,stddev,twa", "hold": "2h", "lookback": "2h",
            "from": begin, "to": edges[-1] + 40 * 24 * HOUR_MS})
        answers = {(row["deviceKey"], row["time"]): row for row in map(json.loads, raw.text.splitlines())}
        without = {key: {k: v for k, v in row.items() if not k.endswith(".increase")} for key, row in found.items()}
        assert without == answers, (interval, zone)


def test_rollups_after_a_shuffled_repeated_and_corrected_import_equal_a_fresh_computation(farm, part):
    file, rows = part
    farm.apply(policy())
    mixed, first = shuffled(file, SEED)
    farm.send(mixed, *CSV_COLUMNS)
    farm.send(file, *CSV_COLUMNS)
    corrections = corrected(farm, rows)
    stored = truth.winners(first, rows, corrections)
    current(farm, len(ZONES))
    assert_true(farm, stored)
    # Declared afterwards, of what is stored: the same.
    farm.cli("delete", "policy", "windows")
    eventually(lambda: not states(farm), "no rollups")
    farm.apply(policy())
    current(farm, len(ZONES))
    assert_true(farm, stored)


def test_rollups_are_true_after_kills_while_they_are_computed(gateways, part):
    gateway = gateways().start()
    gateway.apply(pathlib.Path(__file__).resolve().parents[2] / "examples/la-haute-borne/farm.yaml")
    gateway.apply(policy())
    file, rows = part
    header, *lines = file.read_text().splitlines(keepends=True)
    dice = random.Random(SEED)
    dice.shuffle(lines)
    kills = int(os.environ.get("BACKTIDE_KILLS", "20")) // 4
    each = -(-len(lines) // kills)
    passes = []
    for number in range(kills):
        piece = file.with_name(f"piece-{number}.csv")
        text = header + "".join(lines[number * each:(number + 1) * each])
        piece.write_text(text)
        gateway.send(piece, *CSV_COLUMNS)
        passes.append(truth.read_history(text))
        time.sleep(dice.random() * 1.5)   # anywhere between marking, computing and writing down
        gateway.kill()
        gateway.start()
    current(gateway, len(ZONES))
    assert_true(gateway, truth.winners(*passes))


def test_a_repeat_is_not_told_and_a_correction_tells_its_window(farm, part):
    file, rows = part
    farm.apply(policy(rollups="""
  - rollup: hours
    points: [P_avg]
    interval: 1h
    functions: [avg]
    quiet: 200ms
    within: 2s"""))
    farm.send(file, *CSV_COLUMNS)
    current(farm, 1)
    told = farm.http("GET", "/api/v1/changes", params={"rollup": "hours", "limit": 10_000}).json()
    assert {change["deviceKey"] for change in told["items"]} == set(TURBINES)
    stored = truth.winners(rows).dropna(subset=["P_avg"])
    for change in told["items"]:
        assert change["points"] == ["P_avg"] and change["from"] < change["to"] and change["from"] % HOUR_MS == 0
    for device, of_device in stored.groupby("deviceKey"):
        ranges = [(c["from"], c["to"]) for c in told["items"] if c["deviceKey"] == device]
        assert all(any(begin <= at < end for begin, end in ranges) for at in of_device["time"])
    # What stands twice in the file, with other values, is told again; so sent with what is stored.
    one = stored.iloc[len(stored) // 2]
    client = Client(farm.mqtt_address, farm.channel()).connect()
    client.post((one.deviceKey, int(one.time), {"P_avg": one.P_avg}))
    current(farm, 1)
    time_of_quiet = farm.http("GET", "/api/v1/changes", params={"after": told["next"]}).json()
    assert time_of_quiet["items"] == [] and time_of_quiet["next"] == told["next"]
    client.post((one.deviceKey, int(one.time), {"P_avg": one.P_avg + 1}))
    change = eventually(lambda: farm.http("GET", "/api/v1/changes", params={"after": told["next"]}).json()["items"], "a change")
    begin = int(one.time) // HOUR_MS * HOUR_MS
    assert [(c["deviceKey"], c["from"], c["to"]) for c in change] == [(one.deviceKey, begin, begin + HOUR_MS)]
    client.close()
    printed = farm.cli("rollup", "changes", "--after", told["next"], "-o", "ndjson").ndjson()
    assert printed == change
    gone = farm.http("GET", "/api/v1/changes", params={"after": change[-1]["sequence"] + 5})
    assert gone.status_code == 410 and gone.json()["code"] == "trimmed"


def plain_marks(values, restart_ms, most_per_ms, deviation):
    """{time: word} of (time, value) pairs in order, as the documentation says."""
    out, kept, window, before = {}, None, None, None
    for at, (time_ms, value) in enumerate(values):
        begin = time_ms // restart_ms * restart_ms
        is_first = begin != window
        if is_first:
            window, kept = begin, None
        is_last = at + 1 == len(values) or values[at + 1][0] // restart_ms * restart_ms != begin
        near = before is not None and before[0] >= begin - restart_ms
        fast = near and not abs(value - before[1]) <= most_per_ms * (time_ms - before[0])
        keep = kept is None or abs(value - kept) > deviation or fast
        if keep:
            kept = value
        keep = keep or is_last
        out[time_ms] = ("kept+fast" if fast else "kept") if keep else ("fast" if fast else "dropped")
        before = (time_ms, value)
    return out


def test_a_reduction_of_shuffled_history_is_that_of_history_in_order(farm, part):
    file, rows = part
    farm.apply(REDUCTION)
    mixed, first = shuffled(file, SEED + 1)
    farm.send(mixed, *CSV_COLUMNS)
    corrections = corrected(farm, rows)
    stored = truth.winners(first, corrections).dropna(subset=["P_avg"])
    current(farm, 1)
    told = farm.cli("query", "--reduction", "slim-power", "--product", PRODUCT, "--processing", "-o", "ndjson").ndjson()
    kept = farm.cli("query", "--reduction", "slim-power", "--product", PRODUCT, "-o", "ndjson").ndjson()
    found = {(row["deviceKey"], row["time"]): (row["P_avg"], row["P_avg.processing"]) for row in told}
    expected = {}
    for device, of_device in stored.groupby("deviceKey"):
        values = list(zip(of_device["time"], of_device["P_avg"]))
        marks = plain_marks(values, 6 * HOUR_MS, 600 / 600_000, 25)
        expected.update({(device, at): (value, marks[at]) for at, value in values})
    assert found == expected
    assert {(row["deviceKey"], row["time"]): row["P_avg"] for row in kept} == {
        key: value for key, (value, word) in expected.items() if word.startswith("kept")}
    assert 0.05 < len(kept) / len(told) < 0.95 and any("fast" in word for _, word in expected.values())
    # Raw stays.
    assert len(farm.query(points=["P_avg"]).ndjson()) == len(expected)


def test_pages_formats_and_the_command_line_read_the_same(farm, part):
    file, _ = part
    farm.apply(policy())
    farm.send(file, *CSV_COLUMNS)
    current(farm, len(ZONES))
    rollup = name("6h", "Asia/Kolkata")
    streamed = rows_of(farm, rollup, device="R80721,R80711")
    assert {row["deviceKey"] for row in streamed} == {"R80711", "R80721"} and len(streamed) > 150
    paged, cursor = [], None
    while True:
        page = farm.http("GET", f"/api/v1/rollups/{rollup}/rows",
                         params={"device": "R80711,R80721", "limit": 7, **({"cursor": cursor} if cursor else {})}).json()
        paged += page["items"]
        cursor = page.get("next")
        if not cursor:
            break
    assert paged == streamed
    posted = farm.http("POST", f"/api/v1/rollups/{rollup}/rows",
                       json={"device": ["R80711", "R80721"], "format": "ndjson"})
    assert [json.loads(line) for line in posted.text.splitlines()] == streamed
    printed = farm.cli("query", "--rollup", rollup, "--product", PRODUCT, "--device", "R80711,R80721", "-o", "ndjson").ndjson()
    assert printed == streamed
    begin = streamed[10]["time"]
    later = rows_of(farm, rollup, device="R80711", **{"from": begin, "to": begin + 24 * HOUR_MS})
    assert later == [row for row in streamed if row["deviceKey"] == "R80711" and begin <= row["time"] < begin + 24 * HOUR_MS]
    answer = farm.http("GET", f"/api/v1/rollups/{rollup}/rows", params={"product": PRODUCT, "format": "parquet"})
    table = pandas.read_parquet(__import__("io").BytesIO(answer.content))
    assert len(table) == len(rows_of(farm, rollup)) and "P_avg.avg" in table
    missing = farm.http("GET", "/api/v1/rollups/nowhere/rows")
    assert missing.status_code == 404 and missing.json()["fix"]
    metrics = farm.http("GET", "/metrics").text
    assert "backtide_derived_rows_total" in metrics and "backtide_derived_lag_commits" in metrics


def test_a_policy_that_makes_no_sense_is_refused_with_what_would(farm):
    for old, new, why in [
        ("interval: 1h", "interval: 1s", "not between 1m and 1mo"),
        ("interval: 1h", "interval: often", "such as 10m, 1h, 1d, 1mo"),
        ("functions: [avg]", "functions: [median]", "there are count, sum"),
        ("functions: [avg]", "functions: [durations]", "durations are of states"),
        ("points: [P_avg]", "points: [nothing]", "in none of the models"),
        ("quiet: 1s", "quiet: 2h", "within is shorter than quiet"),
        ("timeZone: UTC", "timeZone: Moon/Base", "IANA name"),
    ]:
        text = policy(rollups="""
  - rollup: hours
    points: [P_avg]
    interval: 1h
    timeZone: UTC
    functions: [avg]
    quiet: 1s""")
        run = farm.run("apply", "-f", "-", input=text.replace(old, new))
        assert run.code == 3 and "rollup hours" in run.err + run.out and why in run.err + run.out, run
    farm.apply(policy())
    run = farm.run("apply", "-f", "-", input=policy(name="other"))
    assert run.code == 3 and "would both have a rollup" in run.err + run.out, run


def thread_cpu_s(gateway, comm):
    """CPU seconds of the threads of a name."""
    ticks = 0
    for task in pathlib.Path(f"/proc/{gateway.process.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == comm:
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_upkeep_tells_what_it_costs(farm, history, tmp_path):
    """Prints the share; a debug build says little of a released one, so the bound is wide."""
    file = tmp_path / "months.csv"
    history.write_part(file, "2014-01-01", "2014-07-01")
    farm.apply(policy(rollups="""
  - rollup: hours
    interval: 1h
    functions: [min, max, avg]"""))
    before = farm.cpu_s()
    farm.send(file, *CSV_COLUMNS)
    current(farm, 1)
    upkeep, all_of_it = thread_cpu_s(farm, "derive"), farm.cpu_s() - before
    share = upkeep / (all_of_it - upkeep)
    print(f"upkeep {upkeep:.2f} s of CPU, all the rest {all_of_it - upkeep:.2f} s: {share:.0%}")
    assert share < 1.5
