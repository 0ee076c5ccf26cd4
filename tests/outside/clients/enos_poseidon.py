"""Calls an API with the vendor's enos-poseidon, unmodified but for the one assignment that docs/vendor-api.md tells of.

Runs in its own environment, as a process of its own; reads orders as JSON on stdin, prints the answers as JSON.
"""

import json
import sys

import poseidon.poseidon

orders = json.load(sys.stdin)
poseidon.poseidon.pubkey = orders["publicKey"].encode()
answers = []
for url, body in orders["calls"]:
    answers.append(poseidon.poseidon.urlopen(orders["accessKey"], orders["accessSecret"], url, body, timeout=60))
print(json.dumps(answers))
