"""Drives the vendor's subscription SDK (TCP, TLS), unmodified. Reads orders as JSON on stdin, prints each message as a line
of JSON until it is killed. The SDK does not connect again by itself: this program does."""

import json
import sys
import time

from enos_dms.core.client import DataClient

orders = json.load(sys.stdin)


def show(message):
    print(json.dumps({"topic": message.topic, "partition": message.partition, "offset": message.offset,
                      "timestamp": message.timestamp, "key": message.key, "value": message.value}), flush=True)


def connect():
    client = DataClient(host=orders["host"], port=orders["port"], access_key=orders["accessKey"],
                        secret=orders["accessSecret"], sub_id=orders["subscription"], sub_type=orders.get("subType", 3),
                        auto_commit_interval_seconds=orders.get("commitSeconds", 1),
                        **({"consumer_group": orders["group"]} if "group" in orders else {}), **orders.get("tls", {}))
    client.on_message = show
    client.connect()
    return client


client = connect()
while True:
    time.sleep(0.1)
    if not client.connected:
        print(json.dumps({"disconnected": True}), flush=True)
        if not orders.get("again", True):
            break
        client.stop()
        client = connect()
