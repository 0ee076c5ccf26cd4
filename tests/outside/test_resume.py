"""Breakpoint resume: a foreign client loses its link and the server in mid-burst, many times, and loses nothing."""

import random

import truth
from mqtt import Client
from proxy import Proxy
from world import POINTS, SAMPLE, SEED, TOPIC, eventually, points_message

ROWS_PER_MESSAGE = 10
LINK_CUTS, KILLS = 25, 6


def messages():
    """The sample's rows in file order, as requests."""
    rows = truth.read_history(SAMPLE.read_text())
    items = [(row.deviceKey, row.time, {point: value for point in POINTS if (value := getattr(row, point)) == value})
             for row in rows.itertuples(index=False)]
    items = [item for item in items if item[2]]
    chunks = [items[i:i + ROWS_PER_MESSAGE] for i in range(0, len(items), ROWS_PER_MESSAGE)]
    return rows, [points_message(chunk, id=str(i)) for i, chunk in enumerate(chunks)]


def test_a_persistent_client_that_loses_link_and_server_in_mid_burst_ends_with_exactly_the_data(farm):
    rows, payloads = messages()
    draw = random.Random(SEED)
    total = sum(map(len, payloads))
    # Half of the traffic is carried over links that break after a random number of bytes, in whatever packet that falls.
    budgets = [draw.randint(1_000, total // LINK_CUTS) for _ in range(LINK_CUTS)]
    kill_after = sorted(draw.sample(range(20, len(payloads) - 20), KILLS))

    with Proxy(farm.mqtt_address, budget=lambda: budgets.pop() if budgets else None) as proxy:
        client = Client(proxy.address, farm.channel(), clean=False, window=20, reconnect_s=0.05)
        client.paho.max_queued_messages_set(0)
        client.connect()
        sent = []
        try:
            for number, payload in enumerate(payloads):
                # Feed as the window moves, so that cuts and kills meet a client in mid-burst.
                eventually(lambda: len(sent) - len(client.acked) < 40, lambda: stuck(client, sent, farm), within_s=60,
                           every_s=0.001)
                sent.append(client.paho.publish(TOPIC, payload, 1).mid)
                if kill_after and number == kill_after[0]:
                    kill_after.pop(0)
                    farm.kill()
                    farm.start()
            eventually(lambda: set(sent) <= set(client.acked), lambda: stuck(client, sent, farm), within_s=60)
        finally:
            client.close()
    assert not budgets and not kill_after, "every cut and every kill happened"
    assert proxy.cuts >= LINK_CUTS and client.connects > LINK_CUTS

    found = truth.read_query_csv(farm.query(output="csv").out)
    assert truth.difference(truth.winners(rows), found) == ""
    assert farm.quarantine() == []


def stuck(client, sent, gateway):
    return (f"{len(client.acked)} of {len(sent)} acknowledged, {client.connects} connects, "
            f"disconnected with {client.disconnects[-3:]}\n{gateway.log()}")


def test_a_session_and_its_subscription_survive_a_kill_of_the_server(farm, connect):
    client = connect(clean=False)
    client.subscribe(TOPIC + "_reply")
    client.close()
    farm.kill()
    farm.start()
    again = connect(clean=False)
    again.publish(TOPIC, points_message([("R80711", 1_388_534_400_000, {"P_avg": 1.0})], id="9"))
    assert again.reply()[1]["id"] == "9", "without subscribing again"
