"""Aggregates, fills, coverage and formats, beside DuckDB and pandas: on a real wind farm over both clock changes, and on
made data with gaps, duplicates, corrections, resets and three time zones."""

import io
import json
import math
import random

import duckdb
import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest

import truth
from mqtt import Client
from world import CSV_COLUMNS, FAILED, POINTS, PRODUCT, SEED, TURBINES, USAGE

KEY = ["deviceKey", "time"]
HOUR_MS = 3_600_000
ZONES = ["UTC", "Europe/Paris", "Asia/Kolkata", "America/New_York"]

METER = """
kind: Model
name: meter
measurepoints:
  power: { type: double, quality: true }
  energy: { type: long }
  state: { type: int }
  label: { type: string }
---
kind: Product
name: meters
key: meters1
model: meter
---
kind: Device
name: m1
product: meters
key: m1
timezone: Europe/Paris
---
kind: Device
name: m2
product: meters
key: m2
timezone: Asia/Kolkata
---
kind: Device
name: m3
product: meters
key: m3
timezone: America/New_York
---
kind: Device
name: m4
product: meters
key: m4
---
kind: Channel
name: meter-history
product: meters
mode: strict
"""


# --- what must come out ---

def ms(text):
    return int(pandas.Timestamp(text).timestamp() * 1000)


def starts(times, interval, zone):
    """The beginning of the window of each time, milliseconds, as pandas cuts them."""
    local = pandas.to_datetime(pandas.Series(times), unit="ms", utc=True).dt.tz_convert(zone)
    wall = local.dt.tz_localize(None)
    if interval == "1d":
        begin = wall.dt.normalize()
    elif interval == "1w":
        begin = wall.dt.normalize() - pandas.to_timedelta(wall.dt.day_of_week, unit="D")
    elif interval == "1mo":
        begin = wall.dt.to_period("M").dt.start_time
    else:
        length = {"10m": 600_000, "1h": HOUR_MS, "6h": 6 * HOUR_MS}[interval]
        anchor = pandas.Timestamp("2000-01-01").tz_localize(zone).value // 1_000_000
        return (pandas.Series(times) - anchor) // length * length + anchor
    return begin.dt.tz_localize(zone).dt.tz_convert("UTC").dt.as_unit("ms").astype("int64")


def windows(begin, end, interval, zone):
    """Every window that touches the range: beginnings."""
    step = 60_000 if interval == "10m" else HOUR_MS // 2
    return sorted(set(starts(numpy.arange(begin, end, step), interval, zone)))


def by_sql(rows, point, interval, zone):
    """count, sum, min, max, avg, first, last, stddev of a point by device and window, by DuckDB."""
    rows = rows.dropna(subset=[point]).reset_index(drop=True)
    rows = rows.assign(window=starts(rows["time"], interval, zone) if interval else 0)
    with duckdb.connect() as engine:
        engine.register("rows", rows)
        return engine.sql(f"""
            SELECT deviceKey, "window" AS time, count({point}) AS count, sum({point}) AS sum, min({point}) AS min,
                   max({point}) AS max, avg({point}) AS avg, arg_min({point}, time) AS first,
                   arg_max({point}, time) AS last, stddev_samp({point}) AS stddev
            FROM rows GROUP BY ALL ORDER BY ALL""").df()


def over_time(rows, point, begin, end, edges, hold_ms=None):
    """{(device, window): (mean over time, {state: milliseconds}, increase)}, minute by minute of thought."""
    out = {}
    for device, of_device in rows.dropna(subset=[point]).groupby("deviceKey"):
        times = of_device["time"].to_numpy()
        values = of_device[point].to_numpy()
        ends = numpy.append(times[1:], end)
        if hold_ms is not None:
            ends = numpy.minimum(ends, times + hold_ms)
        for start, stop in zip(edges, [*edges[1:], end]):
            start, stop = max(start, begin), min(stop, end)
            lengths = numpy.clip(numpy.minimum(ends, stop) - numpy.maximum(times, start), 0, None)
            durations = {}
            for value, length in zip(values, lengths):
                if length:
                    durations[value] = durations.get(value, 0) + int(length)
            inside = (times >= start) & (times < stop)
            grew = [value if value < before else value - before
                    for before, value, here in zip(values[:-1], values[1:], inside[1:]) if here]
            weight = lengths.sum()
            mean = (values * lengths).sum() / weight if weight and values.dtype != object else None
            if weight or inside.any():
                out[device, int(start)] = (mean, durations, sum(grew) if grew else None)
    return out


