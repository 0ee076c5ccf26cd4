"""Raw data and data parsing scripts: the documented frame and its reply, the life cycle, hostile scripts, killed workers."""

import base64
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
from mqtt import Client
from world import FAILED, ROOT, TOOLS, eventually

KEY = "RAWplant"
TOPIC = f"/sys/{KEY}/integration/model/up_raw"
CHANNEL = "raw-history"
OTHER_KEY = "RAWother"
T0 = 1_700_000_000_000

SAMPLE = bytes.fromhex(
    "01 00000014  01 0004 000025f5  02 000a 6162636465666768696a  03 0008 3ff23d70a3d70a3d"
    "04 0014 0000000100000003000000050000000700000009  05 0005 000001a7 03")
SAMPLE_POINTS = {"mp_int": 9717, "mp_string": "abcdefghij", "mp_double": 1.14, "mp_array": [1, 3, 5, 7, 9],
                 "mp_int_quality": 423}

FRAME = (ROOT / "crates/gateway/src/script/sandbox/fixtures/frame.js").read_text()

PLANT = f"""
kind: Model
name: frame
measurepoints:
  mp_int: {{ type: int }}
  mp_string: {{ type: string }}
  mp_double: {{ type: double }}
  mp_array: {{ type: array, items: int }}
  mp_int_quality: {{ type: int, quality: true }}
events: {{ leak: {{ output: {{ litres: {{ type: int }} }} }} }}
attributes: {{ serial: {{ type: string }} }}
---
kind: Product
name: raw-plant
key: {KEY}
model: frame
format: custom
---
kind: Device
name: pump-7
product: raw-plant
---
kind: Channel
name: {CHANNEL}
product: raw-plant
---
kind: Channel
name: raw-lenient
product: raw-plant
mode: lenient
---
kind: Product
name: other-plant
key: {OTHER_KEY}
model: frame
format: custom
---
kind: Device
name: pump-8
product: other-plant
---
kind: Channel
name: other-history
product: other-plant
"""

# Stores its second byte; its first says what else to do.
ECHO = """
function envelope(points) {
  return JSON.stringify({ id: '7', version: '1.0', method: 'integration.measurepoint.post',
    params: [{ deviceKey: 'DEVICE', time: Date.now(), measurepoints: points }] });
}
function rawDataToJsonStr(bytes) {
  switch (bytes[0]) {
    HOSTILE
  }
  return envelope({ mp_int: bytes[1] });
}
"""


def script(source, name="frames", product="raw-plant", **more):
    return json.dumps({"kind": "Script", "name": name, "product": product, "source": source, **more})


def echo(hostile="", device="pump-7"):
    return ECHO.replace("HOSTILE", hostile).replace("DEVICE", device)


class Raw:
    """A client on a raw channel: bytes out, bytes in."""

    def __init__(self, gateway, channel=CHANNEL, key=KEY):
        self.topic = f"/sys/{key}/integration/model/up_raw"
        self.client = Client(gateway.mqtt_address, gateway.channel(channel)).connect()
        assert self.client.subscribe(self.topic + "_reply") <= 1

    def ask(self, payload, within_s=30):
        self.client.publish(self.topic, payload)
        topic, reply = self.client.replies.get(timeout=within_s)
        assert topic == self.topic + "_reply"
        return reply

    def code(self, payload):
        return json.loads(self.ask(payload))["code"]

    def close(self):
        self.client.close()


@pytest.fixture
def plant(gateway):
    gateway.apply(PLANT)
    return gateway


@pytest.fixture
def raw(plant):
    """Makes clients on raw channels; they go away with the test."""
    made = []

    def connect(**options):
        made.append(Raw(plant, **options))
        return made[-1]

    yield connect
    for client in made:
        client.close()


def points(gateway, device="pump-7", product="raw-plant", names=("mp_int",)):
    return gateway.query(devices=[device], points=list(names), product=product).ndjson()


