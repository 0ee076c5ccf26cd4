"""MQTT over TLS: real clients, one-way and mutual; certificates that do not fit; reload; the wrong port."""

import json
import os
import shutil
import socket
import ssl
import subprocess

import pytest

import wire
from certs import Certs
from test_clients import HERE, run_client
from world import BIN, CHANNEL, FARM, OK, PRODUCT, TOOLS, TOPIC, USAGE, eventually, points_message

T0 = 1_388_534_400_000
BODY = points_message([("R80711", T0, {"P_avg": 1.5})], id="7").decode()


@pytest.fixture
def certs(tmp_path):
    """An authority with a server certificate and the client certificate plant-7."""
    made = Certs(tmp_path / "certs")
    made.cli("server")
    made.cli("client", "plant-7", "--organization", "Acme")
    return made


def options(folder, certs, client_ca=True):
    config = folder / "backtide.toml"
    lines = ["[mqtts]", f"certificate = {json.dumps(certs['server.pem'])}", f"key = {json.dumps(certs['server.key'])}"]
    lines += [f"client_ca = {json.dumps(certs['ca.pem'])}"] if client_ca else []
    config.write_text("\n".join(lines) + "\n")
    return ["--config", str(config), "--mqtts", "127.0.0.1:0"]


@pytest.fixture
def secure(gateways, tmp_path, certs):
    """A farm with a TLS door that asks for client certificates."""
    gateway = gateways(*options(tmp_path, certs)).start()
    gateway.apply(FARM)
    return gateway


def tls_address(gateway):
    host, port = gateway.addresses["mqtts"].rsplit(":", 1)
    return host, int(port)


def want_certificate(gateway, rule):
    """Declares what client certificate the farm's channel wants."""
    channel = gateway.cli("get", "channel", CHANNEL, "-o", "json").json()
    channel["clientCertificate"] = rule
    gateway.apply(json.dumps(channel))


def vendor_sdk(gateway, tls, url="ssl", **orders):
    strings = gateway.channel()
    host, port = tls_address(gateway)
    return run_client([TOOLS / "enos-mqtt/bin/python", f"{HERE}/clients/enos_sdk.py"],
                      {"url": f"{url}://{host}:{port}", "productKey": strings.productKey, "secret": strings.secret,
                       "tls": tls, "sync": [[["R80711", T0, {"P_avg": 1.5}]]], **orders})


def mosquitto_rr(gateway, certs, *more, version="mqttv311"):
    host, port = tls_address(gateway)
    strings = gateway.channel()
    return subprocess.run(
        ["mosquitto_rr", "-h", host, "-p", str(port), "-V", version, "-i", strings.clientId, "-u", strings.username,
         "-P", strings.password, "--cafile", certs["ca.pem"], "-q", "1", "-t", TOPIC, "-e", TOPIC + "_reply", "-m",
         BODY, "-W", "20", *more], capture_output=True, text=True, timeout=60)


def own(certs, name):
    return "--cert", certs[f"{name}.pem"], "--key", certs[f"{name}.key"]


def context(certs, name=None, version=None):
    made = ssl.create_default_context(cafile=certs["ca.pem"])
    if name:
        made.load_cert_chain(certs[f"{name}.pem"], certs[f"{name}.key"])
    if version:
        made.minimum_version = made.maximum_version = version
    return made


class Link(wire.Link):
    """A TLS connection that speaks packets."""

    def __init__(self, gateway, how, strings=None):
        super().__init__(tls_address(gateway))
        self.socket = how.wrap_socket(self.socket, server_hostname="localhost")
        strings = strings or gateway.channel()
        self.send(wire.connect(strings.clientId, strings.username, strings.password))

    def post(self, packet_id, at=T0):
        self.send(wire.publish(TOPIC, points_message([("R80711", at, {"P_avg": 1.5})]), packet_id))
        return self.receive()


def log_has(gateway, *words):
    eventually(lambda: any(all(word in line for word in words) for line in gateway.log().splitlines()),
               lambda: f"a line with {words} in\n{gateway.log()}")


def channel_error(gateway, *words):
    def there():
        return any(entry.kind == "error" and all(word in entry.message for word in words)
                   for entry in gateway.channel_log())
    eventually(there, lambda: f"an entry with {words} in {gateway.channel_log()}")


# --- the vendor's SDK ---


@pytest.mark.parametrize("ciphers", [None, "ECC"])
def test_the_vendor_sdk_posts_over_one_way_tls(secure, certs, ciphers):
    outcome = vendor_sdk(secure, {"ca": certs["ca.pem"], "ciphers": ciphers})
    assert outcome["connected"] and outcome["sync"][0]["code"] == 200
    assert secure.cells() == {("R80711", T0, "P_avg"): 1.5}