# --- what came out ---

def asked(gateway, path="aggregates", **params):
    answer = gateway.http("GET", f"/api/v1/points/{path}", params={"format": "ndjson", **params})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def same(found, expected, exact):
    if expected is None or (isinstance(expected, float) and numpy.isnan(expected)):
        return found is None
    if found is None or exact:
        return found == expected
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)


@pytest.fixture
def part(farm, history):
    """Eight months of the wind farm, over both clock changes; what is stored of them."""
    file = farm.folder / "part.csv"
    rows = history.write_part(file, "2014-03-01", "2014-11-14")
    farm.send(file, *CSV_COLUMNS)
    return truth.winners(rows)


def test_every_aggregate_of_the_wind_farm_equals_what_duckdb_computes(farm, part):
    functions = ["count", "sum", "min", "max", "avg", "first", "last", "stddev"]
    for interval, zone in [("1h", "UTC"), ("6h", "Asia/Kolkata"), ("1d", "Europe/Paris"), ("1d", "America/New_York"),
                           ("1w", "Europe/Paris"), ("1mo", "Europe/Paris"), (None, "UTC")]:
        found = {}
        options = {"interval": interval} if interval else {}
        for row in asked(farm, product=PRODUCT, points="P_avg,Wa_avg", aggregate=",".join(functions), timezone=zone,
                         **options):
            found[row["deviceKey"], row["time"] if interval else 0] = row
        for point in ["P_avg", "Wa_avg"]:
            expected = by_sql(part, point, interval, zone)
            counted = {key for key, row in found.items() if row[f"{point}.count"]}
            assert counted == set(zip(expected["deviceKey"], expected["time"])), (interval, zone)
            for row in expected.to_dict("records"):
                of_window = found[row["deviceKey"], row["time"]]
                for function in functions:
                    exact = function in ("count", "min", "max", "first", "last")
                    value = of_window.get(f"{point}.{function}")
                    assert same(value, row[function], exact), (interval, zone, point, function, row, of_window)
    farm.compact()
    merged = asked(farm, product=PRODUCT, points="P_avg", aggregate="avg,twa", interval="1d", timezone="Europe/Paris")
    farm.restart()
    assert merged == asked(farm, product=PRODUCT, points="P_avg", aggregate="avg,twa", interval="1d",
                           timezone="Europe/Paris"), "the same from merged files, and after a restart"


def test_fills_and_means_over_time_of_the_wind_farm_equal_what_pandas_computes(farm, part):
    begin, end = ms("2014-03-29T00:00:00Z"), ms("2014-04-03T12:00:00Z")
    rows = part[(part["time"] >= begin) & (part["time"] < end)]
    edges = windows(begin, end, "10m", "UTC")
    means = by_sql(rows, "P_avg", "10m", "UTC").set_index(KEY)["avg"]
    ask = dict(product=PRODUCT, points="P_avg", interval="10m", **{"from": begin, "to": end})
    found = {fill: {(row["deviceKey"], row["time"]): row.get("P_avg.avg")
                    for row in asked(farm, aggregate="avg", fill=fill, **ask)}
             for fill in ["none", "null", "previous", "linear"]}
    assert found["none"] == dict(means.items())
    for device in TURBINES:
        series = means[device].reindex(edges)
        for fill, filled in [("null", series), ("previous", series.ffill()),
                             ("linear", series.interpolate("index", limit_area="inside"))]:
            for time, value in filled.items():
                assert same(found[fill][device, time], value, False), (fill, device, time)
            assert len([key for key in found[fill] if key[0] == device]) == len(edges)
    for hold, hold_ms in [(None, None), ("15m", 900_000)]:
        edges = windows(begin, end, "1h", "UTC")
        before = part[(part["time"] >= begin - (hold_ms or 24 * HOUR_MS)) & (part["time"] < end)]
        expected = over_time(before, "P_avg", begin, end, edges, hold_ms)
        options = {"hold": hold} if hold else {}
        answer = asked(farm, aggregate="twa,increase", **options, **{**ask, "interval": "1h"})
        assert {(row["deviceKey"], row["time"]) for row in answer} == set(expected)
        for row in answer:
            mean, _, grew = expected[row["deviceKey"], row["time"]]
            assert same(row.get("P_avg.twa"), mean, False) and same(row.get("P_avg.increase"), grew, False), row


