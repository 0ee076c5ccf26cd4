"""Who may come in: every spelling of the login, and what pausing and rotating do."""

import gzip
import json

import pytest

import wire
from world import CHANNEL, FARM, PRODUCT_KEY, TOPIC, eventually, points_message

T0 = 1_388_534_400_000
ACCEPTED, BAD_CREDENTIALS, UNAVAILABLE = 0, {4: 4, 5: 0x86}, {4: 3, 5: 0x88}


@pytest.mark.parametrize("level", [4, 5])
def test_the_four_strings_are_accepted_for_ever_whatever_their_timestamp(farm, level):
    strings = farm.channel()
    assert wire.connack(farm.mqtt_address, strings.clientId, strings.username, strings.password, level) == ACCEPTED
    for timestamp in ("1", "1700000000000", "1795456582936.8845", "99999999999999"):
        login = wire.login(strings.productKey, strings.secret, timestamp=timestamp)
        assert wire.connack(farm.mqtt_address, *login, level) == ACCEPTED, timestamp


@pytest.mark.parametrize("method", ["sha256", "sha1", "md5", "hmacsha256", "hmacsha1", "hmacmd5"])
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
def test_every_digest_is_accepted_in_either_case(farm, method, upper):
    strings = farm.channel()
    client_id, username, password = wire.login(PRODUCT_KEY, strings.secret, method=method)
    assert wire.connack(farm.mqtt_address, client_id, username, password.upper() if upper else password) == ACCEPTED


@pytest.mark.parametrize("cid", [
    PRODUCT_KEY + "{ip=10.0.0.7,version=enos-mqtt-2.2.16,compress=DEFAULT}",
    PRODUCT_KEY + "{ip=10.0.0.7,version=enos-mqtt-2.2.16,compress=GZIP}",
])
def test_a_brace_block_in_the_client_id_is_accepted_and_part_of_the_digest(farm, cid):
    secret = farm.channel().secret
    assert wire.connack(farm.mqtt_address, *wire.login(PRODUCT_KEY, secret, cid=cid)) == ACCEPTED
    client_id, username, _ = wire.login(PRODUCT_KEY, secret, cid=cid)
    _, _, of_the_bare_key = wire.login(PRODUCT_KEY, secret)
    assert wire.connack(farm.mqtt_address, client_id, username, of_the_bare_key) == BAD_CREDENTIALS[4]


def test_a_compression_that_we_do_not_speak_is_refused_and_the_log_says_why(farm):
    login = wire.login(PRODUCT_KEY, farm.channel().secret, cid=PRODUCT_KEY + "{version=enos-mqtt-2.2.16,compress=LZ4}")
    assert wire.connack(farm.mqtt_address, *login) != ACCEPTED
    eventually(lambda: any(e.kind == "error" and "LZ4" in e.message for e in farm.channel_log()), "an entry naming LZ4")


def test_blanks_between_the_pairs_are_trimmed(farm):
    secret = farm.channel().secret
    password = wire.digest(PRODUCT_KEY, PRODUCT_KEY, "1700000000000", secret)
    client_id = f"{PRODUCT_KEY}|securemode=4, signmethod=sha256 , timestamp=1700000000000|"
    assert wire.connack(farm.mqtt_address, client_id, f"%channel%&{PRODUCT_KEY}", password) == ACCEPTED


@pytest.mark.parametrize("level", [4, 5])
def test_a_wrong_password_is_refused_with_the_code_for_it_and_logged(farm, level):
    strings = farm.channel()
    assert wire.connack(farm.mqtt_address, strings.clientId, strings.username, "0" * 64, level) == BAD_CREDENTIALS[level]
    eventually(lambda: [e for e in farm.channel_log() if e.kind == "error"], "an entry about the refused login")


@pytest.mark.parametrize("client_id, username", [
    ("|securemode=4,signmethod=sha256,timestamp=1|", "%channel%&" + PRODUCT_KEY),
    (PRODUCT_KEY, "%channel%&" + PRODUCT_KEY),
    (f"{PRODUCT_KEY}|securemode=4,signmethod=crc32,timestamp=1|", "%channel%&" + PRODUCT_KEY),
    (f"{PRODUCT_KEY}|securemode=4,signmethod=sha256,timestamp=1|", PRODUCT_KEY),
    (f"{PRODUCT_KEY}|securemode=4,signmethod=sha256,timestamp=1|", "%channel%&another1"),
    (f"{PRODUCT_KEY}|securemode=4,signmethod=sha256,timestamp=1", "R80711&" + PRODUCT_KEY),
])
def test_a_login_of_another_shape_is_refused(farm, client_id, username):
    assert wire.connack(farm.mqtt_address, client_id, username, "0" * 64) == BAD_CREDENTIALS[4]


