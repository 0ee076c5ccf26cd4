"""Drives the vendor's SDK, unmodified. Runs in its own environment; reads orders as JSON on stdin, prints JSON."""

import json
import logging
import queue
import sys
import time

from enos.core.internal.Ciphers import Ciphers
from enos.core.internal.Profile import Profile
from enos.core.login.MessageIntegrationLogin import MessageIntegrationLogin
from enos.core.message.IConnectCallback import IConnectCallback
from enos.core.message.IResponseCallback import IResponseCallback
from enos.core.MqttClient import MqttClient
from enos.message.upstream.integration.IntAttributePostRequest import IntAttributePostRequest
from enos.message.upstream.integration.IntEventPostRequest import IntEventPostRequest
from enos.message.upstream.integration.IntMeaturepointPostRequest import IntMeaturepointPostRequest

logging.basicConfig(stream=sys.stderr, level=logging.INFO)


class Connected(IConnectCallback):
    """`connect()` without a callback sits out its ten seconds when CONNACK comes quickly: mqtt-channel.md §8.2."""

    def on_connect(self):
        pass

    def on_disconnect(self):
        pass

    def on_connect_failed(self):
        pass


class Answers(IResponseCallback):
    def __init__(self):
        self.queue = queue.Queue()

    def on_response(self, response):
        self.queue.put(answer(response))

    def on_failure(self, exception):
        self.queue.put({"failure": str(exception)})


def answer(response):
    return {"code": response.get_code(), "success": response.is_success(), "message": response.get_message()}


def points(items):
    builder = IntMeaturepointPostRequest.builder()
    for device, at, values in items:
        builder.add_meaturepoint(device, at, values)
    return builder.build()


def events(items):
    builder = IntEventPostRequest.builder()
    for device, at, event, output in items:
        builder.add_event(device, at, event, output)
    return builder.build()


def attributes(items):
    """As the builder makes it: its params are always empty (mqtt-channel.md §8.2)."""
    builder = IntAttributePostRequest.builder()
    for device, attribute, value in items:
        builder.add_attribute(device, attribute, value)
    return builder.build()


def attribute_params(params):
    """Around the builder: the params as they should be."""
    made = IntAttributePostRequest.builder().build()
    made.set_params(params)
    return made


KINDS = {"points": points, "events": events, "attributes": attributes, "attributeParams": attribute_params}


def request(order):
    """A list of points, or {kind: its items}."""
    [(kind, items)] = order.items() if isinstance(order, dict) else [("points", order)]
    return KINDS[kind](items)


def secure(profile, ca, cert=None, key=None, ciphers=None):
    """The SDK ignores the scheme of the URL; one-way TLS has no call of its own: mqtt-channel.md §8.2."""
    preset = getattr(Ciphers, ciphers) if ciphers else None
    profile.set_ssl_context(ca, cert, key, ssl_ciphers=preset)


def main():
    orders = json.load(sys.stdin)
    profile = Profile.create_instance(
        MessageIntegrationLogin(orders["url"], orders["productKey"], orders["secret"]))
    profile.set_operation_timeout(orders.get("timeoutSeconds", 20))
    if "tls" in orders:
        secure(profile, **orders["tls"])
    if "signMethod" in orders:
        profile.set_sign_method(orders["signMethod"])
    client = MqttClient(profile=profile)
    client.connect(Connected())
    deadline = time.monotonic() + orders.get("connectSeconds", 20)
    while not client.is_connected() and time.monotonic() < deadline:
        time.sleep(0.05)
    outcome = {"connected": client.is_connected(), "sync": [], "async": []}
    if outcome["connected"]:
        for items in orders.get("sync", []):
            outcome["sync"].append(answer(client.publish(request(items))))
        answers = Answers()
        for items in orders.get("async", []):
            client.publish(request(items), answers)
        for _ in orders.get("async", []):
            outcome["async"].append(answers.queue.get(timeout=30))
    client.close()
    print(json.dumps(outcome), flush=True)


main()
