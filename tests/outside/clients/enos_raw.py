"""Drives the vendor's SDK, unmodified, with raw requests. Runs in its own environment; orders on stdin, JSON on stdout."""

import json
import logging
import sys
import time

from enos.core.internal.Profile import Profile
from enos.core.login.MessageIntegrationLogin import MessageIntegrationLogin
from enos.core.message.IConnectCallback import IConnectCallback
from enos.core.MqttClient import MqttClient
from enos.message.upstream.integration.IntModelUpRawRequest import IntModelUpRawRequest

logging.basicConfig(stream=sys.stderr, level=logging.INFO)


class Connected(IConnectCallback):
    def on_connect(self):
        pass

    def on_disconnect(self):
        pass

    def on_connect_failed(self):
        pass


def main():
    orders = json.load(sys.stdin)
    login = MessageIntegrationLogin(orders["url"], orders["productKey"], orders["secret"])
    client = MqttClient(profile=Profile.create_instance(login))
    client.connect(Connected())
    deadline = time.monotonic() + 20
    while not client.is_connected() and time.monotonic() < deadline:
        time.sleep(0.05)
    replies = []
    for payload in orders["payloads"]:
        request = IntModelUpRawRequest.builder().set_payload(bytes.fromhex(payload)).build()
        replies.append(bytes(client.publish(request).get_payload()).hex())
    client.close()
    print(json.dumps(replies), flush=True)


main()
