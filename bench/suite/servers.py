"""Every server of a run: each on loopback, over an empty folder, and gone when its `with` ends."""

import contextlib
import glob
import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time

from . import machine

BENCH = pathlib.Path(__file__).resolve().parents[1]
ROOT = BENCH.parent


class Failed(Exception):
    """A scenario can't go on; the message says why."""


class Server:
    """A process. It dies with this one, whatever happens to it."""

    name = "server"

    def __init__(self, folder):
        self.folder = pathlib.Path(folder) / self.name
        self.folder.mkdir(parents=True)
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    @property
    def log(self):
        return self.folder / "log"

    def start(self, *command, user=None, **options):
        as_user = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *as_user, "--", *map(str, command)],
                stdin=subprocess.DEVNULL, stderr=log, **{"stdout": log, "cwd": self.folder, **options})

    def wait_until(self, condition, what, within_s=60):
        deadline = time.monotonic() + within_s
        while not condition():
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode}: {self.end_of_log()}")
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: {what}, not within {within_s} s: {self.end_of_log()}")
            time.sleep(0.05)

    def end_of_log(self):
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "(no log)"

    def stop(self):
        """Ends it in an orderly way where it can."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    stop_signal = signal.SIGTERM

    def __enter__(self):
        try:
            self.open()
        except BaseException as failure:
            self.__exit__(failure)
            raise
        return self

    def __exit__(self, failure, *_):
        self.stop()
        if failure and self.log.exists():
            (BENCH / "out").mkdir(exist_ok=True)
            shutil.copy(self.log, BENCH / "out" / f"{self.name}.log")
        shutil.rmtree(self.folder, ignore_errors=True)


class Kafka(Server):
    """One node of Apache Kafka, as the outside suite installs it. Its CPU is its own affair."""

    name = "kafka"
    libs = ROOT / ".tools/kafka/libs"

    def open(self):
        if not self.libs.exists():
            raise Failed(f"no Apache Kafka in {self.libs}: run `make tools`")
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        port, controller = (listener.getsockname()[1] for listener in held)
        for listener in held:
            listener.close()
        self.address = f"127.0.0.1:{port}"
        settings = self.folder / "server.properties"
        settings.write_text(f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={self.folder}/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
""")
        java = ["java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{self.libs}/*"]
        subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", settings],
                       check=True, capture_output=True, timeout=120)
        self.start(*java, "kafka.Kafka", settings)
        host, port = self.address.split(":")
        self.wait_until(lambda: is_open(host, int(port)), "its port is not open")


def is_open(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class Answer(http.client.HTTPResponse):
    """An answer that keeps its trailers among its headers: the library reads over them."""

    def _read_and_discard_trailer(self):
        while line := self.fp.readline(65536).strip():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name] = value.strip()


