"""The scenarios. Each starts its own servers over empty folders and returns what it measured."""

import contextlib
import csv
import io
import json
import re
import resource
import subprocess
import time
from statistics import median

from . import load, machine
from .queries import queries
from .sql import sql
from .load import DEVICES
from .servers import Failed, Gateway, Influxdb, Kafka, Mosquitto, Postgresql, Writer, ROOT, free_port

POINTS = ["Ba_avg", "P_avg", "Ws_avg", "Va_avg", "Ot_avg", "Ya_avg", "Wa_avg"]
TARGET_POINTS_PER_SECOND = 1_000_000


class Plan:
    """What one run was asked for."""

    def __init__(self, binary, history, work, seconds, quick):
        self.binary, self.history, self.work, self.seconds, self.quick = binary, history, work, seconds, quick

    def gateway(self):
        """A fresh gateway that knows nothing."""
        return Gateway(self.work, self.binary)

    @contextlib.contextmanager
    def farm(self, settings=""):
        """A fresh gateway with the benchmark's objects declared, and its channel's strings."""
        with Gateway(self.work, self.binary, settings) as gateway:
            gateway.cli("apply", "-f", "-", input=objects())
            yield gateway, json.loads(gateway.cli("channel", "show", "bench", "-o", "json"))


def objects():
    points = "".join(f"  {name}: {{ type: double }}\n" for name in POINTS)
    head = (f"kind: Model\nname: turbine\nmeasurepoints:\n{points}---\nkind: Product\nname: farm\nkey: BENCHfarm\n"
            "model: turbine\nformat: json\n---\nkind: Channel\nname: bench\nproduct: farm\nmode: strict\n")
    keys = (f"T{number:06}" for number in range(DEVICES))
    return head + "".join(f"---\nkind: Device\nname: {key}\nproduct: farm\nkey: {key}\n" for key in keys)


# --- Backtide ---

def throughput(plan, order):
    """As fast as replies come; then the disk, a read of a million points over files that overlap, and the same once
    compacted; then everything is read back and compared."""
    with plan.farm() as (gateway, channel):
        after = {}

        def between(sent):
            cpu_s = machine.cpu_s(gateway.pid)
            after["files"] = gateway.files()
            after["read"] = read_a_million(gateway, sent)
            machine.settle([gateway.pid])
            compacted = gateway.compact()
            after["settlingCpuSeconds"] = machine.cpu_s(gateway.pid) - cpu_s  # the reads too
            after["compacted"] = {**compacted, "bytesPerValue": compacted["segmentBytes"] / sent["pointsUnique"],
                                  "files": gateway.files(), "read": read_a_million(gateway, sent)}
        sent = load.send_and_check(gateway, channel, "--order", order, "--seconds", plan.seconds, between=between)
        return {**sent, **after}


