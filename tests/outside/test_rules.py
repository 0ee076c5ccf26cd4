"""Rules: what is stored goes on, complete and in order, whatever happens to the gateway or to where it goes."""

import collections
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import pytest

from world import CHANNEL, CSV_COLUMNS, FAILED, PARTIAL, PRODUCT, SAMPLE, eventually, points_message

T0 = 1_388_534_400_000
DEFAULTS = ["default-attributes", "default-calculated", "default-events", "default-points"]


class Hook:
    """A webhook of nobody here: keeps what it took, refuses as it is told."""

    def __init__(self, port=0):
        self.lines, self.requests, self.headers = [], 0, []
        self.refuse = lambda body: None
        # The only `authorization` that is let in, where there is one.
        self.admits = None
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                hook.requests += 1
                is_admitted = hook.admits in (None, self.headers["authorization"])
                status = hook.refuse(body) or 200 if is_admitted else 401
                if status == 200:
                    hook.headers.append(dict(self.headers))
                    hook.lines.extend(json.loads(line) for line in body.splitlines())
                answer = b"no" if status != 200 else b""
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/in"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hooks():
    made = []

    def make(port=0):
        made.append(Hook(port))
        return made[-1]

    yield make
    for hook in made:
        hook.close()


@pytest.fixture
def hook(hooks):
    return hooks()


def rule(name, hook, more="", options=""):
    return f"kind: Rule\nname: {name}\n{more}\nto: {{ webhook: {{ url: '{hook.url}', format: records{options} }} }}\n"


def status(gateway, name):
    return gateway.http("GET", f"/api/v1/rules/{name}/status").json()


def caught_up(gateway, name, within_s=60):
    def is_there():
        now = status(gateway, name)
        return now["state"] == "running" and now["lag"] == 0 and "replay" not in now
    eventually(is_there, lambda: f"{status(gateway, name)}", within_s)
    return status(gateway, name)


def send(client, count, start=0, device="R80711", point="P_avg"):
    """`count` messages of a row each; the value is the number."""
    for n in range(start, start + count):
        assert client.post((device, T0 + n * 1000, {point: float(n)}))["code"] == 200


def numbers(lines, point="P_avg"):
    return [line["value"]["payload"][0]["measurepoints"][point] for line in lines]


def identity(line):
    return line["headers"]["backtide-receipt"], line["headers"]["backtide-sequence"]


def test_the_sample_arrives_complete_and_each_device_in_order(farm, hook):
    farm.apply(rule("all", hook))
    farm.send(SAMPLE, *CSV_COLUMNS)
    caught_up(farm, "all")
    cells, per_device = {}, collections.defaultdict(list)
    for line in hook.lines:
        value = line["value"]
        payload, = value["payload"]
        assert line["key"] == value["assetId"] and line["headers"]["backtide-channel"] == CHANNEL
        assert line["headers"]["backtide-schema"] == "1"
        store, commit = line["headers"]["backtide-receipt"].split("-")
        per_device[value["deviceKey"]].append((int(commit), int(line["headers"]["backtide-sequence"])))
        for point, number in payload["measurepoints"].items():
            cells[value["deviceKey"], value["time"], point] = number
    assert cells == farm.cells()
    for places in per_device.values():
        assert places == sorted(places)
    assert len({identity(line) for line in hook.lines}) == len(hook.lines)


def test_what_a_kill_interrupts_is_delivered_and_repeats_have_the_same_identity(farm, connect, hook):
    farm.apply(rule("all", hook, options=", recordsMax: 7"))
    client = connect()
    for round in range(3):
        send(client, 100, start=round * 100)
        farm.kill()
        farm.start()
        client = connect()
    caught_up(farm, "all")
    seen = {}
    for line in hook.lines:
        number = numbers([line])[0]
        assert seen.setdefault(identity(line), number) == number
    assert sorted(seen.values()) == [float(n) for n in range(300)]


def test_a_destination_that_is_down_from_the_start_delays_only_its_rule(farm, connect, hooks):
    gone, there = hooks(), hooks()
    gone.close()
    farm.apply(rule("gone", gone))
    farm.apply(rule("there", there))
    send(connect(), 50)
    caught_up(farm, "there")
    assert numbers(there.lines) == [float(n) for n in range(50)]
    failing = status(farm, "gone")
    assert failing["lag"] > 0 and "no connection" in failing["error"]["reason"]
    assert any("rule gone" in warning for warning in farm.http("GET", "/readyz").json()["warnings"])
    listed = {row["name"]: row for row in farm.cli("rule", "ls", "-o", "csv").csv()}
    assert listed["gone"]["state"] == "failing" and listed["there"]["state"] == "running"
    back = hooks(gone.port)
    caught_up(farm, "gone")
    assert numbers(back.lines) == [float(n) for n in range(50)]
    metrics = farm.http("GET", "/metrics").text
    assert 'backtide_rule_published_total{rule="gone"} 50' in metrics
    assert 'backtide_rule_lag_commits{rule="gone"} 0' in metrics


