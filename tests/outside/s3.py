"""A real server of S3: the Versity S3 Gateway over a folder of the test's, on a free loopback port. `make tools` builds it."""

import subprocess

import requests

import world
from kafka import free_ports

BINARY = world.TOOLS / "s3/versitygw"
KEY, SECRET = "archive-key", "archive-secret-that-nobody-may-read"


class S3:
    """One server; its buckets are folders, its objects files."""

    def __init__(self, folder):
        assert BINARY.exists(), f"no S3 server at {BINARY}: run `make tools`"
        self.folder = folder
        self.buckets = folder / "buckets"
        self.buckets.mkdir(parents=True, exist_ok=True)
        (folder / "sidecar").mkdir(exist_ok=True)
        self.port = free_ports(1)[0]
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        with open(self.folder / "s3.log", "ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "--access", KEY, "--secret", SECRET, "--port", f"127.0.0.1:{self.port}", "posix",
                 "--sidecar", self.folder / "sidecar", self.buckets],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        world.eventually(self._answers, "the S3 server answers")
        return self

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "s3.log").read_text()
        try:
            return requests.get(self.url, timeout=2).status_code == 403
        except requests.ConnectionError:
            return False

    def bucket(self, name):
        (self.buckets / name).mkdir()
        return name

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
