"""The results as one table, and the targets of the product beside what was measured."""

from statistics import mean, median

MIB = 1 << 20


def show(results, say):
    rounds = results["rounds"]
    say(machine_line(results))
    say("")
    throughput_table(rounds, say)
    others(rounds, say)
    targets(rounds, say)


def machine_line(results):
    machine = results["machine"]
    shares = [run["neighboursCores"] for done in results["rounds"] for run in done.values()]
    return (f"{machine['cores']} cores of {machine['cpu']}, {machine['memoryBytes'] / (1 << 30):.0f} GiB, kernel "
            f"{machine['kernel']}; other work on the machine kept {mean(shares or [0]):.1f} cores busy "
            f"(at most {max(shares or [0]):.1f})")


SYSTEMS = [
    ("backtide", {"in-order": "in-order", "shuffled": "shuffled"}),
    ("mosquitto, queued, no sync", {"in-order": "mosquitto"}),
    ("mosquitto → writer → influxdb", {"in-order": "influxdb-in-order", "shuffled": "influxdb-shuffled"}),
    ("mosquitto → writer → postgresql", {"in-order": "postgresql-in-order", "shuffled": "postgresql-shuffled"}),
]


def throughput_table(rounds, say):
    """Thousands of points a second: by the wall clock, by CPU second of all servers while the load ran, and with what
    they still did afterwards until they rested. In brackets: how many times Backtide's figure is as large."""
    say(f"{'thousand points per':31} {'order':9} {'second':>7} {'':7} {'slowest':>7}  {'CPU-s':>6} {'':7} "
        f"{'..at rest':>9} {'':7} {'bytes/value':>11} {'p99 ms':>7}")
    for system, by_order in SYSTEMS:
        for order, name in by_order.items():
            runs, own = of(rounds, name), of(rounds, order)
            if not runs:
                continue
            cells = [(wall, 7), (cpu, 6), (at_rest, 9)]
            text = []
            for figure, width in cells:
                value = median(map(figure, runs))
                ratio = f"({median(map(figure, own)) / value:.1f}×)" if own and system != "backtide" else ""
                text.append(f"{value / 1000:{width},.0f} {ratio:7}")
            slowest = [run["pointsPerSecondSlowest"] for run in runs if run["pointsPerSecondSlowest"]]
            slowest = f"{median(slowest) / 1000:,.0f}" if slowest else "–"
            say(f"{system:31} {order:9} {text[0]} {slowest:>7}  {text[1]} {text[2]} "
                f"{median(map(bytes_a_value, runs)):11.2f} {median(run['latencyMs']['p99'] for run in runs):7.1f}")
    say("")


def wall(run):
    return run.get("pointsPerSecondUntilSaved") or run["pointsPerSecond"]


def cpu(run):
    return run["points"] / sum(run["serverCpuSeconds"].values())


def at_rest(run):
    if "serverCpuSecondsUntilSaved" in run:
        return run["points"] / run["serverCpuSecondsUntilSaved"]
    return run["points"] / (sum(run["serverCpuSeconds"].values()) + run["settlingCpuSeconds"])


def bytes_a_value(run):
    if "compacted" in run:
        return run["compacted"]["bytesPerValue"]
    return run["dataBytes"] / run["pointsUnique"]