def test_poison_waits_as_a_dead_letter_until_it_is_driven_again(farm, connect, hook):
    hook.refuse = lambda body: 422 if '"P_avg":7.0' in body else None
    farm.apply(rule("all", hook))
    send(connect(), 20)
    done = caught_up(farm, "all")
    assert done["deadLetters"] == 1 and done["published"] == 19
    assert numbers(hook.lines) == [float(n) for n in range(20) if n != 7]
    letter, = farm.cli("rule", "dead-letters", "ls", "all", "-o", "json").json()
    assert letter["cause"] == "refused" and "422" in letter["reason"] and letter["channel"] == CHANNEL
    shown = farm.cli("rule", "dead-letters", "show", "all", str(letter["id"])).json()
    assert shown["message"]["payload"][0]["measurepoints"] == {"P_avg": 7.0}
    farm.restart()
    hook.refuse = lambda body: None
    farm.cli("rule", "dead-letters", "redrive", "all", "--all")
    eventually(lambda: status(farm, "all").get("deadLetters") == 0, "the letter is delivered")
    assert numbers(hook.lines)[-1] == 7.0 and hook.lines[-1]["headers"]["backtide-receipt"] == letter["receipt"]


def test_a_dead_letter_can_be_discarded(farm, connect, hook):
    hook.refuse = lambda body: 400 if '"P_avg":1.0' in body else None
    farm.apply(rule("all", hook))
    send(connect(), 3)
    caught_up(farm, "all")
    farm.cli("rule", "dead-letters", "discard", "all", "--all")
    assert farm.cli("rule", "dead-letters", "ls", "all", "-o", "json").json() == []


def test_a_credential_is_sealed_and_a_refused_one_loses_nothing(farm, connect, hook):
    seen = []
    hook.admits = "Bearer s3cr3t-of-all"
    farm.apply(rule("all", hook, options=", headers: { authorization: 'Bearer ${secret}' }"))
    idle = status(farm, "all")
    assert idle["state"] == "idle" and "rule secret" in idle["reason"]
    farm.cli("rule", "secret", "all", input="first\n")
    send(connect(), 5)
    eventually(lambda: "401" in status(farm, "all").get("error", {}).get("reason", ""), "it is refused")
    assert status(farm, "all")["deadLetters"] == 0
    farm.cli("rule", "secret", "all", input="s3cr3t-of-all\n")
    caught_up(farm, "all")
    assert numbers(hook.lines) == [float(n) for n in range(5)]
    assert hook.headers[-1]["authorization"] == "Bearer s3cr3t-of-all"
    assert "s3cr3t-of-all" not in farm.cli("get", "rule", "all", "-o", "json").out
    seen.extend(path.read_bytes() for path in farm.data_dir.glob("registry.db*"))
    assert not any(b"s3cr3t-of-all" in content for content in seen)


def test_calculated_points_are_stored_beside_the_others(farm, connect, hook):
    model = farm.cli("get", "models", "-o", "json").json()[0]
    model["measurepoints"]["power_mw"] = {"type": "double", "unit": "MW"}
    farm.apply(json.dumps(model))
    farm.apply("kind: Rule\nname: megawatt\nfrom: { points: [P_avg] }\n"
               "make: [{ set: { power_mw: 'P_avg / 1000' } }]\nto: { calculated: { points: [power_mw] } }\n")
    farm.apply(rule("origin", hook))
    send(connect(), 10)
    caught_up(farm, "megawatt")
    expected = {("R80711", T0 + n * 1000, "power_mw"): n / 1000 for n in range(10)}
    assert farm.cells(devices=["R80711"], points=["power_mw"]) == expected
    caught_up(farm, "origin")
    assert numbers(hook.lines) == [float(n) for n in range(10)], "calculated rows feed no rule that does not ask"


def test_a_script_makes_several_messages_or_none_and_its_failures_are_told_with_their_place(farm, connect, hook):
    source = """
      function transform(message) {
        const p = message.payload[0].measurepoints.P_avg;
        if (p === 3) return null;
        if (p === 4) throw new Error('four is too much');
        if (p === 5) return [{ half: p / 2 }, { double: p * 2 }];
        return { p: p, asset: message.assetId };
      }
    """
    refused = farm.apply(json.dumps({"kind": "Rule", "name": "js", "make": [{"script": "function transform(m) { return }}"}],
                                     "to": {"webhook": {"url": hook.url, "format": "records"}}}), code=FAILED)
    assert "script" in refused.err and "line 1" in refused.err
    farm.apply(json.dumps({"kind": "Rule", "name": "js", "make": [{"script": source}],
                           "to": {"webhook": {"url": hook.url, "format": "records"}}}))
    send(connect(), 7)
    done = caught_up(farm, "js")
    made = [line["value"] for line in hook.lines]
    assert [value.get("p") for value in made] == [0.0, 1.0, 2.0, None, None, 6.0]
    assert made[3:5] == [{"half": 2.5}, {"double": 10.0}]
    assert [line["headers"]["backtide-sequence"] for line in hook.lines[3:5]] == ["0", "0.1"]
    assert done["deadLetters"] == 1
    letter, = farm.cli("rule", "dead-letters", "ls", "js", "-o", "json").json()
    assert letter["cause"] == "script" and "four is too much" in letter["reason"]
    assert (letter["line"], letter["version"]) == (5, 1) and letter["column"] > 0
    # A better version delivers it.
    farm.apply(json.dumps({"kind": "Rule", "name": "js", "make": [{"script": source.replace("=== 4", "=== 44")}],
                           "to": {"webhook": {"url": hook.url, "format": "records"}}}))
    farm.cli("rule", "dead-letters", "redrive", "js", "--all")
    eventually(lambda: status(farm, "js").get("deadLetters") == 0, "the letter is delivered")
    assert hook.lines[-1]["value"]["p"] == 4.0


