"""Drives the vendor's subscription SDK (WebSocket), unmodified. Reads orders as JSON on stdin, prints each message as a
line of JSON until it is killed. After a broken connection the SDK connects again by itself."""

import json
import sys

import enos_subscribe

orders = json.load(sys.stdin)
client = getattr(enos_subscribe, orders.get("client", "OfflineClient"))(
    host=orders["host"], port=orders["port"], access_key=orders["accessKey"], access_secret=orders["accessSecret"],
    auto_commit_interval_seconds=orders.get("commitSeconds", 1))
client.subscribe(sub_id=orders["subscription"], **({"consumer_group": orders["group"]} if "group" in orders else {}))
for value in client:
    print(json.dumps({"value": value}), flush=True)
