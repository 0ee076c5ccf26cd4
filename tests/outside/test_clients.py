"""Real clients, unmodified: the vendor's SDK, paho, mosquitto's tools, MQTT.js."""

import json
import os
import subprocess

import pytest

import wire
from world import PRODUCT_KEY, TOOLS, TOPIC, eventually, points_message

HERE = os.path.dirname(os.path.abspath(__file__))
T0 = 1_388_534_400_000


def run_client(command, orders, timeout_s=60, **more):
    done = subprocess.run(command, input=json.dumps(orders), capture_output=True, text=True, timeout=timeout_s,
                          env={**os.environ, **more})
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def vendor_sdk(farm, **orders):
    strings = farm.channel()
    return run_client([TOOLS / "enos-mqtt/bin/python", f"{HERE}/clients/enos_sdk.py"],
                      {"url": strings.brokerUrl, "productKey": strings.productKey, "secret": strings.secret, **orders})


def mqtt_js(farm, payloads, topic=TOPIC):
    strings = farm.channel()
    return run_client(["node", f"{HERE}/clients/mqttjs.cjs"],
                      {"url": strings.brokerUrl.replace("tcp://", "mqtt://"), "clientId": strings.clientId,
                       "username": strings.username, "password": strings.password, "topic": topic,
                       "payloads": [p.decode() for p in payloads]}, NODE_PATH=str(TOOLS / "npm/node_modules"))


