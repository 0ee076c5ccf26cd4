"""Caps, as a client meets them."""
import json

import wire
from world import TOPIC

OK_POINT = '{"deviceKey":"R80711","time":1388534400000,"measurepoints":{"P_avg":1.0}}'


def message(params, id):
    head = json.dumps({"id": id, "version": "1.0", "method": "integration.measurepoint.post"})
    return (head[:-1] + ',"params":' + params + "}").encode()


def test_a_burst_of_any_weight_is_taken_and_acknowledged_in_order(farm):
    strings = farm.channel()
    with wire.Link(farm.mqtt_address) as link:
        link.send(wire.connect(strings.clientId, strings.username, strings.password))
        assert link.receive()[0] == 0x20
        blanks = message("[" + " " * 500_000 + "]", "0")
        refused = message("[" + ",".join("1" * 10_000) + "]", "1")
        last = message("[" + OK_POINT + "]", "2")
        payloads = [blanks] + [refused] * 40 + [last]
        link.send(b"".join(wire.publish(TOPIC, payload, packet_id=n) for n, payload in enumerate(payloads, 1)))
        acks = [link.receive() for _ in payloads]
    assert [(first, int.from_bytes(body[:2])) for first, body in acks] == [(0x40, n) for n in range(1, len(payloads) + 1)]
    assert len(farm.cli("quarantine", "ls", "-o", "json").json()) == 40


def test_a_channel_lets_in_as_many_connections_as_it_declares_and_a_take_over_is_none_more(farm):
    farm.apply("kind: Channel\nname: scada-history\nproduct: wind-farm\nmode: strict\nconnectionsMax: 1\n")
    strings = farm.channel()
    other = strings.clientId.removesuffix("|") + ",n=2|"
    with wire.Link(farm.mqtt_address) as first, wire.Link(farm.mqtt_address) as second:
        first.send(wire.connect(strings.clientId, strings.username, strings.password))
        assert first.receive()[1][1] == 0
        second.send(wire.connect(other, strings.username, strings.password))
        assert second.receive()[1][1] != 0, "one is in already"
        with wire.Link(farm.mqtt_address) as again:
            again.send(wire.connect(strings.clientId, strings.username, strings.password))
            assert again.receive()[1][1] == 0, "the same client takes over"
