"""Archives: files that DuckDB and pandas read, in a folder and on S3, whatever kills the gateway."""

import hashlib
import json
import random
import time

import duckdb
import pandas
import pytest

import world
from mqtt import Client
from s3 import KEY, SECRET, S3
from world import CHANNEL, CSV_COLUMNS, FAILED, OK, SAMPLE, USAGE, eventually

LAKE = "kind: Archive\nname: lake\nproducts: [wind-farm]\nto: { folder: lake }\n"
POINTS = world.POINTS


KINDS = """
kind: Model
name: pump
measurepoints: { flow: { type: double } }
events: { leak: { output: { litres: { type: double } } } }
attributes: { serial: { type: string }, depth: { type: double } }
---
kind: Product
name: pumps
key: pumps
model: pump
---
kind: Device
name: pump-7
product: pumps
key: pump-7
---
kind: Channel
name: pump-history
product: pumps
"""


@pytest.fixture
def kinds(gateways):
    """A gateway with events of three days, and attributes that were said twice and changed."""
    gateway = gateways().start()
    gateway.apply(KINDS)
    client = Client(gateway.mqtt_address, gateway.channel("pump-history")).connect()
    days = [1388534400000 + day * 86_400_000 for day in (0, 1, 1, 5)]
    events = [{"deviceKey": "pump-7", "time": at + place, "events": {"leak": {"litres": place + 0.5}}} for place, at in enumerate(days)]
    attributes = [[{"deviceKey": "pump-7", "attributes": said}] for said in
                  ({"serial": "A-1", "depth": 4.5}, {"serial": "A-1"}, {"serial": "B-2"})]
    for kind, params in [("event", events), *(("attribute", said) for said in attributes)]:
        message = {"id": "1", "version": "1.0", "method": f"integration.{kind}.post", "params": params}
        reply = client.ask(json.dumps(message).encode(), topic=f"/sys/pumps/integration/{kind}/post")
        assert reply["code"] == 200, reply
    client.close()
    return gateway, len(events)


@pytest.fixture
def s3(tmp_path):
    server = S3(tmp_path / "s3").start()
    yield server
    server.stop()


def root(gateway, folder="lake"):
    return gateway.data_dir / "archive" / folder


def run(gateway, name="lake", code=OK):
    done = gateway.cli("archive", "run", name, "--wait", "-o", "json", code=code, timeout_s=300)
    return json.loads(done.out)[0]


def expected(gateway):
    """Every cell that the gateway has, by the API."""
    return gateway.cells()


def by_duckdb(pattern, reader="read_parquet"):
    """Every cell of the files, by DuckDB, which reads the partitions from the folders."""
    table = duckdb.sql(f"SELECT * FROM {reader}('{pattern}', hive_partitioning = true, union_by_name = true)").df()
    assert {"product", "date"} <= set(table.columns)
    times = pandas.to_datetime(table["time"], utc=True)
    assert (times.dt.strftime("%Y-%m-%d") == table["date"].astype(str).str.slice(0, 10)).all()
    cells = {}
    for row, at in zip(table.to_dict("records"), times):
        for point in (p for p in POINTS if p in row and row[p] == row[p] and row[p] is not None):
            key = (row["deviceKey"], at.value // 1_000_000, point)
            assert key not in cells, f"{key} is there twice"
            cells[key] = row[point]
    return cells


def check_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"}
    assert {file["path"] for file in manifest["list"]} == set(files), "the manifest lists what is there, and nothing else"
    for file in manifest["list"]:
        content = files[file["path"]].read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content) == file["bytes"]
    assert manifest["files"] == len(files)
    return manifest


def test_duckdb_and_pandas_read_what_the_gateway_has(farm):
    farm.send(SAMPLE, *CSV_COLUMNS)
    farm.apply(LAKE)
    planned = farm.cli("archive", "run", "lake", "--dry-run", "-o", "json").json()
    assert not root(farm).exists(), "a dry run writes nothing"
    done = run(farm)
    assert done["state"] == "idle" and done["daysDue"] == 0 and done["lastRun"]["days"] == len(planned)
    cells = expected(farm)
    assert by_duckdb(root(farm) / "**/*.parquet") == cells
    manifest = check_manifest(root(farm))
    assert manifest["rows"] == done["rows"]
    day = sorted(root(farm).rglob("*.parquet"))[0]
    frame = pandas.read_parquet(day)
    assert frame["time"].dt.tz is not None and frame["deviceKey"].notna().all()
    assert {"lake"} == {line.rsplit('archive="', 1)[1].split('"')[0] for line in farm.http("GET", "/metrics").text.splitlines()
                        if line.startswith("backtide_archive_rows_total")}
    # Nothing has changed: nothing is written.
    assert run(farm)["lastRun"]["files"] == 0


