"""What tests of policies share: a pump of the product PUMPS, its clients, and what is stored of it. `plant` is each file's own."""

import pytest

from mqtt import Client

T0 = 1_388_534_400_000
POST = "/sys/PUMPS/integration/measurepoint/post"


@pytest.fixture
def client(plant):
    made = []

    def make(channel="history"):
        made.append(Client(plant.mqtt_address, plant.channel(channel)).connect())
        return made[-1]

    yield make
    for one in made:
        one.close()


def stored(gateway, points):
    asked = ["--product", "pumps", "--device", "pump-7", "--points", points,
             "--from", "1970-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"]
    return gateway.cli("query", *asked, "-o", "ndjson").ndjson()


def post(client, *values):
    return client.post(*(("pump-7", T0 + 1000 * n, of_row) for n, of_row in enumerate(values)), topic=POST)