def mosquitto(program, farm, *options, code=0, version="mqttv311", strings=None):
    host, port = farm.mqtt_address
    login = strings or (farm.channel().clientId, farm.channel().username, farm.channel().password)
    done = subprocess.run([program, "-h", host, "-p", str(port), "-V", version, "-i", login[0], "-u", login[1],
                           "-P", login[2], *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, f"{program} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# --- the vendor's SDK ---


def test_the_vendor_sdk_posts_points_and_gets_its_replies(farm):
    outcome = vendor_sdk(farm, sync=[[["R80711", T0, {"P_avg": 642.78003, "Ws_avg": 7.119999900000001}],
                                      ["R80721", T0, {"P_avg": 1.5}]],
                                     [["R80711", T0 + 600_000, {"P_avg": 2.5}]]])
    assert outcome["connected"]
    assert [(a["code"], a["success"]) for a in outcome["sync"]] == [(200, True)] * 2
    assert farm.cells() == {("R80711", T0, "P_avg"): 642.78003, ("R80711", T0, "Ws_avg"): 7.119999900000001,
                            ("R80721", T0, "P_avg"): 1.5, ("R80711", T0 + 600_000, "P_avg"): 2.5}


def test_the_vendor_sdk_posts_points_asynchronously(farm):
    batches = [[["R80711", T0 + i, {"P_avg": float(i)}]] for i in range(15)]
    outcome = vendor_sdk(farm, **{"async": batches})
    assert [a.get("code") for a in outcome["async"]] == [200] * 15
    assert farm.cells() == {("R80711", T0 + i, "P_avg"): float(i) for i in range(15)}


def test_the_vendor_sdk_sees_why_its_data_was_refused(farm):
    outcome = vendor_sdk(farm, sync=[[["nobody", T0, {"P_avg": 1.0}]], [["R80711", T0, {"P_avg": "much"}]]])
    assert [(a["code"], a["success"]) for a in outcome["sync"]] == [(1257, False), (1204, False)]
    assert all(a["message"] for a in outcome["sync"])


@pytest.mark.parametrize("method", ["hmacsha256", "hmacsha1", "hmacmd5"])
def test_the_vendor_sdk_logs_in_with_every_digest_it_knows(farm, method):
    outcome = vendor_sdk(farm, signMethod=method, sync=[[["R80711", T0, {"P_avg": 1.0}]]])
    assert outcome["connected"] and outcome["sync"][0]["code"] == 200


def test_the_vendor_sdk_with_a_wrong_secret_is_not_connected(farm):
    assert vendor_sdk(farm, secret="wrong", connectSeconds=2)["connected"] is False


# --- MQTT.js ---


def test_mqtt_js_speaks_mqtt_5_and_gets_its_replies(farm):
    payloads = [points_message([("R80711", T0 + i, {"P_avg": i + 0.5})], id=str(i)) for i in range(20)]
    outcome = mqtt_js(farm, payloads)
    assert (outcome["connack"], outcome["granted"], set(outcome["reasons"])) == (0, 1, {0})
    assert [(r["topic"], r["body"]["id"], r["body"]["code"]) for r in outcome["replies"]] == [
        (TOPIC + "_reply", str(i), 200) for i in range(20)]
    assert farm.cells() == {("R80711", T0 + i, "P_avg"): i + 0.5 for i in range(20)}


# --- mosquitto's tools ---


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_rr_publishes_and_prints_the_reply(farm, version, qos):
    body = points_message([("R80711", T0, {"P_avg": 1.5})], id="7").decode()
    out = mosquitto("mosquitto_rr", farm, "-q", qos, "-t", TOPIC, "-e", TOPIC + "_reply", "-m", body, "-W", "20",
                    version=version)
    assert json.loads(out)["id"] == "7" and json.loads(out)["code"] == 200
    assert farm.cells() == {("R80711", T0, "P_avg"): 1.5}


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub_with_qos_1_returns_when_its_lines_are_stored(farm, version):
    lines = b"\n".join(points_message([("R80711", T0 + i, {"P_avg": float(i)})]) for i in range(50))
    path = farm.folder / "lines"
    path.write_bytes(lines + b"\n")
    with open(path) as stdin:
        host, port = farm.mqtt_address
        strings = farm.channel()
        subprocess.run(["mosquitto_pub", "-h", host, "-p", str(port), "-V", version, "-i", strings.clientId, "-u",
                        strings.username, "-P", strings.password, "-q", "1", "-t", TOPIC, "-l"], stdin=stdin, check=True,
                       timeout=60)
    assert farm.cells() == {("R80711", T0 + i, "P_avg"): float(i) for i in range(50)}


@pytest.mark.parametrize("topic", [TOPIC + "_reply", f"/sys/{PRODUCT_KEY}/integration/+/post_reply",
                                   f"sys/{PRODUCT_KEY}/integration/measurepoint/post_reply"])
def test_mosquitto_sub_may_listen_to_replies_of_its_own_product(farm, topic):
    mosquitto("mosquitto_sub", farm, "-t", topic, "-q", "1", "-E")


@pytest.mark.parametrize("topic", ["#", "+/+/integration/measurepoint/post_reply",
                                   "/sys/another1/integration/measurepoint/post_reply"])
def test_mosquitto_sub_is_denied_what_is_not_a_reply_of_its_own(farm, topic):
    strings = farm.channel()
    login = (strings.clientId, strings.username, strings.password)
    with wire.Link(farm.mqtt_address) as link:
        link.send(wire.connect(*login))
        assert link.receive()[1][1] == 0
        link.send(wire.packet(0x82, b"\x00\x01" + wire.text(topic) + b"\x01"))
        first, body = link.receive()
        assert (first, body) == (0x90, b"\x00\x01\x80")


# --- paho ---


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_paho_keeps_a_full_window_in_flight_and_every_message_is_answered(farm, connect, v5):
    client = connect(v5=v5, window=100)
    client.subscribe(TOPIC + "_reply")
    for i in range(500):
        client.paho.publish(TOPIC, points_message([("R80711", T0 + i, {"P_avg": float(i)})], id=str(i)), 1)
    assert [client.reply()[1]["id"] for _ in range(500)] == [str(i) for i in range(500)], "replies come in order"
    assert farm.cells() == {("R80711", T0 + i, "P_avg"): float(i) for i in range(500)}


def test_a_client_that_publishes_right_after_subscribing_loses_no_reply(farm):
    strings = farm.channel()
    with wire.Link(farm.mqtt_address) as link:  # everything in one write, as a client may
        link.send(wire.connect(strings.clientId, strings.username, strings.password)
                  + wire.packet(0x82, b"\x00\x01" + wire.text(TOPIC + "_reply") + b"\x01")
                  + wire.publish(TOPIC, points_message([("R80711", T0, {"P_avg": 1.0})]), packet_id=2))
        got = [link.receive() for _ in range(4)]
    assert {first & 0xF0 for first, _ in got} == {0x20, 0x90, 0x40, 0x30}


def test_a_second_connection_with_the_same_client_id_takes_over(farm, connect):
    first = connect(v5=True)
    second = connect(v5=True)
    eventually(lambda: first.disconnects == [0x8E], lambda: f"the first is told of the take-over: {first.disconnects}")
    assert second.post(("R80711", T0, {"P_avg": 1.0}))["code"] == 200


def test_a_reply_to_a_client_that_is_away_waits_in_its_persistent_session(farm):
    strings = farm.channel()
    login = (strings.clientId, strings.username, strings.password)
    with wire.Link(farm.mqtt_address) as link:
        link.send(wire.connect(*login, clean=False)
                  + wire.packet(0x82, b"\x00\x01" + wire.text(TOPIC + "_reply") + b"\x01"))
        link.receive(), link.receive()
        link.send(wire.publish(TOPIC, points_message([("R80711", T0, {"P_avg": 1.0})], id="kept"), packet_id=2))
        assert link.receive()[0] == 0x40, "the message is taken; what is not acknowledged is the client's to send again"
    # gone without a word; the reply was never acknowledged
    with wire.Link(farm.mqtt_address) as link:
        link.send(wire.connect(*login, clean=False))
        first, body = link.receive()
        assert (first, body[0]) == (0x20, 1), "the session is present"
        first, body = link.receive()
        while first & 0xF0 != 0x30:
            first, body = link.receive()
        assert json.loads(body[body.index(b"{"):])["id"] == "kept"