def made(seed):
    """Rows with gaps, duplicates, corrections, resets and states, around the clock changes of three zones."""
    dice = random.Random(seed)
    rows = []
    for device, first in [("m1", "2014-03-29T20:00:00Z"), ("m2", "2014-03-30T00:00:00Z"), ("m3", "2014-03-08T20:00:00Z")]:
        time, energy, state = ms(first), 0, 0
        for _ in range(900):
            time += dice.choice([1_000, 60_000, 300_000]) if dice.random() < 0.98 else dice.randrange(20) * HOUR_MS
            energy = 0 if dice.random() < 0.02 else energy + dice.randrange(50)
            state = dice.choice([state, state, state, 1, 2, 7])
            row = {"deviceKey": device, "time": time, "energy": energy, "state": state,
                   "label": dice.choice(["on", "off", "trip"])}
            if dice.random() < 0.7:
                row["power"] = dice.choice([{"value": round(dice.uniform(-5, 50), 3), "quality": dice.randrange(10)},
                                            round(dice.uniform(-5, 50), 3)])
            rows.append(row)
    corrections = [{**row, "power": {"value": -99.5, "quality": 9}} for row in rows if dice.random() < 0.03]
    duplicates = [row for row in rows if dice.random() < 0.05]
    return rows, corrections, duplicates, dice


def stored(*passes):
    kept = {}
    for row in (row for one in passes for row in one):
        kept.setdefault((row["deviceKey"], row["time"]), {}).update(row)
    flat = []
    for row in kept.values():
        power = row.get("power")
        flat.append({**row, "power": power["value"] if isinstance(power, dict) else power,
                     "quality": power.get("quality") if isinstance(power, dict) else None})
    return pandas.DataFrame(flat).sort_values(KEY, ignore_index=True)


@pytest.fixture
def meters(gateway):
    gateway.apply(METER)
    rows, corrections, duplicates, dice = made(SEED)
    shuffled = rows[:]
    dice.shuffle(shuffled)
    client = Client(gateway.mqtt_address, gateway.channel("meter-history")).connect()
    for one in [shuffled, duplicates, corrections]:
        for begin in range(0, len(one), 300):
            items = [(row["deviceKey"], row["time"], {name: value for name, value in row.items() if name not in KEY})
                     for row in one[begin:begin + 300]]
            reply = client.post(*items, topic="/sys/meters1/integration/measurepoint/post")
            assert reply["code"] == 200, reply
    client.close()
    return gateway, stored(shuffled, duplicates, corrections)


def test_aggregates_of_made_data_in_three_zones_equal_a_plain_computation(meters):
    gateway, rows = meters
    begin, end = ms("2014-03-08T00:00:00Z"), ms("2014-04-20T00:00:00Z")
    ask = dict(product="meters", **{"from": begin, "to": end})
    for interval, zone in [("1d", "Europe/Paris"), ("1d", "Asia/Kolkata"), ("1d", "America/New_York"), ("1h", "Asia/Kolkata"),
                           ("6h", "America/New_York")]:
        answer = asked(gateway, points="power,energy", aggregate="count,sum,min,max,avg,first,last,stddev",
                       interval=interval, timezone=zone, **ask)
        found = {(row["deviceKey"], row["time"]): row for row in answer}
        for point in ["power", "energy"]:
            for row in by_sql(rows, point, interval, zone).to_dict("records"):
                of_window = found[row["deviceKey"], row["time"]]
                for function in ["count", "sum", "min", "max", "avg", "first", "last", "stddev"]:
                    value = of_window.get(f"{point}.{function}")
                    assert same(value, row[function], False), (interval, zone, point, function, row, of_window)
        edges = windows(begin, end, interval, zone)
        for hold, hold_ms in [("2h", 2 * HOUR_MS), (None, None)]:
            options = {"hold": hold} if hold else {}
            answer = asked(gateway, points="state,energy", aggregate="durations,increase,twa", interval=interval,
                           timezone=zone, **options, **ask)
            for point in ["state", "energy"]:
                expected = over_time(rows, point, begin, end, edges, hold_ms)
                # The first window begins with the range.
                of = {(row["deviceKey"], max(row["time"], begin)): row for row in answer}
                if not hold:
                    assert set(of) == set(expected)
                for key, (mean, durations, grew) in expected.items():
                    row = of[key]
                    if point == "state":
                        assert row.get("state.durations", {}) == {str(k): v for k, v in durations.items()}, (row, durations)
                    assert same(row.get(f"{point}.increase"), grew, False), (row, grew)
                    assert same(row.get(f"{point}.twa"), mean, False), (row, mean)


