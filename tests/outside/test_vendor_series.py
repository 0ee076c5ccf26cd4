"""The vendor's time series API: every operation through the vendor's SDK, and answers longer than memory should hold."""

import pathlib

import pytest
import requests

from test_vendor_api import ORG, RIGHTS, Application, asset, poseidon
from world import POINTS, eventually

PLANT = """
kind: Model
name: plant
measurepoints:
  P: { type: double, signal: AI, quality: true }
  state: { type: int, signal: DI }
  energy: { type: long, signal: PI }
  note: { type: string, signal: Generic }
---
kind: Product
name: plant
key: plant-key
model: plant
---
kind: Device
name: D1
product: plant
key: D1
assetId: asset-1
timezone: Asia/Shanghai
---
kind: Channel
name: plant-history
product: plant
---
"""
T = 1_393_603_200_000  # 2014-03-01 00:00 in Shanghai
ROWS = {0: {"P": 1.0, "state": 0, "energy": 100, "note": "a"}, 1: {"P": 3.0, "state": 0, "energy": 104},
        2: {"P": 5.0, "state": 1, "energy": 2}, 60: {"P": 7.0, "state": 1, "energy": 10, "note": "b"}}

# Operation, its points, further parameters, the key of its items, their (minute, value).
OPERATIONS = [
    ("raw", "P", {}, "P", [(0, 1.0), (1, 3.0), (2, 5.0), (60, 7.0)]),
    ("raw", "P", {"pageSize": 2}, "P", [(0, 1.0), (1, 3.0)]),
    ("raw", "P", {"pageSize": 2, "orderBy": "timestamp desc"}, "P", [(60, 7.0), (2, 5.0)]),
    ("unified-raw", "P", {}, "P", [(0, 1.0), (1, 3.0), (2, 5.0), (60, 7.0)]),
    ("ai", "P", {"withQuality": "true"}, "P", [(0, 1.0), (1, 3.0), (2, 5.0), (60, 7.0)]),
    ("generic", "note", {}, "note", [(0, "a"), (60, "b")]),
    ("ai-normalized", "P", {"interval": 0}, "P", [(0, 1.0), (1, 3.0), (2, 5.0), (60, 7.0)]),
    *[("ai-normalized", f"{function}(P)", {"interval": 60}, f"{function}(P)", [(0, first), (60, second)])
      for function, first, second in [("avg", 3.0, 7.0), ("sum", 9.0, 7.0), ("max", 5.0, 7.0), ("min", 1.0, 7.0),
                                      ("first", 1.0, 7.0), ("last", 5.0, 7.0), ("count", 3.0, 1.0)]],
    ("ai-normalized", "last(P)", {"interval": 1440}, "last(P)", [(0, 7.0)]),
    ("di", "state", {}, "state", [(0, 0), (2, 1)]),
    ("electric-power", "energy", {"interval": 0}, "energy", [(1, 4.0), (2, 2.0), (60, 8.0)]),
    ("electric-power", "sum(energy)", {"interval": 60}, "sum(energy)", [(0, 6.0), (60, 8.0)]),
    ("latest", "P,state", {}, "state", [(60, 1)]),
    ("latest/filter", "P", {"operator": "gt", "valueFilter": "6"}, "P", [(60, 7.0)]),
    ("latest/filter", "P", {"operator": "lt", "valueFilter": "6"}, "P", []),
]
SPAN = {"assetIds": "asset-1", "startTime": "2014-03-01 00:00:00", "endTime": "2014-03-01 02:00:00"}


@pytest.fixture
def plant(gateway):
    application = Application(gateway, PLANT + RIGHTS)
    params = ",".join(f"{{'assetId':'asset-1','time':{T + 60_000 * minute},'measurepoints':{values}}}" for minute, values in ROWS.items())
    message = f"{{'method':'integration.measurepoint.post','version':'1.1','isRealtimeIntegration':false,'params':[{params}]}}"
    assert application.integrate("postMeasurepoint", message)["code"] == 0
    return application


def asked(version, what, points, more):
    """A call as the vendor's samples write it: 2.1 posts a body, 2.0 asks in the query."""
    point, logic = ("pointId", "pointIdsWithLogic") if version == "v2.1" else ("measurepoint", "measurepointsWithLogic")
    name = {"ai-normalized": logic, "electric-power": logic, "latest/filter": point}.get(what, f"{point}s")
    parameters = {**SPAN, name: points, **more}
    path = f"/tsdb-service/{version}/{what}?orgId={ORG}"
    if version == "v2.1":
        return path, parameters
    return requests.Request("GET", "http://h" + path, params=parameters).prepare().url.removeprefix("http://h"), None