def test_the_vendor_sdk_posts_over_mutual_tls(secure, certs):
    want_certificate(secure, {"required": True, "subject": {"CN": "plant-7", "O": "Acme"}})
    mutual = {"ca": certs["ca.pem"], "cert": certs["plant-7.pem"], "key": certs["plant-7.key"]}
    outcome = vendor_sdk(secure, mutual)
    assert outcome["connected"] and outcome["sync"][0]["code"] == 200
    assert any(entry.kind == "connect" and entry["protocol"] == "3.1.1 over TLS" for entry in secure.channel_log())


def test_the_vendor_sdks_rsa_cipher_preset_fits_an_rsa_certificate(gateways, tmp_path, certs):
    certs.signed("server")
    gateway = gateways(*options(tmp_path, certs)).start()
    gateway.apply(FARM)
    outcome = vendor_sdk(gateway, {"ca": certs["ca.pem"], "ciphers": "RSA"})
    assert outcome["connected"] and outcome["sync"][0]["code"] == 200
    for preset in ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]:
        how = context(certs, version=ssl.TLSVersion.TLSv1_2)
        how.set_ciphers(preset)
        with Link(gateway, how) as link:
            assert link.receive() == (0x20, b"\0\0")
            assert link.socket.cipher()[0] == preset


# --- protocol versions ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_of_one_tls_version_are_served_with_rsa_and_ecc(gateways, tmp_path, certs, version):
    for folder, make in [("ecc", lambda: None), ("rsa", lambda: certs.signed("server"))]:
        make()
        gateway = gateways(*options(tmp_path, certs), folder=folder).start()
        gateway.apply(FARM)
        with Link(gateway, context(certs, "plant-7", version)) as link:
            assert link.receive() == (0x20, b"\0\0")
            assert link.post(1) == (0x40, b"\0\x01")
            assert link.socket.version() == version.name.replace("v1_", "v1.")


def test_tls_1_1_is_refused(secure, certs):
    how = context(certs)
    how.minimum_version = ssl.TLSVersion.TLSv1
    how.maximum_version = ssl.TLSVersion.TLSv1_1
    how.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        Link(secure, how)
    log_has(secure, "no TLS connection")


# --- client certificates ---


def test_mosquitto_with_its_certificate_reaches_a_channel_that_requires_it(secure, certs):
    for rule in [{"required": True}, {"required": True, "sha256": [certs.fingerprint("plant-7")]},
                 {"required": True, "subject": {"CN": "plant-7"}}]:
        want_certificate(secure, rule)
        for version in ["mqttv311", "mqttv5"]:
            done = mosquitto_rr(secure, certs, *own(certs, "plant-7"), version=version)
            assert done.returncode == 0 and json.loads(done.stdout)["code"] == 200, done


@pytest.mark.parametrize("version, code", [("mqttv311", 5), ("mqttv5", 0x87)])
def test_without_its_certificate_a_required_channel_is_closed(secure, certs, version, code):
    want_certificate(secure, {"required": True, "subject": {"CN": "plant-7"}})
    done = mosquitto_rr(secure, certs, version=version)
    assert done.returncode == code, done
    channel_error(secure, "expects a client certificate with CN=plant-7", "none came over TLS")
    strings = secure.channel()
    level = 5 if version == "mqttv5" else 4
    got = wire.connack(secure.mqtt_address, strings.clientId, strings.username, strings.password, level)
    assert got == code
    channel_error(secure, "expects a client certificate with CN=plant-7", "none came over TCP")


def test_the_certificate_of_another_client_is_named_beside_what_was_expected(secure, certs):
    certs.cli("client", "plant-8")
    want_certificate(secure, {"required": True, "sha256": [certs.fingerprint("plant-7")]})
    assert mosquitto_rr(secure, certs, *own(certs, "plant-8")).returncode != 0
    fingerprint = certs.fingerprint("plant-8").replace(":", "").lower()
    channel_error(secure, "expects a client certificate with sha256", "CN=plant-8", fingerprint)


def test_an_optional_certificate_may_be_absent_but_not_wrong(secure, certs):
    certs.cli("client", "plant-8")
    want_certificate(secure, {"subject": {"CN": "plant-7"}})
    assert mosquitto_rr(secure, certs).returncode == 0
    assert mosquitto_rr(secure, certs, *own(certs, "plant-7")).returncode == 0
    assert mosquitto_rr(secure, certs, *own(certs, "plant-8")).returncode != 0


def test_a_certificate_does_not_replace_the_password(secure, certs):
    want_certificate(secure, {"required": True})
    strings = secure.channel()
    with wire.Link(tls_address(secure)) as link:
        link.socket = context(certs, "plant-7").wrap_socket(link.socket, server_hostname="localhost")
        link.send(wire.connect(strings.clientId, strings.username, "wrong"))
        assert link.receive() == (0x20, b"\0\4")