def test_a_replay_publishes_again_what_arrived_since_a_moment(farm, connect, hook):
    farm.apply(rule("all", hook))
    send(connect(), 10)
    caught_up(farm, "all")
    farm.cli("rule", "replay", "all", "--from", "2020-01-01T00:00:00Z")
    eventually(lambda: len(hook.lines) == 20, lambda: f"{len(hook.lines)} of 20 lines")
    assert numbers(hook.lines[10:]) == [float(n) for n in range(10)]
    assert [identity(line) for line in hook.lines[10:]] == [identity(line) for line in hook.lines[:10]]
    caught_up(farm, "all")
    nothing = farm.cli("rule", "replay", "all", "--from", "2099-01-01T00:00:00Z", code=FAILED)
    assert "nothing was committed" in nothing.err


def test_a_stopped_rule_goes_on_where_it_was(farm, connect, hook):
    farm.apply(rule("all", hook))
    client = connect()
    send(client, 5)
    caught_up(farm, "all")
    farm.cli("rule", "stop", "all")
    send(client, 5, start=5)
    assert status(farm, "all")["state"] == "stopped"
    farm.restart()
    assert status(farm, "all")["state"] == "stopped"
    farm.cli("rule", "start", "all")
    caught_up(farm, "all")
    assert numbers(hook.lines) == [float(n) for n in range(10)]


def test_a_rule_is_tried_without_publishing(farm, connect, hook, tmp_path):
    file = tmp_path / "rule.yaml"
    file.write_text(rule("trial", hook, "make: [{ scale: { P_avg: { factor: 0.001 } } }]"))
    send(connect(), 3)
    trial = farm.cli("rule", "test", "-f", file, "--device", f"{PRODUCT}/R80711", "-o", "json").json()
    assert trial["rows"] == 3 and trial["matched"] == 3 and trial["destination"] == "webhook"
    assert [numbers([record]) for record in trial["records"]] == [[0.0], [0.001], [0.002]]
    assert trial["records"][0]["address"] == hook.url
    message = tmp_path / "message.json"
    message.write_text(json.dumps(trial["records"][2]["value"]))
    again = farm.cli("rule", "test", "-f", file, "--message", message, "-o", "json").json()
    assert numbers(again["records"]) == [0.002 * 0.001]
    request = tmp_path / "request.json"
    request.write_bytes(points_message([("R80711", T0, {"P_avg": 5.0})]))
    run = farm.cli("rule", "test", "-f", file, "--request", request, "--product", PRODUCT)
    assert "1 records for webhook" in run.err and "0.005" in run.out
    farm.apply("kind: Rule\nname: odd\nmake: [{ set: { Ba_avg: 'P_avg / 0' } }]\nto: { webhook: { url: '%s' } }\n" % hook.url)
    run = farm.cli("rule", "test", "odd", "--request", request, "--product", PRODUCT, code=PARTIAL)
    assert "dead letter" in run.err and "inf" in run.err
    file.write_text("kind: Rule\nname: bad\nfrom: { points: [nothing] }\nto: { webhook: { url: '%s' } }\n" % hook.url)
    wrong = farm.cli("rule", "test", "-f", file, "--message", message, code=FAILED)
    assert "nothing" in wrong.err
    assert hook.requests == 0


def test_the_default_rules_are_idle_without_kafka_and_stay_away_once_deleted(farm, connect):
    listed = {row["name"]: row for row in farm.cli("rule", "ls", "-o", "csv").csv()}
    assert sorted(listed) == DEFAULTS
    assert all(row["state"] == "idle" and "kafka.bootstrap_servers" in row["why"] for row in listed.values())
    assert farm.http("GET", "/readyz").json().get("warnings", []) == []
    farm.cli("delete", "rule", "default-events")
    farm.cli("rule", "stop", "default-attributes")
    farm.restart()
    listed = {row["name"]: row for row in farm.cli("rule", "ls", "-o", "csv").csv()}
    assert sorted(listed) == [name for name in DEFAULTS if name != "default-events"]
    assert listed["default-attributes"]["state"] == "stopped"


def test_the_schema_of_the_message_is_served_and_fits(farm, connect, hook):
    schema = farm.http("GET", "/api/v1/schemas/message").json()
    farm.apply(rule("all", hook))
    send(connect(), 2)
    caught_up(farm, "all")
    for line in hook.lines:
        jsonschema.validate(line["value"], schema)
