"""SQL over a hundred million points beside DuckDB on Parquet of the same data."""

import json
import os
import time
from statistics import median

from . import machine
from .queries import TIMES, objects, peer
from .servers import Failed

# Values of one device: two points, a year of ten minutes.
OF_DEVICE = 2 * 52_560
# What both are asked: by device, and by day over all devices.
QUESTIONS = {
    "by device": ('SELECT device, count("P_avg") AS n, avg("P_avg") AS mean, max("Ws_avg") AS peak FROM farm GROUP BY device',
                  "SELECT deviceKey, count(P_avg), avg(P_avg), max(Ws_avg) FROM read_parquet('{}') GROUP BY 1"),
    "by day": ("SELECT date_trunc('day', time) AS day, count(\"P_avg\") AS n, avg(\"P_avg\") AS mean FROM farm GROUP BY 1",
               "SELECT date_trunc('day', time), count(P_avg), avg(P_avg) FROM read_parquet('{}') GROUP BY 1"),
    "a day of it": ("SELECT device, avg(\"P_avg\") AS mean FROM farm WHERE time >= '2014-06-01T00:00:00Z' AND time < '2014-06-02T00:00:00Z' GROUP BY 1",
                    "SELECT deviceKey, avg(P_avg) FROM read_parquet('{}') WHERE time >= TIMESTAMPTZ '2014-06-01 00:00:00+00' "
                    "AND time < TIMESTAMPTZ '2014-06-02 00:00:00+00' GROUP BY 1"),
}


def sql(plan):
    """Group-bys over BACKTIDE_SQL_POINTS values (100 million; quick: 1 million), each asked several times."""
    points = int(os.environ.get("BACKTIDE_SQL_POINTS", 1_000_000 if plan.quick else 100_000_000))
    devices = max(1, points // OF_DEVICE)
    with plan.gateway() as gateway:
        gateway.cli("apply", "-f", "-", input=objects(devices))
        file = gateway.folder / "year.parquet"
        peer("make", file, devices)
        gateway.cli("send", file, "--channel", "bench", "--device-column", "device", "--time-column", "time")
        file.unlink()
        compacted = gateway.compact()
        exported = gateway.folder / "exported.parquet"
        gateway.cli("export", exported, "--product", "farm")
        answers = {}
        for name, (ours, theirs) in QUESTIONS.items():
            found, duckdb = asked(gateway, ours), peer("sql", theirs.format(exported), TIMES)
            if found["rows"] != duckdb["rows"]:
                raise Failed(f"{name}: {found['rows']} rows by Backtide, {duckdb['rows']} by DuckDB")
            answers[name] = {**found, "duckdb": duckdb}
        return {"devices": devices, "values": devices * OF_DEVICE, "segmentBytes": compacted["segmentBytes"],
                "exportedBytes": exported.stat().st_size, "answers": answers}


def asked(gateway, statement):
    seconds, before = [], machine.cpu_s(gateway.pid)
    body = json.dumps({"sql": statement, "format": "csv"})
    for _ in range(TIMES):
        start = time.monotonic()
        _, _, answer = gateway.request("POST", "/api/v1/sql", body, {"Content-Type": "application/json"})
        seconds.append(time.monotonic() - start)
    return {"rows": answer.count(b"\n") - 1, "seconds": median(seconds), "cpuSeconds": (machine.cpu_s(gateway.pid) - before) / TIMES}