def others(rounds, say):
    def line(what, text):
        say(f"{what:45} {text}")

    for order in ("in-order", "shuffled"):
        for run in of(rounds, order)[:1]:
            line(f"generator, {order}", f"{run['generatorCpuSeconds'] / run['seconds']:.3f} cores, "
                 f"{run['points'] / run['generatorCpuSeconds'] / 1e6:.0f} M points per CPU-s")
            line(f"server, {order}", f"{sum(run['serverCpuSeconds'].values()) / run['seconds']:.2f} cores, resident at most "
                 f"{sum(run['serverResidentBytesMax'].values()) / MIB:.0f} MiB")
            files = run["files"]
            line(f"disk after the load, {order}", f"journal {files['journalBytes'] / MIB:.0f} MiB, {files['segments']} segments of "
                 f"{files['segmentBytes'] / MIB:.0f} MiB, at most {files['overlapping']} overlapping; compacted {run['compacted']['segments']} of "
                 f"{run['compacted']['segmentBytes'] / MIB:.0f} MiB in {run['compacted']['seconds']:.1f} s")
            line(f"read back and compared, {order}", f"{run['check']['rows']:,} rows, {run['check']['values']:,} values in "
                 f"{run['check']['seconds']:.1f} s: none missing, none wrong")
            line(f"range read after the load, {order}", read_text(run["read"]))
            line(f"range read compacted, {order}", read_text(run["compacted"]["read"]))
    for name in ("half-target", "half-own", "half-target-reading"):
        for run in of(rounds, name)[:1]:
            latency = run["latencyMs"]
            line(f"reply at {run['rate'] / 1e3:,.0f} k points/s ({name})", f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, "
                 f"p99.9 {latency['p999']:.1f} ms, max {latency['max']:.1f} ms")
            if run["reads"]:
                slowest = max(run["reads"], key=lambda read: read.get("serverSeconds", read["seconds"]))
                line("range reads meanwhile", f"{len(run['reads'])}, slowest: {read_text(slowest)} over up to {slowest['overlapping']} files")
    for order in ("in-order", "shuffled"):
        for run in of(rounds, f"rollups-{order}")[:1]:
            line(f"upkeep of an hourly rollup, {order}", f"{run['share']:.0%} of the rest of the server's CPU: {run['upkeepSeconds']:.1f} of "
                 f"{run['cpuSeconds']:.1f} s, {run['upkeepSecondsLoaded']:.1f} of it during the load; {run['points']:,} values, {run['rollupRows']:,} windows")
    for run in of(rounds, "policies")[:1]:
        cost = {name: sum(one["serverCpuSeconds"].values()) / one["points"] for name, one in run["with"].items()}
        for name, one in run["with"].items():
            line(f"a policy of one point in seven: {name}", f"{one['pointsPerSecond'] / 1e3:,.0f} k points/s, CPU of the server and its workers "
                 f"{cost[name] * 1e6:.2f} µs a value, {cost[name] / cost['none']:.2f} times that without")
    for run in of(rounds, "small-messages")[:1]:
        line("200 clients, one row, one message in flight", f"{run['messagesPerSecond']:,.0f} messages/s, "
             f"{run['serverCpuMicrosecondsPerMessage']:.1f} µs of server CPU each, p99 {run['latencyMs']['p99']:.1f} ms")
    for run in of(rounds, "decodes")[:1]:
        for name in ("kept", "default", "kept, encode"):
            line(f"decodes of 40 bytes, {name}", f"{run[name]['perCpuSecond']:,.0f} per CPU-s, {run[name]['cpuMicroseconds']:.1f} µs each")
        for mode in ("kept", "default"):
            foreign = [one["cpuMicroseconds"] for name, one in run.items() if name.endswith(f", {mode}")]
            if foreign:
                line(f"{len(foreign)} decoders of others, {mode}", f"median {median(foreign):.0f} µs, mean {sum(foreign) / len(foreign):.0f} µs")
    for name in ("raw-channel", "raw-channel-default"):
        for run in of(rounds, name)[:1]:
            line(f"{name}, 40 bytes a message", f"{run['messagesPerSecond']:,.0f} messages/s, {run['messagesPerServerCpuSecond']:,.0f} per CPU-s, "
                 f"{run['serverCpuMicrosecondsPerMessage']:.1f} µs of server CPU each")
    for run in of(rounds, "subscriber")[:1]:
        for what, title in (("takenUp", "log to subscription"), ("pulled", "subscription to one subscriber"),
                            ("following", "one subscriber, following 50 k rows/s")):
            line(title, f"{run[what]['rowsPerSecond']:,.0f} rows/s, {run[what]['cpuMicrosecondsPerRow']:.1f} µs of server CPU each")
        line("a row kept for subscribers", f"{run['bytesPerRow']:.0f} bytes on disk")
    for run in of(rounds, "kafka")[:1]:
        for what, title in (("at-least-once", "log to Kafka, at least once"), ("exactly-once", "log to Kafka, exactly once"),
                            ("ceiling", "rdkafka's own producer")):
            line(title, f"{run[what]['rowsPerSecond'] / 1000:.0f} k rows/s, {run[what]['cpuMicrosecondsPerRow']:.1f} µs CPU a row")
    for run in of(rounds, "kafka-down")[:1]:
        line("p99 of replies, Kafka down from the start", f"{run['p99Ms']['down']:.1f} ms, without Kafka {run['p99Ms']['without']:.1f} ms "
             f"({run['ratio']:.2f}×)")
    for run in of(rounds, "waiting-subscribers")[:1]:
        line(f"{run['connections']} subscribers that wait", f"{run['residentBytesPerConnection'] / 1024:.1f} KiB resident each")
    for run in of(rounds, "idle")[:1]:
        line(f"{run['connections']} idle connections", f"{run['residentBytesPerConnection'] / 1024:.1f} KiB resident each")
    for run in of(rounds, "real-history")[:1]:
        line("two years of La Haute Borne", f"{run['valuesThere']:,} values sent in {run['seconds']:.1f} s, compacted "
             f"{run['bytesPerValue']:.3f} bytes a value")
    for run in of(rounds, "queries")[:1]:
        one, latest = run["aggregate"], run["latest"]
        line(f"a year hourly of {one['devices']} devices", f"{one['rows']:,} windows of {one['values']:,} values: Arrow {beside(one['arrow'])}, "
             f"CSV {beside(one['csv'])}; DuckDB {beside(one['duckdb'])}")
        line(f"the latest of {latest['devices']:,} devices", f"{beside(latest)}; DuckDB {beside(latest['duckdb'])}")
    for run in of(rounds, "sql")[:1]:
        for question, answer in run["answers"].items():
            line(f"SQL over {run['values']:,} values, {question}", f"{answer['rows']:,} rows: {beside(answer)}; DuckDB {beside(answer['duckdb'])}")
    say("")