def test_expired_foreign_and_misused_certificates_end_in_the_handshake(secure, certs, tmp_path):
    certs.signed("late", use="clientAuth", dates=["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"])
    certs.signed("early", use="clientAuth", dates=["-startdate", "20900101000000Z", "-enddate", "20910101000000Z"])
    other = Certs(tmp_path / "other")
    other.cli("client", "plant-7")
    for folder, name, words in [(certs, "late", "has expired"), (certs, "early", "not valid yet"),
                                (other, "plant-7", "is of no authority in mqtts.client_ca"),
                                (certs, "server", "not meant for clients")]:
        done = mosquitto_rr(secure, certs, *own(folder, name))
        assert done.returncode != 0, (name, done)
        log_has(secure, "no TLS connection", words)


def test_a_rule_that_changes_ends_the_connections_that_it_no_longer_admits(secure, certs):
    certs.cli("client", "plant-8")
    want_certificate(secure, {"required": True})
    with Link(secure, context(certs, "plant-7")) as link:
        assert link.receive() == (0x20, b"\0\0")
        want_certificate(secure, {"required": True, "subject": {"CN": "plant-8"}})
        assert link.receive() is None


# --- reload ---


def served_by(gateway, certs):
    with socket.create_connection(tls_address(gateway), timeout=20) as raw:
        with context(certs).wrap_socket(raw, server_hostname="localhost") as link:
            return link.getpeercert(binary_form=True)


def test_a_renewed_certificate_is_served_without_dropping_connections(secure, certs):
    before = served_by(secure, certs)
    with Link(secure, context(certs)) as link:
        assert link.receive() == (0x20, b"\0\0")
        certs.cli("server", "--force")
        eventually(lambda: served_by(secure, certs) != before, "the new certificate is served")
        assert link.post(1) == (0x40, b"\0\x01")


def test_a_bad_new_certificate_keeps_the_old_and_says_so(secure, certs):
    before = served_by(secure, certs)
    shutil.copy(certs["plant-7.key"], certs["server.key"])
    log_has(secure, "the one before stays", "is not the key of")
    assert 'backtide_tls_reloads_total{result="failed"}' in secure.http("GET", "/metrics", token=False).text
    assert served_by(secure, certs) == before
    certs.signed("server", dates=["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"])
    log_has(secure, "the one before stays", "has expired on 2021")
    assert served_by(secure, certs) == before


# --- configuration ---


def test_config_check_says_what_is_wrong_with_a_certificate(gateways, tmp_path, certs):
    flags = options(tmp_path, certs)[:2]
    gateway = gateways()

    def check():
        done = subprocess.run([BIN, "config", "check", *flags], capture_output=True,
                              text=True, timeout=60)
        return done.returncode, done.stderr

    assert check()[0] == OK
    certs.signed("late", dates=["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"])
    for name, words in [("late", "has expired on 2021-01-01"), ("plant-7", "is not the key of")]:
        shutil.copy(certs[f"{name}.pem"], certs["server.pem"])
        code, said = check()
        assert code == USAGE and words in said and "server.pem" in said, said
    os.remove(certs["server.pem"])
    code, said = check()
    assert code == USAGE and "is not there" in said, said
    del gateway


def test_channel_show_prints_the_tls_url_when_that_door_is_open(secure, gateways):
    farm = gateways(folder="plain").start()
    farm.apply(FARM)
    shown = secure.cli("channel", "show", CHANNEL, "-o", "json").json()
    assert shown["brokerTlsUrl"] == f"ssl://{secure.addresses['mqtts']}"
    assert f"ssl://{secure.addresses['mqtts']}" in secure.cli("channel", "show", CHANNEL).out
    assert "brokerTlsUrl" not in farm.cli("channel", "show", CHANNEL, "-o", "json").json()
    assert "mqtts" not in farm.addresses


# --- the wrong port, and slow handshakes ---


def test_plain_mqtt_at_the_tls_port_and_tls_at_the_plain_port_are_named(secure, certs):
    strings = secure.channel()
    with wire.Link(tls_address(secure)) as link:
        link.send(wire.connect(strings.clientId, strings.username, strings.password))
        while link.socket.recv(4096):
            pass
    log_has(secure, "no TLS connection", "what came is not TLS", "plain port")
    with socket.create_connection(secure.mqtt_address, timeout=20) as raw, pytest.raises((ssl.SSLError, OSError)):
        context(certs).wrap_socket(raw, server_hostname="localhost")
    log_has(secure, "a TLS client belongs at the port of mqtts")


def test_a_handshake_that_is_never_finished_is_given_up(secure):
    with wire.Link(tls_address(secure)) as link:
        link.send(b"\x16\x03\x01\x02\x00")
        assert link.receive() is None
    log_has(secure, "no TLS connection", "it took too long")


def test_a_channel_that_requires_a_certificate_and_the_product_of_another_do_not_mix(secure, certs):
    """A rule is its channel's alone: another channel of the same product goes on without."""
    secure.apply(json.dumps({"kind": "Channel", "name": "open", "product": PRODUCT}))
    want_certificate(secure, {"required": True})
    with Link(secure, context(certs), secure.channel("open")) as link:
        assert link.receive() == (0x20, b"\0\0")
    with Link(secure, context(certs)) as link:
        assert link.receive() == (0x20, b"\0\5")
