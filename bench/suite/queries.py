"""Questions about history beside DuckDB on Parquet of the same data: what a user would otherwise ask."""

import json
import subprocess
import time
from statistics import median

from . import machine
from .servers import Failed, ROOT

PYTHON = ROOT / ".tools/py/bin/python"
YEAR = ("2014-01-01T00:00:00Z", "2015-01-01T00:00:00Z")
FUNCTIONS = ["count", "min", "max", "avg"]
TIMES = 5
# Runs in the environment that has DuckDB: makes the data, and asks DuckDB of what Backtide exported.
PEER = r"""
import json, resource, sys, time
import duckdb
command, *rest = sys.argv[1:]
engine = duckdb.connect()
engine.execute("SET enable_progress_bar = false")
def measured(sql):
    outside, cpu = [], []
    for _ in range(int(rest[-1])):
        usage, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        rows = len(engine.execute(sql).to_arrow_table())
        outside.append(time.monotonic() - start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu.append(after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime)
    print(json.dumps({"rows": rows, "seconds": sorted(outside)[len(outside) // 2], "cpuSeconds": sorted(cpu)[len(cpu) // 2]}))
if command == "make":
    path, devices = rest
    engine.execute("SELECT setseed(0.5)")
    engine.execute(f'''COPY (SELECT format('T{{:06d}}', d) AS device, 1388534400000 + t * 600000 AS time,
        round(1000 + 900 * sin(t / 200.0 + d) + 50 * random(), 2) AS P_avg, round(8 + 4 * sin(t / 150.0 + d) + random(), 2) AS Ws_avg
        FROM range({devices}) AS a(d), range(52560) AS b(t) ORDER BY d, t) TO '{path}' (FORMAT parquet, COMPRESSION zstd)''')
elif command == "latest-file":
    path, devices = rest
    engine.execute(f'''COPY (SELECT format('T{{:06d}}', d) AS device, 1420070400000 + 600000 * t AS time, d + t + 0.5 AS P_avg
        FROM range({devices}) AS a(d), range(3) AS b(t)) TO '{path}' (FORMAT parquet)''')
elif command == "aggregate":
    path = rest[0]
    measured(f'''SELECT deviceKey, time_bucket(INTERVAL '1 hour', time) AS time, count(P_avg), min(P_avg), max(P_avg), avg(P_avg)
        FROM read_parquet('{path}') WHERE time < TIMESTAMPTZ '2015-01-01 00:00:00+00' GROUP BY 1, 2 ORDER BY 1, 2''')
elif command == "sql":
    measured(rest[0])
elif command == "latest":
    measured(f"SELECT deviceKey, max(time), arg_max(P_avg, time) FROM read_parquet('{rest[0]}') WHERE P_avg IS NOT NULL GROUP BY 1 ORDER BY 1")
"""


def peer(*arguments):
    done = subprocess.run([PYTHON, "-c", PEER, *map(str, arguments)], capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise Failed(f"DuckDB: {done.stderr[-2000:]}")
    return json.loads(done.stdout) if done.stdout else None


def objects(devices):
    head = ("kind: Model\nname: turbine\nmeasurepoints:\n  P_avg: { type: double }\n  Ws_avg: { type: double }\n---\n"
            "kind: Product\nname: farm\nkey: BENCHfarm\nmodel: turbine\n---\nkind: Channel\nname: bench\nproduct: farm\n")
    keys = (f"T{number:06}" for number in range(devices))
    return head + "".join(f"---\nkind: Device\nname: {key}\nproduct: farm\nkey: {key}\n" for key in keys)


def queries(plan):
    """A year hourly of 100 devices, and the latest of 10 000, by Backtide and by DuckDB on what Backtide exports."""
    year_devices, all_devices = (10, 1_000) if plan.quick else (100, 10_000)
    with plan.gateway() as gateway:
        gateway.cli("apply", "-f", "-", input=objects(all_devices))
        file, latest_file = gateway.folder / "year.parquet", gateway.folder / "latest.parquet"
        peer("make", file, year_devices)
        peer("latest-file", latest_file, all_devices)
        for source in (file, latest_file):
            gateway.cli("send", source, "--channel", "bench", "--device-column", "device", "--time-column", "time")
        compacted = gateway.compact()
        exported = gateway.folder / "exported.parquet"
        gateway.cli("export", exported, "--product", "farm")

        keys = ",".join(f"T{number:06}" for number in range(year_devices))
        path = (f"/api/v1/points/aggregates?product=farm&device={keys}&points=P_avg&aggregate={','.join(FUNCTIONS)}&interval=1h"
                f"&from={YEAR[0]}&to={YEAR[1]}&format=")
        found = {format: asked(gateway, [path + format]) for format in ("arrow", "csv")}
        rows = found["csv"].pop("body").count(b"\n") - 1
        found["arrow"].pop("body")
        duckdb = peer("aggregate", exported, TIMES)
        if not rows == duckdb["rows"] == year_devices * 8_760:
            raise Failed(f"{rows} windows by Backtide, {duckdb['rows']} by DuckDB, {year_devices * 8_760} there are")
        latest = latest_of_all(gateway, all_devices)
        return {"segmentBytes": compacted["segmentBytes"], "exportedBytes": exported.stat().st_size,
                "aggregate": {"devices": year_devices, "rows": rows, "values": year_devices * 52_560, **found, "duckdb": duckdb},
                "latest": {"devices": all_devices, **latest, "duckdb": peer("latest", exported, TIMES)}}


def asked(gateway, paths):
    """The median of several times until the last byte, and the server's CPU."""
    seconds, before = [], machine.cpu_s(gateway.pid)
    for _ in range(TIMES):
        start = time.monotonic()
        for path in paths:
            _, _, body = gateway.request("GET", path)
        seconds.append(time.monotonic() - start)
    return {"seconds": median(seconds), "cpuSeconds": (machine.cpu_s(gateway.pid) - before) / TIMES, "body": body}


def latest_of_all(gateway, devices):
    """Page after page, as a client does it."""
    path = "/api/v1/latest?product=farm&points=P_avg&limit=1000"
    seconds, before = [], machine.cpu_s(gateway.pid)
    for _ in range(TIMES):
        start, found, cursor = time.monotonic(), 0, ""
        while True:
            _, _, body = gateway.request("GET", path + cursor)
            page = json.loads(body)
            found += len(page["items"])
            if "next" not in page:
                break
            cursor = f"&cursor={page['next']}"
        seconds.append(time.monotonic() - start)
        if found != devices:
            raise Failed(f"the latest of {found} devices, not {devices}")
    return {"seconds": median(seconds), "cpuSeconds": (machine.cpu_s(gateway.pid) - before) / TIMES}
