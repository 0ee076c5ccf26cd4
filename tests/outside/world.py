"""The tests' own language: one gateway process over one data directory, its command line, its HTTP door.

Every name of ours that the suite relies on and that decisions.md leaves open stands in this file (README.md says them in
prose). Tests speak through these functions only.
"""

import base64
import csv
import io
import json
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
FARM = ROOT / "examples/la-haute-borne/farm.yaml"
SAMPLE = ROOT / "examples/la-haute-borne/sample.csv"
BIN = os.environ.get("BACKTIDE_BIN", str(ROOT / "target/debug/backtide"))
SEED = int(os.environ.get("BACKTIDE_SEED", "1"))

CHANNEL = "scada-history"
PRODUCT = "wind-farm"
PRODUCT_KEY = "LHBfarm1"
TURBINES = ["R80711", "R80721", "R80736", "R80790"]
POINTS = ["Ba_avg", "P_avg", "Ws_avg", "Va_avg", "Ot_avg", "Ya_avg", "Wa_avg"]
TOPIC = f"/sys/{PRODUCT_KEY}/integration/measurepoint/post"
METHOD = "integration.measurepoint.post"
CSV_COLUMNS = ["--device-column", "Wind_turbine_name", "--time-column", "Date_time"]

OK, USAGE, PARTIAL, FAILED = 0, 1, 2, 3

# An element of every type that a model may declare, as members of `measurepoints`, `attributes` or an output.
EVERY_TYPE = """
    d: { type: double, unit: l }
    f: { type: float }
    i: { type: int }
    l: { type: long }
    b: { type: bool }
    s: { type: string }
    e: { type: enum, values: { "0": stopped, "1": running } }
    es: { type: enum, values: { "AUTO": automatic, "MANUAL": by hand } }
    t: { type: timestamp }
    day: { type: date }
    at: { type: datetime }
    a: { type: array, items: int, maxItems: 3 }
    pos: { type: struct, members: { x: { type: double, required: true }, y: { type: int } } }
    m: { type: map }
    u: { type: file }
"""


class Late(AssertionError):
    """A condition did not come true before its deadline."""