def test_durations_of_texts_and_what_counts_by_quality(meters):
    gateway, rows = meters
    ask = dict(product="meters", device="m1")
    [whole] = asked(gateway, points="label", aggregate="count,first,last,durations", **ask)
    of_one = rows[rows["deviceKey"] == "m1"]
    lengths = of_one["time"].shift(-1, fill_value=of_one["time"].iloc[-1] + 1) - of_one["time"]
    assert whole["label.durations"] == lengths.groupby(of_one["label"]).sum().to_dict()
    assert (whole["label.first"], whole["label.last"]) == (of_one["label"].iloc[0], of_one["label"].iloc[-1])
    for filter, kept in [
        ("power>=0,power<25.5", (of_one["power"] >= 0) & (of_one["power"] < 25.5)),
        ("power.quality<3", of_one["quality"] < 3),
        ("quality=none", of_one["quality"].isna() & of_one["power"].notna()),
        ("power.quality!=9", of_one["power"].notna() & (of_one["quality"] != 9)),
    ]:
        [counted] = asked(gateway, points="power", aggregate="count,sum", filter=filter, **ask)
        assert counted["power.count"] == kept.sum(), filter
        assert counted["power.sum"] == pytest.approx(of_one["power"][kept].sum()), filter
        raw = gateway.http("GET", "/api/v1/points", params={**ask, "points": "power", "filter": filter, "format": "ndjson"})
        assert [json.loads(line)["time"] for line in raw.text.splitlines()] == list(of_one["time"][kept]), filter
    answer = gateway.http("GET", "/api/v1/points/aggregates", params={**ask, "points": "label", "aggregate": "avg"})
    assert answer.status_code == 400 and "label" in answer.json()["detail"]


def test_coverage_tells_what_is_there_and_what_is_missing(meters):
    gateway, rows = meters
    begin, end = ms("2014-03-08T00:00:00Z"), ms("2014-04-20T00:00:00Z")
    found = gateway.cli("query", "--coverage", "--gap", "2h", "--product", "meters", "--points", "power,state", "--from", begin,
                        "--to", end, "-o", "ndjson").ndjson()
    assert [(row["deviceKey"], row["point"]) for row in found] == [
        (device, point) for device in ["m1", "m2", "m3", "m4"] for point in ["power", "state"]]
    for row in found:
        there = rows[(rows["deviceKey"] == row["deviceKey"]) & rows[row["point"]].notna()]["time"].to_numpy()
        assert row["count"] == len(there)
        looked = [begin, *map(int, there), end]
        gaps = [{"from": a, "to": b} for a, b in zip(looked, looked[1:]) if b - a > 2 * HOUR_MS]
        assert row["gapList"] == gaps and row["gaps"] == len(gaps)
        assert row["longestGap"] == max((gap["to"] - gap["from"] for gap in gaps), default=0)
        if len(there):
            assert (row["firstTime"], row["lastTime"]) == (there[0], there[-1])
    days = asked(gateway, "coverage", product="meters", points="power", interval="1d", timezone="Asia/Kolkata",
                 **{"from": "2014-03-29", "to": "2014-04-02"})
    local = pandas.to_datetime(rows["time"], unit="ms", utc=True).dt.tz_convert("Asia/Kolkata")
    inside = rows[(local >= "2014-03-29") & (local < "2014-04-02") & rows["power"].notna()]
    counts = inside.groupby(["deviceKey", starts(inside["time"].to_numpy(), "1d", "Asia/Kolkata").to_numpy()]).size()
    assert len(days) == 4 * 4
    for row in days:
        assert row["count"] == counts.get((row["deviceKey"], row["time"]), 0)


