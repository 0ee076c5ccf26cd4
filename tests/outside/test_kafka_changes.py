"""The change feed in real Apache Kafka: every range that was computed anew, in order per device, by a schema."""

import json

import jsonschema
import pytest

from test_kafka_rules import configured, send
from world import PRODUCT, TURBINES, eventually

pytestmark = pytest.mark.xdist_group("kafka")
TOPIC = "HISTORY_CHANGE_OFFLINE_o1"
ROLLUP = f"""
kind: Policy
name: minutes
products: [{PRODUCT}]
analysis:
  - rollup: minutes
    points: [P_avg]
    interval: 1m
    functions: [avg]
    quiet: 200ms
    within: 2s
"""


def test_changes_of_rollups_are_records_that_the_api_tells_too(gateways, own_kafka):
    gateway = configured(gateways, own_kafka.address)
    gateway.apply(ROLLUP)
    send(gateway, 0, 120)
    schema = gateway.http("GET", "/api/v1/schemas/change").json()

    def records():
        found = own_kafka.read(TOPIC) if TOPIC in own_kafka.topics() else []
        messages = [(record.key().decode(), json.loads(record.value())) for record in found]
        ends = {message["deviceKey"]: message["to"] for _, message in messages}
        return messages if set(ends) == set(TURBINES) and len(set(ends.values())) == 1 else None

    def told():
        items = gateway.http("GET", "/api/v1/changes").json()["items"]
        return {item["sequence"]: (item["deviceKey"], item["from"], item["to"]) for item in items}

    eventually(lambda: gateway.http("GET", "/api/v1/rollups").json()["items"][0]["state"] == "current", "current")
    eventually(lambda: {message["sequence"] for _, message in records() or []} >= set(told()), "every change", 60, 0.5)
    for key, message in records():
        jsonschema.validate(message, schema)
        assert key == message["assetId"] and message["name"] == "minutes" and message["points"] == ["P_avg"]
        assert told()[message["sequence"]] == (message["deviceKey"], message["from"], message["to"])