def test_long_csv_by_point_says_the_same(farm):
    farm.send(SAMPLE, *CSV_COLUMNS)
    farm.apply("kind: Archive\nname: lake\nform: long\nformat: csv\nbyPoint: true\nto: { folder: lake }\n")
    run(farm)
    table = duckdb.sql(f"SELECT * FROM read_csv('{root(farm)}/**/*.csv', hive_partitioning = true)").df()
    times = pandas.to_datetime(table["time"], utc=True)
    cells = {(device, at.value // 1_000_000, point): value
             for device, at, point, value in zip(table["deviceKey"], times, table["point"], table["value"])}
    assert len(cells) == len(table)
    assert cells == expected(farm)


def test_events_and_attributes_are_archived_as_the_gateway_has_them(kinds):
    gateway, sent = kinds
    for of in ("events", "attributes"):
        gateway.apply(f"kind: Archive\nname: {of}\nof: {of}\nto: {{ folder: {of} }}\n")
        gateway.apply(f"kind: Archive\nname: {of}-csv\nof: {of}\nformat: csv\nto: {{ folder: {of}-csv }}\n")
        run(gateway, of)
        run(gateway, f"{of}-csv")
    events = sorted((row["deviceKey"], row["time"], row["event"], json.dumps(row["output"])) for row in gateway.cli("query", "--product", "pumps", "--events", "-o", "ndjson").ndjson())
    attributes = sorted((row["deviceKey"], row["attribute"], json.dumps(row["value"]), row["arrived"])
                        for row in gateway.cli("query", "--product", "pumps", "--attributes", "--history", "-o", "ndjson").ndjson())
    assert len(events) >= 3 and len(attributes) >= 3
    for folder, ending, reader in [("", "parquet", "read_parquet"), ("-csv", "csv", "read_csv")]:
        types = ", types = {'output': 'VARCHAR'}" if ending == "csv" else ""
        table = duckdb.sql(f"SELECT * FROM {reader}('{root(gateway, 'events' + folder)}/**/*.{ending}', hive_partitioning = true{types})").df()
        times = pandas.to_datetime(table["time"], utc=True)
        assert (times.dt.strftime("%Y-%m-%d") == table["date"].astype(str).str.slice(0, 10)).all()
        assert sorted((device, at.value // 1_000_000, event, json.dumps(json.loads(output))) for device, at, event, output
                      in zip(table["deviceKey"], times, table["event"], table["output"])) == events
        [file] = root(gateway, "attributes" + folder).rglob(f"*.{ending}")
        frame = pandas.read_parquet(file) if ending == "parquet" else pandas.read_csv(file, dtype={"value": str})
        arrived = pandas.to_datetime(frame["time"], utc=True)
        assert sorted((device, name, json.dumps(json.loads(value)), at.value // 1_000_000) for device, name, value, at
                      in zip(frame["deviceKey"], frame["attribute"], frame["value"], arrived)) == attributes
        assert frame.groupby(["deviceKey", "attribute"])["current"].sum().eq(1).all()
        for of in ("events", "attributes"):
            assert check_manifest(root(gateway, of + folder))["of"] == of
    assert run(gateway, "events")["lastRun"]["files"] == 0
    refused = gateway.apply("kind: Archive\nname: odd\nof: events\nbyPoint: true\nto: { folder: odd }\n", code=FAILED)
    assert "byPoint" in refused.err


def test_late_data_makes_its_day_be_written_again_and_no_other(farm):
    farm.send(SAMPLE, *CSV_COLUMNS)
    farm.apply(LAKE)
    run(farm)
    before = {path: path.stat().st_mtime_ns for path in root(farm).rglob("*.parquet")}
    t = next(iter(farm.cells()))[1]
    late = farm.folder / "late.csv"
    late.write_text(f"deviceKey,time,P_avg\nR80711,{t + 1},123.25\n")
    farm.cli("import", "upload", late, "--channel", CHANNEL)
    done = run(farm)
    assert (done["lastRun"]["days"], done["lastRun"]["files"]) == (1, 1)
    after = {path: path.stat().st_mtime_ns for path in root(farm).rglob("*.parquet")}
    assert set(before) == set(after) and sum(before[path] != after[path] for path in before) == 1
    assert by_duckdb(root(farm) / "**/*.parquet") == expected(farm)
    check_manifest(root(farm))


def test_a_schedule_runs_by_itself_and_stops_when_told(farm):
    farm.apply(LAKE + "schedule: { everyMinutes: 1 }\n")
    farm.send(SAMPLE, *CSV_COLUMNS)

    def status():
        return farm.http("GET", "/api/v1/archives/lake/status").json()

    eventually(lambda: (status().get("lastRun") or {}).get("state") == "complete", "the archive has run by itself")
    assert status()["nextRun"] - status()["lastRun"]["began"] == 60_000
    farm.cli("archive", "stop", "lake")
    assert "nextRun" not in status()


def test_kill_9_in_the_middle_of_runs_ends_with_the_same_files(farm):
    rows = "".join(f"R80711,{day * 86_400_000 + minute * 60_000},{day}.{minute}\n" for day in range(14_000, 14_400) for minute in range(20))
    history = farm.folder / "days.csv"
    history.write_text("deviceKey,time,P_avg\n" + rows)
    farm.cli("import", "upload", history, "--channel", CHANNEL)
    farm.apply(LAKE)
    draw = random.Random(7)
    kills = 0
    farm.cli("archive", "run", "lake")
    while True:
        time.sleep(draw.uniform(0.05, 0.4))    # a random moment, not a wait for something
        status = farm.http("GET", "/api/v1/archives/lake/status").json()
        if status["state"] == "idle" and status.get("lastRun", {}).get("state") == "complete":
            break
        farm.kill()
        kills += 1
        farm.start()
    assert kills > 0, "no kill met a run"
    assert by_duckdb(root(farm) / "**/*.parquet") == expected(farm)
    assert check_manifest(root(farm))["rows"] == 400 * 20
    assert not list(root(farm).rglob("*.tmp"))


def test_s3_gets_the_same_files_and_never_shows_the_secret(farm, s3):
    farm.send(SAMPLE, *CSV_COLUMNS)
    farm.apply("kind: Archive\nname: lake\nto:\n  s3:\n"
               f"    bucket: {s3.bucket('history')}\n    prefix: farm/v1\n    endpoint: {s3.url}\n    accessKeyId: {KEY}\n")
    failed = run(farm, code=FAILED)
    assert "backtide archive secret lake" in failed["lastRun"]["error"]
    farm.cli("archive", "secret", "lake", input="wrong\n")
    assert "s3" in run(farm, code=FAILED)["lastRun"]["error"]
    farm.cli("archive", "secret", "lake", input=SECRET + "\n")
    assert run(farm)["state"] == "idle"
    folder = s3.buckets / "history/farm/v1"
    assert by_duckdb(folder / "**/*.parquet") == expected(farm)
    check_manifest(folder)
    shown = farm.cli("get", "archive", "lake").out + farm.http("GET", "/api/v1/archive-status").text + farm.log()
    audit = farm.http("GET", "/api/v1/access/audit").text
    assert SECRET not in shown and SECRET not in audit
    kept = b"".join(path.read_bytes() for path in farm.data_dir.glob("*.db*"))
    assert SECRET.encode() not in kept, "a secret is sealed where it is kept"


def test_s3_that_goes_away_is_told_and_what_was_not_written_is_written_later(farm, s3):
    farm.send(SAMPLE, *CSV_COLUMNS)
    bucket = s3.bucket("history")
    farm.apply(f"kind: Archive\nname: lake\nto: {{ s3: {{ bucket: {bucket}, endpoint: '{s3.url}', accessKeyId: {KEY} }} }}\n")
    farm.cli("archive", "secret", "lake", input=SECRET)
    s3.stop()
    farm.cli("archive", "run", "lake")
    s3.start()
    eventually(lambda: farm.http("GET", "/api/v1/archives/lake/status").json()["state"] != "running", "the run ends", within_s=120)
    assert run(farm)["state"] == "idle"
    assert by_duckdb(s3.buckets / "history/**/*.parquet") == expected(farm)


def test_what_makes_no_sense_is_named_when_it_is_declared(farm):
    for wrong, named in [("to: { folder: ../out }", "folder"), ("to: {}", "one of the two"),
                         ("to: { folder: a }\nschedule: { at: '25:00' }", "25:00"),
                         ("to: { folder: a }\nproducts: [nobody]", "nobody")]:
        refused = farm.run("apply", "-f", "-", input=f"kind: Archive\nname: wrong\n{wrong}\n")
        assert refused.code in (USAGE, FAILED) and named in refused.err, refused
    farm.apply(LAKE)
    refused = farm.run("apply", "-f", "-", input=LAKE + "format: csv\n")
    assert refused.code == FAILED and "format" in refused.err
    model = farm.cli("get", "product", "wind-farm", "-o", "json").json()["model"]
    farm.apply(f"kind: Product\nname: bare\nkey: BAREPRODUC\nmodel: {model}\n---\n" + LAKE.replace("wind-farm", "bare").replace("lake", "pond"))
    refused = farm.run("delete", "product", "bare")
    assert "archive pond" in refused.err