def beside(run):
    return f"{run['seconds'] * 1000:.0f} ms, {run['cpuSeconds'] * 1000:.0f} ms of CPU"


def read_text(read):
    inside = f"{read['serverSeconds'] * 1000:.0f} ms inside the server, " if "serverSeconds" in read else ""
    return (f"{read['points']:,} points: {inside}{read['seconds'] * 1000:.0f} ms from outside, "
            f"{read['serverCpuSeconds'] * 1000:.0f} ms of server CPU")


def ms_for_a_million(read):
    """Inside the server where it says so, else from outside, which is more."""
    return read.get("serverSeconds", read["seconds"]) * 1e9 / max(1, read["points"])


def targets(rounds, say):
    def line(what, limit, values, better):
        values = [value for value in values if value is not None]
        if values:
            value = median(values)
            met = value >= limit if better == "more" else value < limit
            say(f"{'met   ' if met else 'MISSED'} {what}: {value:,.3g} (target: {'at least' if better == 'more' else 'under'} {limit:,g})")

    for order in ("in-order", "shuffled"):
        runs = of(rounds, order)
        line(f"million points/s, {order}", 1, [run["pointsPerSecond"] / 1e6 for run in runs], "more")
        line(f"resident MB, {order}", 500, [sum(run["serverResidentBytesMax"].values()) / 1e6 for run in runs], "less")
        for when, find in (("after the load", lambda run: run), ("compacted", lambda run: run["compacted"])):
            reads = [find(run)["read"] for run in runs]
            line(f"ms for a million points {when}, {order}", 150, list(map(ms_for_a_million, reads)), "less")
    line("p99 of replies in ms at 500 k points/s", 100, [run["latencyMs"]["p99"] for run in of(rounds, "half-target")], "less")
    line("decodes per CPU-s, kept state", 60_000, [run["kept"]["perCpuSecond"] for run in of(rounds, "decodes")], "more")
    line("raw messages per CPU-s", 30_000, [run["messagesPerServerCpuSecond"] for run in of(rounds, "raw-channel")], "more")
    line("KiB resident a subscriber that waits", 20,
         [run["residentBytesPerConnection"] / 1024 for run in of(rounds, "waiting-subscribers")], "less")
    line("bytes a value, two real years", 2.2, [run["bytesPerValue"] for run in of(rounds, "real-history")], "less")


def of(rounds, name):
    return [done[name] for done in rounds if name in done]