def test_the_command_line_prints_aggregates_in_every_form(farm, part):
    ask = ["--product", PRODUCT, "--device", "R80711", "--points", "P_avg,Ws_avg", "--timezone", "Europe/Paris",
           "--from", "2014-03-30", "--to", "2014-04-01", "--aggregate", "avg,max", "--interval", "1d"]
    lines = farm.cli("query", *ask, "-o", "ndjson").ndjson()
    assert [row["time"] for row in lines] == [ms("2014-03-29T23:00:00Z"), ms("2014-03-30T22:00:00Z")]
    table = farm.cli("query", *ask).out.splitlines()
    assert table[0].split() == ["deviceKey", "time", "P_avg.avg", "P_avg.max", "Ws_avg.avg", "Ws_avg.max"]
    long = pandas.read_csv(io.StringIO(farm.cli("query", *ask, "--long", "-o", "csv").out))
    assert list(long.columns) == ["deviceKey", "time", "point", "avg", "max"] and len(long) == 4
    assert long["max"].iloc[0] == lines[0]["P_avg.max"]
    for name in ["out.parquet", "out.arrows", "out.csv.zst"]:
        farm.cli("export", farm.folder / name, *ask)
    parquet = pyarrow.parquet.read_table(farm.folder / "out.parquet").to_pandas()
    arrow = pyarrow.ipc.open_stream(farm.folder / "out.arrows").read_pandas()
    pandas.testing.assert_frame_equal(parquet, arrow)
    assert list(parquet["P_avg.avg"]) == [row["P_avg.avg"] for row in lines]
    assert "--aggregate" in farm.cli("query", "--interval", "1h", code=USAGE).err
    assert "02:30" in farm.cli("query", "--product", PRODUCT, "--timezone", "Europe/Paris", "--from", "2014-03-30T02:30",
                               code=FAILED).err


def test_raw_points_come_as_an_arrow_stream_and_long(farm, part):
    params = {"product": PRODUCT, "points": "P_avg,Ws_avg", "to": "2014-03-08T00:00:00Z"}
    rows = part[part["time"] < ms("2014-03-08T00:00:00Z")].dropna(how="all", subset=["P_avg", "Ws_avg"])
    answer = farm.http("GET", "/api/v1/points", params={**params, "format": "arrow"})
    found = pyarrow.ipc.open_stream(answer.content).read_pandas()
    found = found.assign(time=found["time"].dt.as_unit("ms").astype("int64")).reindex(columns=truth.COLUMNS)
    expected = rows.assign(**{point: numpy.nan for point in POINTS if point not in ("P_avg", "Ws_avg")})
    assert truth.difference(expected, found) == ""
    answer = farm.http("GET", "/api/v1/points", params={**params, "format": "csv", "form": "long"})
    long = pandas.read_csv(io.StringIO(answer.text))
    assert len(long) == rows[["P_avg", "Ws_avg"]].notna().sum().sum()
    assert long[long["point"] == "P_avg"]["value"].sum() == pytest.approx(rows["P_avg"].sum())


def test_many_devices_and_points_fit_a_body_and_pages_survive_a_restart(farm, part):
    body = {"product": PRODUCT, "device": TURBINES, "points": POINTS, "aggregate": ["avg"], "interval": "1d", "limit": 100}
    items, cursor = [], {}
    while True:
        answer = farm.http("POST", "/api/v1/points/aggregates", json={**body, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if "next" not in page:
            break
        cursor = {"cursor": page["next"]}
        if len(items) == 300:
            farm.restart()
    assert items == asked(farm, product=PRODUCT, points=",".join(POINTS), aggregate="avg", interval="1d")
    assert len(items) > 900