class Gateway(Server):
    """`backtide serve` with its defaults over a fresh data directory."""

    name = "backtide"

    def __init__(self, folder, binary, settings=""):
        """`settings` is a configuration file's text."""
        super().__init__(folder)
        self.binary = binary
        self.data = self.folder / "data"
        (self.folder / "backtide.toml").write_text(settings)

    def open(self):
        self.start(self.binary, "serve", "--config", self.folder / "backtide.toml", "--data-dir", self.data, "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0",
                   "--subscribe", "127.0.0.1:0",
                   stdout=subprocess.PIPE, env=self.environment())
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"backtide serve ended with {self.process.wait()}: {self.end_of_log()}")
        doors = json.loads(line)
        self.mqtt, self.http_address, self.subscribe = doors["mqtt"], doors["http"], doors["subscribe"]
        self.token = (self.data / "admin.token").read_text().strip()

    def environment(self, **more):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BACKTIDE_")}
        return {**kept, **more}

    def client_environment(self):
        return self.environment(BACKTIDE_URL=f"http://{self.http_address}", BACKTIDE_TOKEN=self.token)

    def cli(self, *arguments, input=None, within_s=900):
        done = subprocess.run([self.binary, *map(str, arguments)], input=input, capture_output=True, text=True,
                              timeout=within_s, env=self.client_environment(), cwd=self.folder,
                              **({} if input else {"stdin": subprocess.DEVNULL}))
        if done.returncode != 0:
            raise Failed(f"backtide {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def request(self, method, path, body=None, headers=None):
        """Returns (seconds until the last byte, headers and trailers, body)."""
        connection = http.client.HTTPConnection(self.http_address, timeout=600)
        connection.response_class = Answer
        with contextlib.closing(connection):
            start = time.monotonic()
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", "TE": "trailers", **(headers or {})})
            answer = connection.getresponse()
            body = answer.read()
            seconds = time.monotonic() - start
        if answer.status != 200:
            raise Failed(f"{method} {path.split('?')[0]}: {answer.status} {body[:500].decode(errors='replace')}")
        return seconds, answer.headers, body

    def compact(self):
        """Flushes, classifies and merges everything; returns {"segments", "segmentBytes", "seconds", "cpuSeconds"}."""
        before = machine.cpu_s(self.pid)
        seconds, _, body = self.request("POST", "/api/v1/store/compact")
        return {**json.loads(body), "seconds": seconds, "cpuSeconds": machine.cpu_s(self.pid) - before}

    def files(self):
        """What lies on the disk now; `overlapping`: the most segments that one read must join."""
        _, _, figures = self.request("GET", "/api/v1/store")
        return {
            "segments": sum(1 for _ in self.data.rglob("*.parquet")),
            "overlapping": json.loads(figures)["overlappingSegmentsMax"],
            "segmentBytes": machine.bytes_in(self.data, "*.parquet"),
            "journalBytes": machine.bytes_in(self.data, "*.btj"),
            "allBytes": machine.bytes_in(self.data),
        }


class Mosquitto(Server):
    """With persistence, and its bounds on queues taken off."""

    name = "mosquitto"
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"

    def open(self):
        port = free_port()
        self.mqtt = f"127.0.0.1:{port}"
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
                          f"persistence_location {self.folder}/\nmax_inflight_messages 1000\n"
                          f"max_queued_messages 0\nuser root\n")
        self.start(self.binary, "-c", config)
        self.wait_until(lambda: listens(port), "listens")

    def keep_for_absent(self, topic):
        """A subscriber that has a persistent session and is away: all that is published is queued for it."""
        host, port = self.mqtt.split(":")
        subprocess.run(["mosquitto_sub", "-h", host, "-p", port, "-i", "keeper", "-c", "-q", "1", "-t", topic, "-E"],
                       check=True, timeout=30)

    def save(self):
        """Writes the queues to the disk, as it else does every half hour and at the end."""
        database = self.folder / "mosquitto.db"
        before = database.stat().st_mtime_ns if database.exists() else 0
        self.process.send_signal(signal.SIGUSR1)
        self.wait_until(lambda: database.exists() and database.stat().st_mtime_ns > before, "saves", within_s=300)
        return database.stat().st_size

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()  # an orderly end would write all queues once more
            self.process.wait()