def test_a_login_goes_to_the_channel_whose_secret_verifies(farm):
    farm.apply("kind: Channel\nname: second\nproduct: wind-farm\nmode: lenient\n")
    strings = farm.channel("second")
    assert strings.productKey == PRODUCT_KEY and strings.secret != farm.channel().secret
    assert wire.connack(farm.mqtt_address, strings.clientId, strings.username, strings.password) == ACCEPTED
    eventually(lambda: [e for e in farm.channel_log("second") if e.kind == "connect"], "the connect in its own log")
    assert not [e for e in farm.channel_log() if e.kind == "connect"]


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_pausing_throws_clients_out_and_resuming_lets_them_in(farm, connect, v5):
    level = 5 if v5 else 4
    strings = farm.channel()
    client = connect(v5=v5)
    farm.cli("channel", "pause", CHANNEL)
    eventually(lambda: client.disconnects, "the connected client is thrown out")
    if v5:
        assert client.disconnects == [0x98]
    login = (strings.clientId, strings.username, strings.password)
    assert wire.connack(farm.mqtt_address, *login, level) == UNAVAILABLE[level]
    farm.restart()
    assert wire.connack(farm.mqtt_address, *login, level) == UNAVAILABLE[level], "a restart does not resume it"
    assert farm.apply_results(FARM)[("Channel", CHANNEL)] == "unchanged", "pausing is no part of the declaration"
    assert wire.connack(farm.mqtt_address, *login, level) == UNAVAILABLE[level]
    farm.cli("channel", "resume", CHANNEL)
    assert wire.connack(farm.mqtt_address, *login, level) == ACCEPTED


def test_rotating_gives_new_strings_and_keeps_the_old_ones_valid_for_the_stated_overlap(farm):
    old = farm.channel()
    new, until = farm.rotate()
    assert until.endswith("Z")
    assert new.secret != old.secret and new.password != old.password
    assert farm.channel() == new
    for strings in (old, new):
        assert wire.connack(farm.mqtt_address, strings.clientId, strings.username, strings.password) == ACCEPTED


def test_the_old_secret_ends_with_its_overlap(farm):
    old = farm.channel()
    new, _ = farm.rotate(CHANNEL, "--overlap", "1s")
    eventually(lambda: wire.connack(farm.mqtt_address, old.clientId, old.username, old.password) == BAD_CREDENTIALS[4],
               "the old strings are refused", every_s=0.5)
    # A caller that was refused may be slowed down, so the new one gets its time.
    eventually(lambda: wire.connack(farm.mqtt_address, new.clientId, new.username, new.password) == ACCEPTED,
               "the new strings are accepted", every_s=0.5)


def test_several_clients_of_one_channel_are_connected_at_once(farm, connect):
    secret = farm.channel().secret
    clients = []
    for i in range(4):
        client_id, username, password = wire.login(PRODUCT_KEY, secret, timestamp=str(i + 1))
        clients.append(connect(client_id=client_id, username=username, password=password))
    for i, client in enumerate(clients):
        assert client.post(("R80711", T0 + i, {"P_avg": float(i)}))["code"] == 200
    assert all(client.disconnects == [] for client in clients)
    assert len(farm.cells()) == 4


def test_gzip_announced_in_the_client_id_compresses_both_ways(farm):
    cid = PRODUCT_KEY + "{ip=10.0.0.7,version=enos-mqtt-2.2.16,compress=GZIP}"
    with wire.Link(farm.mqtt_address) as link:
        link.send(wire.connect(*wire.login(PRODUCT_KEY, farm.channel().secret, cid=cid)))
        assert link.receive()[1][1] == ACCEPTED
        link.send(wire.packet(0x82, b"\x00\x01" + wire.text(TOPIC + "_reply") + b"\x00"))
        assert link.receive()[0] == 0x90
        link.send(wire.publish(TOPIC, gzip.compress(points_message([("R80711", T0, {"P_avg": 1.5})])), packet_id=2))
        packets = [link.receive(), link.receive()]
    reply = next(body for first, body in packets if first & 0xF0 == 0x30)
    payload = reply[2 + len(TOPIC + "_reply"):]
    assert json.loads(gzip.decompress(payload))["code"] == 200
    assert farm.cells() == {("R80711", T0, "P_avg"): 1.5}
