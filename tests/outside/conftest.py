import os
import pathlib
import shutil
import tempfile

import pytest

import truth
import world
from browser import Browser, Console
from kafka import Kafka
from mqtt import Client
from proxy import Proxy


# A whole run has less than half of it on the disk at any time, and a gateway takes nothing with less than 256 MiB free.
ROOM_BYTES = 4 << 30


def pytest_sessionstart(session):
    if not os.access(world.BIN, os.X_OK):
        pytest.exit(f"no backtide binary at {world.BIN}: run `make build`, or name one in BACKTIDE_BIN", returncode=3)
    place = pathlib.Path(session.config.getoption("basetemp") or os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir())
    free = shutil.disk_usage(place if place.exists() else place.parent).free
    # Of the run as a whole: when workers of xdist start, tests of others may be under way.
    if free < ROOM_BYTES and not hasattr(session.config, "workerinput"):
        pytest.exit(f"{place} has {free >> 20} MiB free, the suite needs {ROOM_BYTES >> 20} MiB: make room, or set TMPDIR "
                    "to a folder on a larger disk", returncode=3)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the servers of its test had to say."""
    report = yield
    if report.failed and call.when == "call":
        for gateway in getattr(item, "gateways", []):
            report.sections.append((f"log of the server in {gateway.folder.name}/", gateway.log()))
    return report


@pytest.fixture
def gateways(request, tmp_path):
    """Makes gateways that end with the test."""
    made = request.node.gateways = []

    def make(*options, folder="gateway"):
        (tmp_path / folder).mkdir(exist_ok=True)
        made.append(world.Gateway(tmp_path / folder, *options))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()


@pytest.fixture
def gateway(gateways):
    """An empty running gateway."""
    return gateways().start()


@pytest.fixture
def farm(gateway):
    """A running gateway that knows the wind farm."""
    gateway.apply(world.FARM)
    return gateway


@pytest.fixture
def connect(farm):
    """Connects paho clients to the farm's channel; they go away with the test."""
    clients = []

    def connected(strings=None, gateway=farm, **options):
        clients.append(Client(gateway.mqtt_address, strings or gateway.channel(), **options).connect())
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def browser():
    """Real Chromium, one for all tests."""
    chromium = Browser()
    yield chromium
    chromium.close()


@pytest.fixture
def console_of(browser):
    """Opens consoles of a gateway, each in a profile of its own."""
    opened = []

    def open_(gateway, **options):
        opened.append(Console(browser, gateway, **options))
        return opened[-1]

    yield open_
    for console in opened:
        console.close()


@pytest.fixture
def console(farm, console_of):
    """The console of the farm's gateway, an admin signed in."""
    return console_of(farm).sign_in()


@pytest.fixture(scope="session")
def kafka_node(tmp_path_factory):
    """One Apache Kafka for all tests of a worker; each takes an organization of its own, and so topics."""
    node = Kafka(tmp_path_factory.mktemp("kafka")).start()
    yield node
    node.close()


@pytest.fixture
def own_kafka(tmp_path):
    """An Apache Kafka that the test may kill, stop and start."""
    node = Kafka(tmp_path / "kafka").start()
    yield node
    node.close()


@pytest.fixture
def proxy(farm):
    """A link to the farm's MQTT door that can be cut."""
    with Proxy(farm.mqtt_address) as link:
        yield link


@pytest.fixture(scope="session")
def history():
    """The real data, and what must come out of it."""
    folder = os.environ.get("BACKTIDE_TEST_DATA") or world.TOOLS / "data"
    return truth.History(pathlib.Path(folder) / "la-haute-borne-2014-2015.csv.zst")