class Influxdb(Server):
    """Its defaults, moved into the folder; the write-ahead log is synced for each request. Once writes end, it compacts
    within seconds, not hours."""

    name = "influxdb"

    def open(self):
        port, rpc = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        config = self.folder / "influxdb.conf"
        config.write_text(f"""
            reporting-disabled = true
            bind-address = "127.0.0.1:{rpc}"
            [meta]
            dir = "{self.folder}/meta"
            [data]
            dir = "{self.folder}/data"
            wal-dir = "{self.folder}/wal"
            query-log-enabled = false
            cache-snapshot-write-cold-duration = "2s"
            compact-full-write-cold-duration = "4s"
            [monitor]
            store-enabled = false
            [http]
            bind-address = "{self.address}"
            log-enabled = false
        """)
        self.start("influxd", "-config", config)
        self.wait_until(lambda: listens(port), "listens")
        self.query("CREATE DATABASE bench")

    def query(self, text):
        connection = http.client.HTTPConnection(self.address, timeout=300)
        with contextlib.closing(connection):
            body = f"db=bench&q={text.replace(' ', '%20')}"
            connection.request("POST", "/query", body, {"Content-Type": "application/x-www-form-urlencoded"})
            answer = json.loads(connection.getresponse().read())
        if "error" in answer["results"][0]:
            raise Failed(f"InfluxDB: {answer['results'][0]['error']}")
        return answer["results"][0]

    def rows(self):
        series = self.query("SELECT count(P_avg) FROM turbine").get("series", [])
        return series[0]["values"][0][1] if series else 0

    def prepare(self, devices):
        pass  # the schema comes with the first line

    @property
    def writer_target(self):
        return self.address

    def data_bytes(self):
        return machine.bytes_in(self.folder / "data") + machine.bytes_in(self.folder / "wal")


class Postgresql(Server):
    """Durable (fsync, synchronous_commit), with more memory and room between checkpoints than its defaults give."""

    name = "postgresql"
    stop_signal = signal.SIGINT
    settings = {"shared_buffers": "512MB", "max_wal_size": "4GB", "synchronous_commit": "on", "fsync": "on"}

    def open(self):
        self.port = free_port()
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        user = self.user if os.getuid() == 0 else None
        if user:
            shutil.chown(self.folder, user)
        initdb = self.tool("initdb")
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"] if user else []
        done = subprocess.run([*as_user, initdb, "-D", self.folder / "data", "-U", "bench", "--auth=trust", "-E", "UTF8",
                               "--locale=C"], capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise Failed(f"initdb failed: {done.stderr[-1000:]}(can {self.user} reach {self.folder}? else name another "
                         f"folder with --work)")
        settings = [part for key, value in self.settings.items() for part in ("-c", f"{key}={value}")]
        self.start(self.tool("postgres"), "-D", self.folder / "data", "-p", self.port, "-c", "listen_addresses=127.0.0.1",
                   "-c", f"unix_socket_directories={self.folder}", *settings, user=user)
        self.wait_until(self.is_ready, "accepts connections")

    @staticmethod
    def tool(name):
        found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}")) or [shutil.which(name)]
        return found[-1]

    def is_ready(self):
        return subprocess.run([self.tool("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]).returncode == 0

    def query(self, text):
        done = subprocess.run([self.tool("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "bench", "-d", "postgres",
                               "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"PostgreSQL: {done.stderr[-1000:]}")
        return done.stdout.strip()

    def rows(self):
        return int(self.query("SELECT count(*) FROM turbine"))

    def prepare(self, devices):
        self.query("CREATE TABLE device (id int PRIMARY KEY, key text UNIQUE NOT NULL)")
        self.query(f"INSERT INTO device SELECT n, 'T' || lpad(n::text, 6, '0') FROM generate_series(0, {devices - 1}) n")
        self.query("CREATE TABLE turbine (device int, time timestamptz, ba_avg float8, p_avg float8, ws_avg float8, "
                   "va_avg float8, ot_avg float8, ya_avg float8, wa_avg float8, PRIMARY KEY (device, time))")

    @property
    def writer_target(self):
        return f"host=127.0.0.1 port={self.port} user=bench dbname=postgres"

    def data_bytes(self):
        """Table and index; the write-ahead log, which it keeps for re-use, is not counted."""
        return int(self.query("SELECT pg_total_relation_size('turbine')"))


class Writer(Server):
    """The small program between broker and database."""

    name = "writer"

    def __init__(self, folder, broker, database):
        super().__init__(folder)
        self.broker, self.database = broker, database

    def open(self):
        self.start(program("writer"), "--broker", self.broker.mqtt, "--database", self.database.name,
                   "--to", self.database.writer_target, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise Failed(f"the writer ended with {self.process.wait()}: {self.end_of_log()}")


def program(name):
    return BENCH / "target/release" / name


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