def refused_on(gateway, channel=CHANNEL):
    return gateway.quarantine(channel)


def workers(gateway):
    """Processes that run scripts for this gateway."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            arguments = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == gateway.process.pid and arguments.startswith(b"backtide-script-worker"):
            found.append(int(stat.parent.name))
    return found


# --- messages ---

def test_the_documented_frame_is_stored_and_answered_in_its_own_bytes(plant, raw):
    plant.apply(script(FRAME))
    client = raw()
    assert client.ask(SAMPLE).hex() == "0000001400c8"
    [row] = points(plant, names=SAMPLE_POINTS)
    assert {name: row[name] for name in SAMPLE_POINTS} == SAMPLE_POINTS
    assert abs(row["time"] - time.time() * 1000) < 60_000, "Date is the time of receipt"
    # The old spelling, without a slash.
    client.topic = f"sys/{KEY}/integration/up_raw"
    client.client.subscribe(client.topic + "_reply")
    assert client.ask(SAMPLE).hex() == "0000001400c8"


def test_the_vendor_sdk_sends_raw_requests_and_gets_the_bytes_of_the_reply(plant):
    plant.apply(script(FRAME))
    strings = plant.channel(CHANNEL)
    orders = {"url": strings.brokerUrl, "productKey": strings.productKey, "secret": strings.secret,
              "payloads": [SAMPLE.hex(), "01 00000015 01 0004 000026f5".replace(" ", "")]}
    done = subprocess.run([TOOLS / "enos-mqtt/bin/python", ROOT / "tests/outside/clients/enos_raw.py"],
                          input=json.dumps(orders), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["0000001400c8", "0000001500c8"]
    assert [row["mp_int"] for row in points(plant)] == [9717, 9973]


def test_json_on_a_custom_product_raw_on_a_json_one_and_a_product_without_a_script_are_1202(farm, gateways):
    client = Client(farm.mqtt_address, farm.channel()).connect()
    assert client.ask(b"\x01", "/sys/LHBfarm1/integration/model/up_raw")["code"] == 1202
    plain = gateways(folder="plain").start()
    plain.apply(PLANT)
    on_custom = Client(plain.mqtt_address, plain.channel(CHANNEL)).connect()
    assert on_custom.ask(b"{}", f"/sys/{KEY}/integration/measurepoint/post")["code"] == 1202
    answer = on_custom.ask(b"\x01", TOPIC)
    assert answer["code"] == 1202 and "no data parsing script" in answer["message"]
    errors = [e for e in plain.channel_log(CHANNEL) if e.kind == "error"]
    assert any(e.message.startswith("script invocation error") for e in errors)
    client.close()
    on_custom.close()


def test_the_method_that_a_script_returns_says_what_the_items_are(plant, raw):
    plant.apply(script("function rawDataToJsonStr(b) { return String.fromCharCode.apply(null, b); }"))
    client = raw()

    def ask(method, *params):
        return client.code(json.dumps({"id": "1", "version": "1.0", "method": method, "params": list(params)}).encode())
    assert ask("integration.event.post", {"deviceKey": "pump-7", "time": T0, "events": {"leak": {"litres": 4}}}) == 200
    assert ask("integration.attribute.post", {"deviceKey": "pump-7", "attributes": {"serial": "A1"}}) == 200
    assert ask("integration.measurepoint.post", {"deviceKey": "nobody", "time": T0, "measurepoints": {}}) == 1257
    assert ask("integration.measurepoint.post", {"deviceKey": "pump-7", "time": T0, "measurepoints": {"x": 1}}) == 1204
    assert ask("thing.measurepoint.post") == 1260
    assert ask("nonsense") == 1250
    assert client.code(b"[]") == 1220
    assert client.code(b"nonsense") == 1202
    assert client.code(b"") == 1251


def test_a_failed_script_leaves_a_line_in_the_log_and_its_bytes_in_quarantine(plant, raw):
    plant.apply(script("\nfunction rawDataToJsonStr(b) {\n  return b.x.y;\n}"))
    client = raw()
    answer = json.loads(client.ask(b"\x01\xff"))
    assert answer["code"] == 1202 and answer["id"] == ""
    errors = [e for e in plant.channel_log(CHANNEL) if e.kind == "error"]
    assert len(errors) == 1, errors
    [entry] = errors
    assert entry.message.startswith("script invocation error: frames@1, line 3, column "), entry.message
    assert "TypeError" in entry.message and entry.code == 1202
    all_refused = eventually(lambda: refused_on(plant), "the refusal in quarantine")
    assert len(all_refused) == 1, all_refused
    [refused] = all_refused
    assert refused.subject == {"scriptVersion": 1}
    shown = plant.quarantine_show(refused.id)
    assert shown.payload == b"\x01\xff"


def test_a_lenient_channel_stores_the_good_items_and_keeps_the_raw_bytes_whole(plant, raw):
    plant.apply(script("""function rawDataToJsonStr(bytes) {
      return JSON.stringify({ id: '1', version: '1.0', method: 'integration.measurepoint.post', params: bytes.map(function (b) {
        return { deviceKey: b === 9 ? 'pump-9' : 'pump-7', time: 1700000000000 + b, measurepoints: { mp_int: b } };
      }) });
    }"""))
    assert raw(channel="raw-lenient").code(b"\x01\x09\x02") == 1257
    assert [row["mp_int"] for row in points(plant)] == [1, 2]
    [refused] = eventually(lambda: refused_on(plant, "raw-lenient"), "the refusal in quarantine")
    assert plant.quarantine_show(refused.id).payload == b"\x01\x09\x02"


def test_an_encoder_that_fails_is_logged_and_the_reply_is_json(plant, raw):
    plant.apply(script(echo() + "function jsonStrToRawData() { throw new Error('no bytes'); }"))
    client = raw()
    assert json.loads(client.ask(b"\x00\x05")) == {"id": "7", "code": 200, "data": {}}
    assert any("no bytes; the reply was sent as JSON" in e.message for e in plant.channel_log(CHANNEL) if e.kind == "error")


# --- the life cycle ---

def test_a_draft_is_tested_published_and_rolled_back(plant, raw, tmp_path):
    source = tmp_path / "frames.js"
    source.write_text(echo())
    plant.cli("script", "draft", "frames", "--product", "raw-plant", "-f", source)
    client = raw()
    assert client.code(b"\x00\x05") == 1202, "a draft does not run"

    shown = plant.cli("script", "test", "frames", "--hex", "00 05", "--time", T0, "-o", "json").json()
    assert shown["script"] == "frames (draft)"
    assert shown["decoded"]["params"] == [{"deviceKey": "pump-7", "time": T0, "measurepoints": {"mp_int": 5}}]
    assert shown["cpuMs"] > 0 and shown["heapBytes"] > 0
    assert (shown["model"]["code"], shown["model"]["good"]) == (200, 1)
    same = plant.cli("script", "test", "frames", "--base64", base64.b64encode(b"\x00\x05").decode(), "-o", "json").json()
    assert same["decoded"]["params"][0]["measurepoints"] == {"mp_int": 5}

    plant.cli("script", "publish", "frames")
    assert client.code(b"\x00\x05") == 200, "live at once"
    source.write_text(echo().replace("mp_int: bytes[1]", "mp_int: bytes[1] + 100"))
    plant.cli("script", "draft", "frames", "-f", source)
    diff = plant.cli("script", "diff", "frames").out
    assert "-  return envelope({ mp_int: bytes[1] });" in diff and "+  return envelope({ mp_int: bytes[1] + 100 });" in diff
    plant.cli("script", "publish", "frames")
    assert client.code(b"\x00\x06") == 200
    plant.cli("script", "rollback", "frames")
    assert client.code(b"\x00\x07") == 200
    assert [row["mp_int"] for row in points(plant)] == [5, 106, 7]

    status = plant.cli("script", "show", "frames", "-o", "json").json()
    assert status["live"] == 1 and [(v["version"], v["live"]) for v in status["versions"]] == [(2, False), (1, True)]
    assert plant.cli("script", "show", "frames", "--source", "2").out == source.read_text()
    assert "frames" in plant.cli("script", "ls").out
    plant.restart()
    assert plant.cli("script", "show", "frames", "-o", "json").json()["live"] == 1
    assert len(plant.cli("script", "show", "frames", "-o", "json").json()["versions"]) == 2


def test_a_test_run_shows_console_failure_and_place_and_what_the_model_says(plant, tmp_path):
    source = tmp_path / "a.js"
    source.write_text("function rawDataToJsonStr(b) {\n  console.log('bytes', b.length);\n  if (!b.length) throw new Error('empty');\n"
                      "  return JSON.stringify({ id: '1', version: '1.0', method: 'integration.measurepoint.post',\n"
                      "    params: [{ deviceKey: 'pump-7', time: 1, measurepoints: { mp_int: 'x' } }] });\n}\n"
                      "function jsonStrToRawData(t) { return [JSON.parse(t).code & 255]; }")
    plant.cli("script", "draft", "frames", "--product", "raw-plant", "-f", source)
    run = plant.cli("script", "test", "frames", "--text", "abc")
    assert "console: bytes 3" in run.err and "model: 1204" in run.err and "CPU " in run.err
    failed = plant.cli("script", "test", "frames", "--hex", "", code=FAILED)
    assert "line 3, column" in failed.err and "Error: empty" in failed.err
    assert plant.cli("script", "test", "frames", "--encode", '{"id":1,"code":200,"data":""}').out.strip() == "c8"
    plant.cli("script", "test", "frames", "--hex", "0g", code=FAILED)


def test_what_is_no_script_cannot_be_published_or_applied_and_the_place_is_named(plant, tmp_path):
    bad = script("function rawDataToJsonStr(b) {\n  return 1 +;\n}")
    refused = plant.apply(bad, code=FAILED)
    assert "script frames" in refused.err and "line 2, column 13" in refused.err, refused.err
    source = tmp_path / "bad.js"
    source.write_text("function rawDataToJsonStr(b) {\n  return 1 +;\n}")
    plant.cli("script", "draft", "frames", "--product", "raw-plant", "-f", source)
    plant.cli("script", "publish", "frames", code=FAILED)
    answer = plant.http("POST", "/api/v1/scripts/frames/publish")
    problem = answer.json()
    assert answer.status_code == 422 and (problem["line"], problem["column"]) == (2, 13)
    assert answer.headers["Content-Type"] == "application/problem+json"
    plant.cli("script", "draft", "frames", "--drop")
    plant.cli("script", "show", "frames", code=FAILED)
    for wrong, why in [(script("var a;"), "defines no function"), (script("x", dialect="Decoder"), "give a mapping"),
                       (script(echo(), product="nowhere"), "not declared")]:
        assert why in plant.apply(wrong, code=FAILED).err


def test_golden_tests_gate_publishing_and_apply(plant, tmp_path):
    fixtures = tmp_path / "fixtures"
    fixtures.mkdir()
    (fixtures / "sample.json").write_text(json.dumps({
        "decode": SAMPLE.hex(), "time": T0,
        "expect": {"id": "20", "version": "1.0", "method": "integration.measurepoint.post", "params": [
            {"deviceKey": "pump-7", "time": T0, "measurepoints": {**SAMPLE_POINTS, "mp_int_quality": {"value": 423, "quality": 3}}}]}}))
    (fixtures / "reply.json").write_text(json.dumps({"encode": {"id": 20, "code": 200, "data": ""}, "expect": "0000001400c8"}))
    (fixtures / "short.json").write_text(json.dumps({"decode": "", "fails": "RangeError"}))
    source = tmp_path / "frames.js"
    source.write_text(FRAME)
    plant.cli("script", "draft", "frames", "--product", "raw-plant", "-f", source)
    passed = plant.cli("script", "test", "frames", "--fixtures", fixtures)
    assert passed.out.count("ok ") == 3
    plant.cli("script", "publish", "frames")

    source.write_text(FRAME.replace("frame.getInt32(at);", "frame.getInt32(at) + 1;"))
    plant.cli("script", "draft", "frames", "-f", source)
    failed = plant.cli("script", "test", "frames", "--fixtures", fixtures, code=FAILED)
    assert "FAILED  sample" in failed.out and "9718" in failed.out
    refused = plant.cli("script", "publish", "frames", code=FAILED)
    assert "golden test sample" in refused.err
    assert plant.cli("script", "show", "frames", "-o", "json").json()["live"] == 1
    # And `apply` asks the same of a file that has them.
    kept = plant.cli("get", "script", "frames", "-o", "json").json()
    assert len(kept["golden"]) == 3
    wrong = plant.apply(json.dumps({**kept, "source": source.read_text()}), code=FAILED)
    assert "golden test sample" in wrong.err


def test_kept_state_needs_golden_tests_that_hold_in_any_order(plant):
    golden = [{"decode": "0001", "time": T0, "expect": json.loads('{"id":"7","version":"1.0","method":"integration.measurepoint.post",'
               '"params":[{"deviceKey":"pump-7","time":1700000000000,"measurepoints":{"mp_int":1}}]}')},
              {"decode": "0102", "fails": "Error: b"}]
    fails = "case 1: throw new Error('b');"
    assert "needs golden tests" in plant.apply(script(echo(fails), keepState=True), code=FAILED).err
    counting = echo(fails).replace("envelope({ mp_int: bytes[1] })", "envelope({ mp_int: ++n })") + "var n = 0;"
    assert "another order" in plant.apply(script(counting, keepState=True, golden=golden), code=FAILED).err
    plant.apply(script(echo(fails), keepState=True, golden=golden))


def test_apply_of_the_same_script_is_unchanged_and_of_another_a_new_version(plant):
    results = [plant.apply_results(script(source))[("Script", "frames")] for source in (FRAME, FRAME, echo())]
    assert results == ["created", "unchanged", "changed"]
    assert plant.apply_results(plant.cli("get", "script", "frames").out)[("Script", "frames")] == "unchanged"
    assert plant.http("DELETE", "/api/v1/products/raw-plant").json()["usedBy"][0]["kind"] in ("Channel", "Script")
    plant.cli("delete", "script", "frames")
    assert plant.apply_results(script(echo()))[("Script", "frames")] == "created"


# --- hostile scripts ---

HOSTILE = {
    "an infinite loop": "while (true) {}",
    "an infinite loop that catches everything": "for (;;) { try { for (;;) {} } catch (e) {} finally { continue; } }",
    "an allocation bomb": "var a = []; for (;;) a.push(new Array(1000).fill(1));",
    "a text that doubles": "var s = 'x'; for (;;) s += s;",
    "deep recursion": "(function f() { f(); })();",
    "a catastrophic regular expression": "return /^(a+)+$/.test('a'.repeat(40) + 'b') ? '' : '';",
    "sort of a huge sparse array": "var a = []; a.length = 4294967295; a.sort();",
    "join of a huge sparse array": "var a = []; a.length = 4294967295; return a.join('');",
    "reverse of a huge sparse array": "var a = []; a.length = 4294967295; a.reverse();",
    "splice of a huge sparse array": "var a = []; a.length = 4294967295; a.splice(0, 1);",
    "indexOf over a huge array-like": "Array.prototype.indexOf.call({ length: 9007199254740991 }, 1);",
    "a huge BigInt as text": "return String(2n ** 4000000n);",
    "a huge shift": "return String(1n << 1073741823n);",
    "a throwing getter": "return JSON.stringify({ get x() { throw new Error('no'); } });",
    "a getter that hangs": "return JSON.stringify({ get x() { for (;;) {} } });",
    "a toString that hangs": "throw { toString: function () { for (;;) {} } };",
    "a promise": "return Promise.resolve('{}');",
    "an async function": "return (async function () { return '{}'; })();",
    "a job that never ends": "Promise.resolve().then(function f() { return Promise.resolve().then(f); }); return '';",
    "a generator that never ends": "function* g() { for (;;) yield 1; } for (var x of g()) {}",
    "an object": "return {};",
    "nothing": "return;",
    "a text that is no JSON": "return 'nonsense';",
    "a result that is too large": "return '\"' + 'x'.repeat(600000) + '\"';",
    "a result that is too deep": "return new Array(2000).join('[') + new Array(2000).join(']');",
    "a proxy that lies": "return JSON.stringify(new Proxy({}, { ownKeys: function () { for (;;) {} } }));",
    "console output without end": "for (;;) console.log('x'.repeat(1000));",
    "a broken world": "Object.prototype.toJSON = function () { throw 1; }; JSON.stringify = null; Array.prototype.map = null; throw null;",
    "eval that hangs": "eval('for (;;) {}');",
    "a function that is made of text": "return Function('for (;;) {}')();",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_call_ends_with_1202_and_harms_nobody(plant, raw, hostile):
    plant.apply(script(echo(f"case 66: {hostile}")))
    plant.apply(script(echo(device="pump-8"), name="others", product="other-plant"))
    bad, good = raw(), raw(channel="other-history", key=OTHER_KEY)
    assert good.code(b"\x00\x01") == 200 and bad.code(b"\x00\x01") == 200
    before = cpu_of_workers(plant)
    assert bad.code(b"\x42") == 1202
    assert cpu_of_workers(plant) - before < 0.25, "CPU of the workers, in seconds"
    assert good.code(b"\x00\x02") == 200, "others go on"
    assert bad.code(b"\x00\x03") == 200, "the next call on the script succeeds"
    assert len(workers(plant)) <= 2
    [error] = [e for e in plant.channel_log(CHANNEL) if e.kind == "error"]
    assert error.message.startswith("script invocation error: frames@1, "), error.message
    status = plant.http("GET", "/api/v1/scripts/frames/status").json()["running"]
    assert (status["calls"], status["failures"]) >= (3, 1)


def cpu_of_workers(gateway):
    """CPU seconds of all workers of a gateway, the dead ones too."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = pathlib.Path(f"/proc/{gateway.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    total = int(fields[13]) + int(fields[14])
    for pid in workers(gateway):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / tick


def test_only_the_culprit_of_a_burst_is_refused(plant, raw):
    plant.apply(script(echo("case 66: var a = []; a.length = 4294967295; a.sort();")))
    client = raw().client
    sent = [client.paho.publish(TOPIC, b"\x42" if n == 20 else bytes([0, n])) for n in range(40)]
    for message in sent:
        message.wait_for_publish(30)
    codes = [json.loads(client.replies.get(timeout=30)[1])["code"] for _ in sent]
    assert codes.count(1202) == 1 and codes.count(200) == 39


def test_a_script_that_hangs_again_and_again_is_paused_and_resumes_by_itself(plant, raw):
    plant.apply(script(echo("case 66: var a = []; a.length = 4294967295; a.sort();")))
    client = raw()
    for _ in range(5):
        assert client.code(b"\x42") == 1202
    answer = json.loads(client.ask(b"\x00\x01"))
    assert answer["code"] == 1202 and "is paused for" in answer["message"], answer
    status = plant.http("GET", "/api/v1/scripts/frames/status").json()["running"]
    assert status["pauses"] == 1 and status["paused"]["reason"].startswith("5 of its calls had to be killed")
    assert "the script is paused" in plant.log()
    assert 'backtide_script_paused{script="frames"} 1' in plant.http("GET", "/metrics").text
    assert any(entry.code == 1202 for entry in eventually(lambda: refused_on(plant), "refused messages in quarantine"))
    eventually(lambda: client.code(b"\x00\x02") == 200, "the script is tried again", within_s=60, every_s=1)
    assert 'backtide_script_paused{script="frames"} 0' in plant.http("GET", "/metrics").text
    # A new version does not wait.
    for _ in range(5):
        assert client.code(b"\x42") == 1202
    assert client.code(b"\x00\x03") == 1202
    plant.apply(script(echo()))
    assert client.code(b"\x00\x04") == 200


def test_killed_workers_lose_no_message(plant, raw):
    plant.apply(script(echo("case 1: for (var i = 0; i < 20000; i++);")))
    asking = raw()
    client = asking.client
    assert asking.code(b"\x00\x00") == 200
    sent, killed = [], 0
    for n in range(600):
        sent.append(client.paho.publish(TOPIC, bytes([1, n % 250])))
        if n % 60 == 59:
            for pid in workers(plant):
                with contextlib.suppress(ProcessLookupError):  # gone already
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    codes = [json.loads(client.replies.get(timeout=60)[1])["code"] for _ in sent]
    assert killed >= 5
    refused = codes.count(1202)
    assert codes.count(200) + refused == 600
    assert refused <= killed, f"only a call that its worker died of twice is given up: {[e.message for e in plant.channel_log(CHANNEL) if e.kind == 'error'][:8]}"
    assert len(eventually(lambda: len(refused_on(plant)) >= refused and [1], "what was refused is in quarantine")) == 1


def test_nothing_leaks(plant, raw):
    plant.apply(script(echo("case 66: var a = []; a.length = 4294967295; a.sort(); break;"
                            "case 65: for (;;) {} case 64: leak = (typeof leak === 'undefined' ? [] : leak); leak.push(new Array(1000)); "
                            "return envelope({ mp_int: leak.length }); case 63: Math.n = (Math.n || 0) + 1; return envelope({ mp_int: Math.n });")))
    client = raw()
    assert client.code(b"\x00\x01") == 200

    def held():
        gateway = pathlib.Path(f"/proc/{plant.process.pid}")
        return len(list((gateway / "fd").iterdir())), resident(plant.process.pid), [resident(pid) for pid in workers(plant)]
    for _ in range(3):
        client.code(b"\x41")
        client.code(b"\x42")
    files, memory, _ = held()
    for _ in range(200):
        assert client.code(b"\x40") == 200 and client.code(b"\x3f") == 200
    client.code(b"\x41")
    client.code(b"\x42")
    files_after, memory_after, of_workers = held()
    assert files_after <= files + 3, "descriptors"
    assert memory_after < memory + 50_000_000, "memory of the gateway"
    assert len(of_workers) <= 2 and max(of_workers) < 100_000_000
    assert {row["mp_int"] for row in points(plant)} == {1}, "every call finds the world as it was"
    assert not [line for line in zombies(plant)], "no zombie"


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def zombies(gateway):
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == gateway.process.pid:
            yield stat.parent.name


def test_workers_have_nothing_of_ours_and_end_with_the_gateway(plant, raw):
    plant.apply(script(echo()))
    assert raw().code(b"\x00\x01") == 200
    [pid, *_] = workers(plant)
    proc = pathlib.Path(f"/proc/{pid}")
    environ = (proc / "environ").read_bytes().strip(b"\0").split(b"\0")
    assert sorted(environ) == [b"MIMALLOC_ARENA_RESERVE=0", b"TZ=UTC0"]
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
    assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1"
    assert len(list((proc / "fd").iterdir())) == 3
    assert "Max address space         1073741824" in (proc / "limits").read_text()
    all_of_them = workers(plant)
    plant.kill()
    eventually(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in all_of_them), "the workers are gone")