def eventually(condition, what, within_s=20.0, every_s=0.05):
    """Waits until `condition()` is truthy and returns its value; fails with `what` at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Late(f"not within {within_s:g} s: {what() if callable(what) else what}")
        time.sleep(every_s)


def points_message(items, id="1", version="1.0", method=METHOD):
    """A measure-point request; `items` are (deviceKey, time, {point: value})."""
    params = [{"deviceKey": d, "time": t, "measurepoints": values} for d, t, values in items]
    return json.dumps({"id": id, "version": version, "method": method, "params": params}).encode()


@dataclass
class Run:
    """What a command did."""

    args: list
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)

    def ndjson(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def csv(self):
        return list(csv.DictReader(io.StringIO(self.out)))

    def __str__(self):
        return f"backtide {' '.join(self.args)}\n→ exit {self.code}\n{self.out[-2000:]}\n{self.err[-4000:]}"


class Gateway:
    """`backtide serve` on a data directory; ports stay the same over restarts."""

    def __init__(self, folder, *options):
        self.folder = pathlib.Path(folder)
        self.data_dir = self.folder / "data"
        self.options = list(options)
        self.addresses = {}
        self.process = None
        self.log_path = self.folder / "serve.log"

    # --- the process ---

    def start(self, within_s=60):
        lines = self._launch()
        try:
            line = lines.get(timeout=within_s)
        except queue.Empty:
            raise Late(f"no line of addresses within {within_s} s\n{self.log()}") from None
        assert line is not None, f"the server ended with {self.process.wait()} before its doors were open\n{self.log()}"
        self.addresses = json.loads(line)
        return self

    def start_and_kill_after(self, delay_s):
        """Starts, and kills after that long, whether the doors are open or not."""
        self._launch()
        try:
            code = self.process.wait(timeout=delay_s)
            raise AssertionError(f"the server ended with {code}\n{self.log()}")
        except subprocess.TimeoutExpired:
            self.kill()

    def _launch(self):
        assert self.process is None, "already running"
        mqtt = self.addresses.get("mqtt", "127.0.0.1:0")
        http = self.addresses.get("http", "127.0.0.1:0")
        subscribe = self.addresses.get("subscribe", "127.0.0.1:0")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [BIN, "serve", "--data-dir", str(self.data_dir), "--mqtt", mqtt, "--http", http,
                 "--subscribe", subscribe, *self.options],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=self.folder, env=environment())
        lines = queue.Queue()
        threading.Thread(target=drain, args=(self.process.stdout, lines), daemon=True).start()
        return lines

    def terminate(self, within_s=30):
        """SIGTERM: drains, exits 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=within_s)
        self.process = None
        assert code == 0, f"SIGTERM must end with 0, ended with {code}\n{self.log()}"

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self):
        if self.process:
            self.terminate()
        return self.start()

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:] if self.log_path.exists() else "(no log)"

    def cpu_s(self):
        """CPU seconds this process has used: the fair clock on a shared machine."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def mqtt_address(self):
        host, port = self.addresses["mqtt"].rsplit(":", 1)
        return host, int(port)

    @property
    def url(self):
        return f"http://{self.addresses['http']}"

    @property
    def token(self):
        return (self.data_dir / "admin.token").read_text().strip()

    # --- the command line ---

    def environment(self):
        return environment(BACKTIDE_URL=self.url, BACKTIDE_TOKEN=self.token)

    def run(self, *args, input=None, timeout_s=120):
        args = [str(a) for a in args]
        done = subprocess.run([BIN, *args], input=input, capture_output=True, text=True, timeout=timeout_s,
                              cwd=self.folder, env=self.environment(),
                              **({} if input is not None else {"stdin": subprocess.DEVNULL}))
        return Run(args, done.returncode, done.stdout, done.stderr)

    def spawn(self, *args):
        return subprocess.Popen([BIN, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd=self.folder, env=self.environment())

    def cli(self, *args, code=OK, **options):
        """Runs a command that must end with `code`."""
        run = self.run(*args, **options)
        assert run.code == code, f"wanted exit {code}:\n{run}\n--- server:\n{self.log()}"
        return run

    def apply(self, text_or_path, *options, code=OK, **run_options):
        if isinstance(text_or_path, pathlib.Path):
            return self.cli("apply", "-f", text_or_path, *options, code=code, **run_options)
        return self.cli("apply", "-f", "-", *options, code=code, input=text_or_path, **run_options)

    def apply_results(self, text_or_path, *options, **run_options):
        """{(kind, name): created|changed|unchanged}"""
        outcome = self.apply(text_or_path, "-o", "json", *options, **run_options).json()
        return {(o["kind"], o["name"]): o["result"] for o in outcome["objects"]}

    def channel(self, name=CHANNEL):
        return Strings(**pick(self.cli("channel", "show", name, "-o", "json").json(), Strings))

    def rotate(self, name=CHANNEL, *options):
        shown = self.cli("channel", "rotate", name, "-o", "json", *options).json()
        return Strings(**pick(shown, Strings)), shown["previousSecretValidUntil"]

    def channel_log(self, name=CHANNEL):
        return [LogEntry(entry) for entry in self.cli("channel", "log", name, "-o", "json").json()]

    def follow_channel_log(self, name=CHANNEL):
        return Follower(self.spawn("channel", "log", name, "-f", "-o", "ndjson"))

    def query(self, devices=TURBINES, points=POINTS, start="1970-01-01T00:00:00Z", end="2100-01-01T00:00:00Z",
              output="ndjson", product=PRODUCT, code=OK, timeout_s=120):
        named = ["--product", product] if product else []
        return self.cli("query", *named, "--device", ",".join(devices), "--points", ",".join(points),
                        "--from", start, "--to", end, "-o", output, code=code, timeout_s=timeout_s)

    def cells(self, **options):
        """{(deviceKey, time in ms, point): value} of everything there."""
        return {(row["deviceKey"], row["time"], point): value
                for row in self.query(**options).ndjson()
                for point, value in row.items() if point not in ("deviceKey", "time")}

    def conflicts(self, *options, **run_options):
        return [Conflict(row) for row in self.cli("conflicts", "-o", "ndjson", *options, **run_options).ndjson()]

    def quarantine(self, channel=CHANNEL):
        return [Quarantined(e) for e in self.cli("quarantine", "ls", "--channel", channel, "-o", "json").json()]

    def quarantine_show(self, id):
        return Quarantined(self.cli("quarantine", "show", id, "-o", "json").json())

    def quarantine_export(self):
        return [Quarantined(e) for e in self.cli("quarantine", "export", "-o", "ndjson").ndjson()]

    def send(self, file, *options, channel=CHANNEL, code=OK, timeout_s=300):
        run = self.cli("send", file, "--channel", channel, "-o", "json", *options, code=code, timeout_s=timeout_s)
        return run, run.json()

    # --- HTTP ---

    def http(self, method, path, token=None, **options):
        """A request with the admin token; `token=False` sends none."""
        headers = {} if token is False else {"Authorization": f"Bearer {token or self.token}"}
        return requests.request(method, self.url + path, headers=headers, timeout=60, **options)

    def compact(self):
        """Everything committed so far is flushed, classified and merged when this returns."""
        answer = requests.post(self.url + "/api/v1/store/compact", timeout=300,
                               headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def segment_bytes(self):
        return sum(path.stat().st_size for path in self.data_dir.rglob("*.parquet"))


@dataclass(frozen=True)
class Strings:
    """What `channel show` prints for an integrator."""

    brokerUrl: str
    clientId: str
    username: str
    password: str
    productKey: str
    secret: str


class LogEntry(dict):
    kind = property(lambda self: self["kind"])
    time = property(lambda self: self["time"])
    reason = property(lambda self: self["reason"])
    topic = property(lambda self: self["topic"])
    bytes = property(lambda self: self["bytes"])
    item_count = property(lambda self: self["items"])
    code = property(lambda self: self["code"])
    ms = property(lambda self: self["ms"])
    receipt = property(lambda self: self["receipt"])
    message = property(lambda self: self["message"])
    client_id = property(lambda self: self["clientId"])


class Conflict(dict):
    """One change of a value at one identity."""

    identity = property(lambda self: (self["deviceKey"], self["time"], self["point"]))
    overwritten = property(lambda self: self["overwritten"])
    kept = property(lambda self: self["kept"])
    receipts = property(lambda self: (self["overwrittenReceipt"], self["keptReceipt"]))
    change = property(lambda self: (*self.identity, self.overwritten, self.kept))


class Quarantined(dict):
    id = property(lambda self: self["id"])
    code = property(lambda self: self["code"])
    reason = property(lambda self: self["reason"])
    subject = property(lambda self: self["subject"])
    topic = property(lambda self: self["topic"])
    bytes = property(lambda self: self["bytes"])
    sha256 = property(lambda self: self["sha256"])
    truncated = property(lambda self: self["truncated"])
    rejected = property(lambda self: self["rejected"])
    payload = property(lambda self: base64.b64decode(self["payloadBase64"]))

    @property
    def kept_items(self):
        """The items kept: of a strict channel all of the message, of a lenient one at least the refused."""
        kept = json.loads(self.payload)
        return kept["params"] if isinstance(kept, dict) else kept


class Follower:
    """`channel log -f`: the lines as they come."""

    def __init__(self, process):
        self.process = process
        self.entries = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.entries.append(LogEntry(json.loads(line)))

    def wait_for(self, condition, what, within_s=20):
        def found():
            assert self.process.poll() is None, f"channel log -f ended: {self.process.stderr.read()}"
            return next((entry for entry in list(self.entries) if condition(entry)), None)
        return eventually(found, lambda: f"{what} among {self.entries}", within_s)

    def close(self):
        self.process.kill()
        self.process.wait()


def environment(**more):
    """The caller's environment without settings of ours that would leak into a test."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BACKTIDE_")}
    return {**kept, **more}


def pick(shown, strings):
    return {name: shown[name] for name in strings.__dataclass_fields__}


def drain(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)