def paced(plan, points_per_second, order="shuffled", reading=False):
    """Latency of replies at a rate; `reading` reads a million points again and again meanwhile."""
    with plan.farm() as (gateway, channel):
        seconds = max(5, plan.seconds // 2)
        reads = []

        def read(process):
            sent = {"rowsUnique": 0}
            end = time.monotonic() + seconds - 1
            start = time.monotonic()
            while time.monotonic() < end and process.poll() is None:
                time.sleep(2)
                sent["rowsUnique"] = points_per_second * (time.monotonic() - start) / len(POINTS)
                reads.append({**read_a_million(gateway, sent, times=1), "overlapping": gateway.files()["overlapping"]})
        sent = load.send(gateway.mqtt, [gateway], "--order", order, "--rate", points_per_second, "--seconds", seconds,
                         "--window", 250, secret=channel["secret"], product_key=channel["productKey"],
                         meanwhile=read if reading else None)
        return {**sent, "rate": points_per_second, "reads": reads}


def rollups(plan, order):
    """What upkeep of an hourly rollup of all points costs, as fast as replies come, until all is at rest."""
    with plan.farm() as (gateway, channel):
        gateway.cli("apply", "-f", "-", input=ROLLUP)
        before, upkeep_before = machine.cpu_s(gateway.pid), upkeep_s(gateway.pid)
        sent = load.send(gateway.mqtt, [gateway], "--order", order, "--seconds", plan.seconds,
                         secret=channel["secret"], product_key=channel["productKey"])
        loaded = upkeep_s(gateway.pid) - upkeep_before
        wait_for_rollups(gateway)
        machine.settle([gateway.pid])
        cpu_s, upkeep = machine.cpu_s(gateway.pid) - before, upkeep_s(gateway.pid) - upkeep_before
        _, _, body = gateway.request("GET", "/api/v1/rollups")
        rows = sum(one["rowsComputed"] for one in json.loads(body)["items"])
        return {**sent, "cpuSeconds": cpu_s, "upkeepSeconds": upkeep, "upkeepSecondsLoaded": loaded, "rollupRows": rows,
                "share": upkeep / (cpu_s - upkeep)}


def upkeep_s(pid):
    """CPU of the thread that keeps rollups, and of threads that have ended: those it read with."""
    used = machine.threads_cpu_s(pid)
    return used[None] + used["derive"]


ROLLUP = """
kind: Policy
name: bench
models: [turbine]
analysis:
  - rollup: hours
    interval: 1h
    functions: [count, min, max, avg]
"""


def wait_for_rollups(gateway, within_s=300):
    """Until everything answered is in every rollup."""
    end = time.monotonic() + within_s
    while True:
        _, _, body = gateway.request("GET", "/api/v1/rollups")
        standings = json.loads(body)["items"]
        if standings and all(one["state"] == "current" for one in standings):
            return
        if time.monotonic() > end:
            raise Failed(f"rollups are not current after {within_s} s: {standings}")
        time.sleep(0.2)


PROCESSING = {
    "none": "",
    "steps": "  - points: [P_avg]\n    scale: { factor: 1.5, offset: -40 }\n  - points: [P_avg]\n    unit: { from: W, to: kW }\n"
             "  - points: [P_avg]\n    clamp: { min: -1000, max: 1000 }\n",
    "expression": "  - points: [P_avg]\n    expression: P_avg * 1.5 - 40\n",
    "script": "  - points: [P_avg]\n    script:\n      reads: [P_avg]\n      source: |\n"
              "        function transform(row) { return row.P_avg * 1.5 - 40; }\n",
    # The same, but with a form that is not plain.
    "script of an engine": "  - points: [P_avg]\n    script:\n      reads: [P_avg]\n      source: |\n"
                           "        let engine;\n        function transform(row) { return row.P_avg * 1.5 - 40; }\n",
}


def policies(plan):
    """The load in order with a policy for one of the seven points of each row, beside the same without one: CPU of the
    server and its workers for a value."""
    found = {}
    for name, steps in PROCESSING.items():
        with plan.farm() as (gateway, channel):
            if steps:
                gateway.cli("apply", "-f", "-", input=f"kind: Policy\nname: bench\nmodels: [turbine]\nprocessing:\n{steps}")
            found[name] = load.send(gateway.mqtt, [gateway], "--order", "in-order", "--seconds", max(5, plan.seconds // 4),
                                    secret=channel["secret"], product_key=channel["productKey"])
    return {"with": found}


def small_messages(plan):
    """200 clients that wait for each reply before they send the next row: what a message costs."""
    with plan.farm() as (gateway, channel):
        sent = load.send(gateway.mqtt, [gateway], "--connections", 200, "--window", 1, "--rows", 1,
                         "--seconds", max(5, plan.seconds // 6),
                         secret=channel["secret"], product_key=channel["productKey"])
        return {**sent, "messagesPerSecond": sent["messages"] / sent["seconds"],
                "serverCpuMicrosecondsPerMessage": sent["serverCpuSeconds"]["backtide"] / sent["messages"] * 1e6}


FRAME_SCRIPT = ROOT / "crates/gateway/examples/frame40.js"


def decodes(plan):
    """Frames of 40 bytes with six points, decoded in worker processes: CPU of workers and of the exchange, nothing else.
    Decoders of others too where the outside suite's are installed."""
    bench = plan.binary.parent / "examples/decode_bench"
    if not bench.exists():
        raise Failed(f"{bench} is not there; `cargo build --release --example decode_bench` builds it")
    found = []
    foreign = ROOT / ".tools/decoders"
    if foreign.exists():
        listed = plan.work / "decoders.json"
        with open(listed, "w") as out:
            subprocess.run(["node", ROOT / "tests/outside/clients/decoders.cjs", foreign, "1700000000000"], stdout=out, check=True)
        found = [listed]
    done = subprocess.run([bench, plan.binary, *found], capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise Failed(f"decode_bench ended with {done.returncode}: {done.stderr[-2000:]}")
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def raw_channel(plan, keep_state):
    """The same frames over MQTT: decoded, checked, stored, answered."""
    with Gateway(plan.work, plan.binary) as gateway:
        text = objects().replace("format: json", "format: custom")
        source = FRAME_SCRIPT.read_text()
        script = {"kind": "Script", "name": "frames", "product": "farm", "source": source}
        if keep_state:
            empty = "0" * 80
            frame = "00000001" + "0002" + "0007" + "0000018bcfe56800" + "0000000a" * 6
            values = {point: 0.1 for point in POINTS[:6]}
            script |= {"keepState": True, "golden": [{"decode": frame, "expect": frame_envelope("1-2", "T000007", 1700000000000, values)},
                                                     {"decode": empty, "expect": frame_envelope("0-0", "T000000", 0, dict.fromkeys(values, 0))}]}
        gateway.cli("apply", "-f", "-", input=text)
        gateway.cli("apply", "-f", "-", input=json.dumps(script))
        channel = json.loads(gateway.cli("channel", "show", "bench", "-o", "json"))
        sent = load.send(gateway.mqtt, [gateway], "--raw", "--connections", 8, "--window", 500, "--seconds", max(5, plan.seconds // 4),
                         secret=channel["secret"], product_key=channel["productKey"])
        cpu_s = sent["serverCpuSeconds"]["backtide"]
        return {**sent, "messagesPerSecond": sent["messages"] / sent["seconds"], "messagesPerServerCpuSecond": sent["messages"] / cpu_s,
                "serverCpuMicrosecondsPerMessage": cpu_s / sent["messages"] * 1e6}


def frame_envelope(id, device, time_ms, values):
    return {"id": id, "version": "1.0", "method": "integration.measurepoint.post",
            "params": [{"deviceKey": device, "time": time_ms, "measurepoints": values}]}


SUBSCRIPTION = "{kind: AccessKey, name: bench}\n---\n{kind: Subscription, name: bench, accessKey: bench, begin: oldest}\n"


def subscriber(plan):
    """From a prepared log to a subscription, from there to one subscriber, and both at once while more comes in."""
    with plan.farm() as (gateway, channel):
        def load_for(seconds, *options, **more):
            return load.send(gateway.mqtt, [gateway], "--order", "in-order", "--seconds", seconds, *options, **more,
                             secret=channel["secret"], product_key=channel["productKey"])

        sent = load_for(max(3, plan.seconds // 6))
        machine.settle([gateway.pid])
        key = subscribe(gateway)
        rows = sent["points"] // len(POINTS)
        taken = taken_up(gateway, rows)
        pulled = load.pull(gateway, key, rows)
        following = {}

        def follow(process):
            following.update(load.pull(gateway, key, int(max(5, plan.seconds // 3) * FOLLOWED_ROWS_PER_SECOND * 0.9)))
        load_for(max(5, plan.seconds // 3), "--rate", FOLLOWED_ROWS_PER_SECOND * len(POINTS), meanwhile=follow)
        standing = status(gateway)
        return {"takenUp": taken, "pulled": pulled, "following": following,
                "bytesPerRow": standing["bytes"] / sum(partition["next"] for partition in standing["partitions"])}


FOLLOWED_ROWS_PER_SECOND = 50_000


def subscribe(gateway):
    gateway.cli("apply", "-f", "-", input=SUBSCRIPTION)
    return json.loads(gateway.cli("access-key", "show", "bench", "-o", "json"))


def status(gateway):
    return json.loads(gateway.cli("subscription", "show", "bench", "-o", "json"))


def taken_up(gateway, rows):
    """How long until the subscription holds what the log has, and what it cost."""
    cpu_s, start = machine.cpu_s(gateway.pid), time.monotonic()
    while (now := status(gateway))["behind"] > 0:
        time.sleep(0.1)
    seconds, cpu_s = time.monotonic() - start, machine.cpu_s(gateway.pid) - cpu_s
    held = sum(partition["next"] for partition in now["partitions"])
    if held != rows or now["skippedCommits"]:
        raise Failed(f"the subscription holds {held} rows of {rows}, {now['skippedCommits']} commits were gone")
    return {"rows": held, "seconds": seconds, "rowsPerSecond": held / seconds, "cpuMicrosecondsPerRow": cpu_s / held * 1e6}


RULE = """
kind: Rule
name: default-points
from: {{ type: points }}
begin: oldest
to: {{ kafka: {{ topic: "{topic}", guarantee: {guarantee} }} }}
"""


def kafka(plan):
    """From a prepared log to Kafka under each guarantee, and while more comes in; beside it rdkafka's own producer with
    records of the same size. CPU is that of Backtide's own process; Kafka's is not counted."""
    with Kafka(plan.work) as broker, plan.farm(f'[kafka]\nbootstrap_servers = "{broker.address}"\n') as (gateway, channel):
        def load_for(seconds, *options, **more):
            return load.send(gateway.mqtt, [gateway], "--order", "in-order", "--seconds", seconds, *options, **more,
                             secret=channel["secret"], product_key=channel["productKey"])

        gateway.cli("rule", "stop", "default-points")
        rows = load_for(max(3, plan.seconds // 6))["points"] // len(POINTS)
        machine.settle([gateway.pid])
        done = {}
        for guarantee in ("at-least-once", "exactly-once"):
            name = f"bench-{guarantee}"
            rule = RULE.format(topic=name, guarantee=guarantee).replace("default-points", name)
            done[guarantee] = caught_up(gateway, name, rows, lambda: gateway.cli("apply", "-f", "-", input=rule))
        load_for(max(5, plan.seconds // 3), "--rate", FOLLOWED_ROWS_PER_SECOND * len(POINTS))
        done["lagAfterFollowing"] = rule_standing(gateway, "bench-at-least-once")["lag"]
        done["ceiling"] = ceiling(plan, broker, rows)
        return done


def kafka_down(plan):
    """Replies while Kafka does not answer and the default rules wait for it, beside those of a gateway that has no Kafka:
    in turns, three of each, at half the target."""
    latency = {"without": [], "down": []}
    for _ in range(3):
        for name, settings in (("without", ""), ("down", f'[kafka]\nbootstrap_servers = "127.0.0.1:{free_port()}"\n')):
            with plan.farm(settings) as (gateway, channel):
                sent = load.send(gateway.mqtt, [gateway], "--order", "shuffled", "--rate", TARGET_POINTS_PER_SECOND // 2,
                                 "--seconds", max(5, plan.seconds // 6), "--window", 250, secret=channel["secret"],
                                 product_key=channel["productKey"])
                latency[name].append(sent["latencyMs"])
    p99 = {name: median(run["p99"] for run in runs) for name, runs in latency.items()}
    return {"latencyMs": latency, "p99Ms": p99, "ratio": p99["down"] / p99["without"]}


def rule_standing(gateway, name):
    return json.loads(gateway.cli("rule", "show", name, "-o", "json"))


def caught_up(gateway, name, rows, begin):
    """How long until the rule has published what the log has, and what it cost."""
    cpu_s, start = machine.cpu_s(gateway.pid), time.monotonic()
    begin()
    while (now := rule_standing(gateway, name))["published"] < rows:
        if time.monotonic() - start > 600:
            raise Failed(f"{name} has published {now['published']} rows of {rows}: {now}")
        time.sleep(0.2)
    seconds, cpu_s = time.monotonic() - start, machine.cpu_s(gateway.pid) - cpu_s
    return {"rows": rows, "seconds": seconds, "rowsPerSecond": rows / seconds, "cpuMicrosecondsPerRow": cpu_s / rows * 1e6}


def ceiling(plan, broker, rows):
    bench = plan.binary.parent / "examples/kafka_ceiling"
    if not bench.exists():
        raise Failed(f"{bench} is not there; `cargo build --release --example kafka_ceiling` builds it")
    done = subprocess.run([bench, broker.address, "bench-at-least-once", str(rows), str(MESSAGE_BYTES)], capture_output=True,
                          text=True, timeout=600)
    if done.returncode:
        raise Failed(f"kafka_ceiling ended with {done.returncode}: {done.stderr[-2000:]}")
    sent = json.loads(done.stdout)
    return {**sent, "rowsPerSecond": sent["rows"] / sent["seconds"],
            "cpuMicrosecondsPerRow": sent["cpuSeconds"] / sent["rows"] * 1e6}


# A row of seven points as the published text, about.
MESSAGE_BYTES = 480


def waiting_subscribers(plan):
    """Sessions with a pull that finds nothing, after a pull that found nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8_000)), hard))  # each end of each connection is a file
    settings = "[subscribe]\nconnections_per_address_max = 10000\n"
    with plan.farm(settings) as (gateway, _):
        return load.wait(gateway, subscribe(gateway), 5_000)


def idle(plan):
    with plan.farm() as (gateway, channel):
        return load.idle(gateway, channel, 900)


def real_history(plan):
    """Two years of four turbines through `backtide send`, compacted: bytes a value."""
    with Gateway(plan.work, plan.binary) as gateway:
        gateway.cli("apply", "-f", ROOT / "examples/la-haute-borne/farm.yaml")
        before, start = machine.cpu_s(gateway.pid), time.monotonic()
        sent = json.loads(gateway.cli("send", plan.history, "--channel", "scada-history", "-o", "json",
                                      "--device-column", "Wind_turbine_name", "--time-column", "Date_time"))
        seconds, cpu_s = time.monotonic() - start, machine.cpu_s(gateway.pid) - before
        compacted = gateway.compact()
        text = gateway.cli("query", "--product", "wind-farm", "--device", "R80711,R80721,R80736,R80790",
                           "--points", ",".join(POINTS), "--from", "2013-01-01T00:00:00Z", "--to", "2017-01-01T00:00:00Z",
                           "-o", "csv")
        values = sum(1 for row in csv.DictReader(io.StringIO(text)) for point in POINTS if row[point])
        return {"sent": sent, "seconds": seconds, "serverCpuSeconds": cpu_s, "valuesThere": values,
                "compacted": compacted, "bytesPerValue": compacted["segmentBytes"] / values}


def read_a_million(gateway, sent, times=3):
    """Range reads of about a million points, all that some devices have, as CSV over HTTP; the median of `times`.

    From outside: until the last byte. Inside: as the server itself says in a Server-Timing trailer, from the request to the last
    row written, without the time that it waited for the client.
    """
    rows_a_device = max(1, sent["rowsUnique"] / DEVICES)
    devices = min(DEVICES, max(1, round(1_000_000 / len(POINTS) / rows_a_device)))
    keys = ",".join(f"T{number * (DEVICES // devices):06}" for number in range(devices))
    path = (f"/api/v1/points?product=farm&device={keys}&points={','.join(POINTS)}&from=2014-01-01T00:00:00Z"
            "&to=2100-01-01T00:00:00Z&format=csv")
    before, outside, inside = machine.cpu_s(gateway.pid), [], []
    for _ in range(times):
        seconds, headers, body = gateway.request("GET", path)
        outside.append(seconds)
        if timing := re.search(r"dur=([0-9.]+)", headers.get("Server-Timing", "")):
            inside.append(float(timing[1]) / 1000)
    read = {"points": (body.count(b"\n") - 1) * len(POINTS), "seconds": median(outside),
            "serverCpuSeconds": (machine.cpu_s(gateway.pid) - before) / times}
    return {**read, "serverSeconds": median(inside)} if inside else read


# --- what a user would take instead ---

def mosquitto(plan):
    """The same messages, queued for a subscriber that is away, then saved to its file. It acknowledges before it saves,
    and syncs nothing. Bounded in messages: it holds them all in memory."""
    messages = 4_000 if plan.quick else 30_000
    with Mosquitto(plan.work) as broker:
        broker.keep_for_absent("/sys/+/integration/measurepoint/post")
        before, start = machine.cpu_s(broker.pid), time.monotonic()
        sent = load.send(broker.mqtt, [broker], "--answer", "ack", "--messages", messages, "--seconds", plan.seconds)
        data_bytes = broker.save()
        seconds, cpu_s = time.monotonic() - start, machine.cpu_s(broker.pid) - before
        return {**sent, "secondsUntilSaved": seconds, "serverCpuSecondsUntilSaved": cpu_s,
                "pointsPerSecondUntilSaved": sent["points"] / seconds,
                "pointsPerServerCpuSecondUntilSaved": sent["points"] / cpu_s, "dataBytes": data_bytes}


def stack(plan, database_kind, order):
    """Mosquitto → writer → database. The writer replies once the database has committed."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(database_kind(plan.work))
        database.prepare(DEVICES)
        broker = stack.enter_context(Mosquitto(plan.work))
        writer = stack.enter_context(Writer(plan.work, broker, database))
        servers = [broker, writer, database]
        sent = load.send(broker.mqtt, servers, "--own-topics", "--order", order, "--seconds", plan.seconds)
        settling_cpu_s = machine.settle([server.pid for server in servers])
        rows = database.rows()
        if rows != sent["rowsUnique"]:
            raise Failed(f"{database.name} holds {rows} rows of {sent['rowsUnique']}")
        return {**sent, "settlingCpuSeconds": settling_cpu_s, "dataBytes": database.data_bytes(),
                "bytesPerValue": database.data_bytes() / sent["pointsUnique"]}


# --- all of them, in the order of a run ---

def backtide_scenarios(plan):
    """(name, what to run) with a figure of an earlier scenario where a later one needs it."""
    yield "in-order", lambda done: throughput(plan, "in-order")
    yield "shuffled", lambda done: throughput(plan, "shuffled")
    yield "half-target", lambda done: paced(plan, TARGET_POINTS_PER_SECOND / 2)
    yield "half-own", lambda done: paced(plan, done["shuffled"]["pointsPerSecond"] / 2)
    yield "half-target-reading", lambda done: paced(plan, TARGET_POINTS_PER_SECOND / 2, reading=True)
    yield "rollups-in-order", lambda done: rollups(plan, "in-order")
    yield "rollups-shuffled", lambda done: rollups(plan, "shuffled")
    yield "policies", lambda done: policies(plan)
    yield "small-messages", lambda done: small_messages(plan)
    yield "decodes", lambda done: decodes(plan)
    yield "raw-channel", lambda done: raw_channel(plan, keep_state=True)
    yield "raw-channel-default", lambda done: raw_channel(plan, keep_state=False)
    yield "subscriber", lambda done: subscriber(plan)
    yield "kafka", lambda done: kafka(plan)
    yield "kafka-down", lambda done: kafka_down(plan)
    yield "waiting-subscribers", lambda done: waiting_subscribers(plan)
    yield "idle", lambda done: idle(plan)
    yield "real-history", lambda done: real_history(plan)
    yield "queries", lambda done: queries(plan)
    yield "sql", lambda done: sql(plan)


def peer_scenarios(plan):
    yield "mosquitto", lambda done: mosquitto(plan)
    for kind in (Influxdb, Postgresql):
        for order in ("in-order", "shuffled"):
            yield f"{kind.name}-{order}", lambda done, kind=kind, order=order: stack(plan, kind, order)
