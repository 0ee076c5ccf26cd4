"""Decoders that others wrote for their devices run unchanged behind the adapters, and give what Node makes of them."""

import json
import os
import subprocess

import pytest
from world import ROOT, TOOLS

T0 = 1_700_000_000_000
PACKAGES = {"@adeunis/codecs": 20, "advlib-ble": 1, "complete-teltonika-parser": 1, "ggencoder": 2, "gps": 1, "nmea": 1,
            "nmea-simple": 18}

PLANT = """
kind: Model
name: anything
passthrough: true
---
kind: Product
name: raw-plant
model: anything
format: custom
---
kind: Device
name: d1
product: raw-plant
"""


@pytest.fixture(scope="module")
def decoders():
    done = subprocess.run(["node", ROOT / "tests/outside/clients/decoders.cjs", TOOLS / "decoders", str(T0)],
                          env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_there_are_at_least_thirty(decoders):
    assert {package: sum(d["package"] == package for d in decoders) for package in PACKAGES} == PACKAGES
    assert len(decoders) >= 30 and sum(len(d["frames"]) for d in decoders) > 200
    assert max(len(d["source"]) for d in decoders) > 60_000


@pytest.mark.parametrize("package", PACKAGES)
def test_every_decoder_gives_what_its_authors_see(gateway, decoders, package):
    gateway.apply(PLANT)
    faults = []
    for number, decoder in enumerate(d for d in decoders if d["package"] == package):
        golden = [{"name": frame["hex"], "decode": frame["hex"], "time": T0, "expect": envelope(frame["values"])}
                  for frame in decoder["frames"]]
        file = {"product": "raw-plant", "dialect": decoder["dialect"], "mapping": {"device": "d1"}, "source": decoder["source"]}
        saved = gateway.http("PUT", "/api/v1/scripts/foreign/draft", json=file)
        assert saved.status_code == 200, saved.text
        answer = gateway.http("POST", "/api/v1/scripts/foreign/test", json={"golden": golden}).json()
        faults += [f"{decoder['name']}: {one['name']}: {one['message'][:4000]}" for one in answer["golden"] if not one["passed"]]
        assert len(answer["golden"]) == len(decoder["frames"]) > 0
    assert not faults, "\n".join(faults)


def envelope(values):
    return {"id": "", "version": "1.0", "method": "integration.measurepoint.post",
            "params": [{"deviceKey": "d1", "time": T0, "measurepoints": values}]}