@pytest.mark.parametrize("version", ["v2.1", "v2.0"])
def test_poseidon_asks_every_operation_and_reads_what_was_posted(plant, version):
    answers = poseidon(plant.gateway, plant.key, *[asked(version, *operation[:3]) for operation in OPERATIONS])
    for (what, points, more, key, expected), answer in zip(OPERATIONS, answers, strict=True):
        assert answer["code" if version == "v2.1" else "status"] == 0, (what, points, answer)
        items = [item for item in answer["data"]["items"] if key in item]
        if version == "v2.0":
            assert all(isinstance(item[key], str) for item in items), (what, points)
        told = [((item["timestamp"] - T) // 60_000, type(value)(item[key])) for item, (_, value) in zip(items, expected, strict=True)]
        assert told == expected, (what, points, more)
        assert all(item["assetId"] == "asset-1" and item["localtime"].startswith("2014-03-01 0") for item in items), (what, items)
        assert all(("quality" in item) == ("withQuality" in more) for item in items), (what, items)


@pytest.mark.parametrize("version", ["v2.1", "v2.0"])
def test_poseidon_reads_durations_and_is_told_what_is_not_answered(plant, version):
    refused = [("raw", "P", {"itemFormat": 1}), ("raw", "P", {"itemFormat": 2}), ("ai-normalized", "avg(P)", {"interval": 60, "itemFormat": 1}),
               ("ai", "state", {}), ("di", "P", {}), ("generic", "P", {}), ("ai-normalized", "P", {"interval": 60}),
               ("ai-normalized", "avg(P)", {"interval": 1441}), ("electric-power", "avg(P)", {"interval": 60}),
               ("di", "state", {"orderBy": "timestamp desc"}), ("raw", "P", {"endTime": "2014-03-01T02:00:00+08:00"})]
    calls = [asked(version, "di/duration", "state", {}), asked(version, "electric-power/current-day", "energy", {}),
             asked(version, "raw", "P", {"pageSize": 640_001}), *[asked(version, *call) for call in refused]]
    durations, today, large, *answers = poseidon(plant.gateway, plant.key, *calls)
    [item] = durations["data"]["items"]
    assert (item["assetId"], item["pointId"], item["scanEndTimestamp"]) == ("asset-1", "state", T + 7_200_000)
    assert item["durations"] == [{"status": "0", "duration": 120_000}, {"status": "1", "duration": 118 * 60_000}]
    assert today["data"]["items"] == []
    code = "code" if version == "v2.1" else "status"
    assert large[code] == 430 and large["data"] is None
    for call, answer in zip(refused, answers, strict=True):
        assert (answer[code], answer["data"]) == (702, None), (call, answer)
        assert answer["msg"], call


# --- long answers ---

LONG_ROWS = 90_000  # of seven points: 630 000 values, some 70 MB as items


@pytest.fixture
def long_history(farm):
    file = farm.folder / "long.csv"
    with file.open("w") as out:
        out.write("device,time," + ",".join(POINTS) + "\n")
        for row in range(LONG_ROWS):
            out.write(f"R80711,{T + 1_000 * row}" + f",{row * 0.25}" * len(POINTS) + "\n")
    farm.send(file, "--device-column", "device", "--time-column", "time")
    farm.compact()
    return Application(farm)


def memory_kib(gateway, what):
    status = pathlib.Path(f"/proc/{gateway.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what + ":"))


def test_a_long_answer_costs_no_memory_and_does_not_look_whole_when_it_is_not(long_history):
    application, gateway = long_history, long_history.gateway
    question = {"assetIds": asset(gateway, "R80711"), "pointIds": ",".join(POINTS), "pageSize": LONG_ROWS, "withQuality": True,
                "startTime": "2014-01-01 00:00:00", "endTime": "2014-12-31 00:00:00"}
    finished = 'backtide_query_seconds_count{format="vendor"}'

    def answered():
        lines = gateway.http("GET", "/metrics", token=False).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(finished))

    short = application.items("raw", **{**question, "pageSize": 100})
    eventually(lambda: answered() == 1, "the short answer is counted")
    # The peak from here on.
    pathlib.Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5")
    before = memory_kib(gateway, "VmRSS")
    response = application.call("/tsdb-service/v2.1/raw", question, stream=True)
    chunks = response.iter_content(1 << 16)
    first = next(chunks)
    assert first.startswith(b'{"code":0,"msg":"OK"')
    # While its client takes nothing it stands still, far from its end; others are answered meanwhile.
    assert application.items("raw", **{**question, "pageSize": 100}) == short
    eventually(lambda: answered() == 2, "the second short answer is counted")
    key = b'"quality":'
    size, count, tail = len(first), first.count(key), first
    for chunk in chunks:
        # A key may lie across two chunks.
        tail = tail[1 - len(key):] + chunk
        size, count = size + len(chunk), count + tail.count(key)
    eventually(lambda: answered() == 3, "the long answer is counted")
    assert tail.endswith(b"]}}") and count == LONG_ROWS * len(POINTS)
    grown = memory_kib(gateway, "VmHWM") - before
    # 77 MiB and 11 MiB when this was written.
    assert size > 64 << 20 and grown << 10 < 32 << 20, f"of {size >> 20} MiB, memory grew by {grown >> 10} MiB"

    # Latest first it is made in pieces from the end: as long, and bounded too.
    backwards = application.call("/tsdb-service/v2.1/raw", {**question, "orderBy": "timestamp desc"}, stream=True)
    assert sum(len(chunk) for chunk in backwards.iter_content(1 << 20)) == size
    assert memory_kib(gateway, "VmHWM") - before << 10 < 48 << 20

    broken = application.call("/tsdb-service/v2.1/raw", question, stream=True).iter_content(1 << 16)
    next(broken)
    gateway.kill()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        for _ in broken:
            pass
