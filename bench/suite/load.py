"""The load generator, seen from here."""

import json
import subprocess

from .servers import Failed, program

DEVICES = 1000


def send(door, watched, *options, secret="", product_key="BENCHfarm", meanwhile=None):
    """Sends and returns the report; everything that was sent must have been answered with 200.

    `meanwhile(process)` runs beside it until the load ends.
    """
    with start(door, watched, product_key, secret, "send", *options) as process:
        if meanwhile:
            meanwhile(process)
        return report(process)


def send_and_check(gateway, channel, *options, between):
    """Sends, calls `between(report)` while the server is as the load has left it, then reads everything back."""
    with start(gateway.mqtt, [gateway], channel["productKey"], channel["secret"], "send", *options,
               "--check", gateway.binary, env=gateway.client_environment(), stdin=subprocess.PIPE) as process:
        sent = report(process)
        between(sent)
        process.stdin.write(b"\n")
        process.stdin.close()
        found = line_of(process)
    if found["rowsMissing"] or found["rowsUnexpected"] or found["valuesWrong"]:
        raise Failed(f"what was answered is not what is there: {found}")
    return {**sent, "check": found}


def idle(gateway, channel, connections):
    with start(gateway.mqtt, [gateway], channel["productKey"], channel["secret"], "idle",
               "--connections", connections) as process:
        return line_of(process)


def pull(gateway, key, messages, group="bench"):
    """One subscriber that reads so many messages; returns what that took."""
    with subscriber(gateway, key, "pull", "--group", group, "--messages", messages) as process:
        pulled = line_of(process)
    return {**pulled, "rowsPerSecond": pulled["messages"] / pulled["seconds"],
            "cpuMicrosecondsPerRow": pulled["serverCpuSeconds"] / pulled["messages"] * 1e6}


def wait(gateway, key, sessions):
    with subscriber(gateway, key, "wait", "--sessions", sessions) as process:
        return line_of(process)


def subscriber(gateway, key, command, *options):
    arguments = [program("load"), command, "--address", gateway.subscribe, "--access-key", key["accessKey"],
                 "--secret", key["accessSecret"], "--watch", f"{gateway.name}={gateway.pid}", *options]
    return subprocess.Popen([str(a) for a in arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


def start(door, watched, product_key, secret, command, *options, **more):
    watch = [part for server in watched for part in ("--watch", f"{server.name}={server.pid}")]
    arguments = [program("load"), command, "--address", door, "--product-key", product_key, "--secret", secret,
                 *watch, *options]
    return subprocess.Popen([str(a) for a in arguments], stdout=subprocess.PIPE,
                            **{"stdin": subprocess.DEVNULL, **more})


def report(process):
    sent = line_of(process)
    if sent["refused"] or sent["unanswered"]:
        raise Failed(f"refused: {sent['refused']} ({sent['firstRefusal']}), unanswered: {sent['unanswered']}")
    return sent


def line_of(process):
    line = process.stdout.readline()
    if not line:
        raise Failed(f"the load generator ended with {process.wait()}")
    return json.loads(line)
