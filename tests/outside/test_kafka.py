"""`backtide kafka check` against real Apache Kafka with listeners in plain text, TLS and SASL."""

import json
import socket
import subprocess
import threading

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

import kafka
import world
from certs import Certs
from world import FAILED, OK, USAGE

# Nodes are started by fixtures that tests of this mark share.
pytestmark = pytest.mark.xdist_group("kafka")
TOPIC = "MEASURE_POINT_ORIGIN_OFFLINE_o1"
DEFAULTS = [TOPIC, "MEASURE_POINT_CAL_OFFLINE_o1", "EVENT_ORIGIN_OFFLINE_o1", "ATTRIBUTE_ORIGIN_OFFLINE_o1",
            "HISTORY_CHANGE_OFFLINE_o1"]


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """A private authority with the broker's certificate, a client's, and some that are wrong."""
    certs = Certs(tmp_path_factory.mktemp("certs"))
    certs.signed("broker", subject="/CN=localhost", use="serverAuth,clientAuth")
    certs.cli("client", "gateway")
    return certs


@pytest.fixture(scope="module")
def secure(certs, tmp_path_factory):
    """A node with every kind of listener, and access control."""
    node = kafka.Kafka(tmp_path_factory.mktemp("kafka"), certs).start()
    yield node
    node.close()


def checked(tmp_path, servers, *options, code=OK, topics=(), **settings):
    """{subject: [(verdict, message)]} of `kafka check` with these settings, as BACKTIDE__KAFKA__…"""
    settings = {f"BACKTIDE__KAFKA__{key.upper()}": str(value) for key, value in settings.items()}
    environment = world.environment(BACKTIDE__KAFKA__BOOTSTRAP_SERVERS=servers,
                                    BACKTIDE__KAFKA__CONNECT_TIMEOUT_MS="3000",
                                    BACKTIDE__KAFKA__DELIVERY_TIMEOUT_MS="10000", **settings)
    named = [option for topic in topics for option in ("--topic", topic)]
    done = subprocess.run([world.BIN, "kafka", "check", "-o", "json", *named, *options], capture_output=True, text=True,
                          timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "battery" not in done.stdout + done.stderr and "correct horse" not in done.stdout + done.stderr
    findings = {}
    for finding in json.loads(done.stdout):
        findings.setdefault(finding["subject"], []).append((finding["verdict"], finding["message"]))
    return findings


def sasl(user=kafka.USER, password=kafka.PASSWORD, mechanism="SCRAM-SHA-512"):
    return {"sasl__mechanism": mechanism, "sasl__username": user, "sasl__password": password}


def tls(certs, client=None, ca="ca.pem"):
    files = {"tls__enabled": "true", "tls__ca": certs[ca]}
    if client:
        files |= {"tls__certificate": certs[f"{client}.pem"], "tls__key": certs[f"{client}.key"]}
    return files


def assert_wrong(findings, subject, *parts):
    [message] = [message for verdict, message in findings[subject] if verdict == "wrong"]
    for part in parts:
        assert part in message, findings


# --- addresses ---


def test_an_address_that_leads_nowhere_is_told_apart(tmp_path):
    [closed] = kafka.free_ports(1)
    assert_wrong(checked(tmp_path, "no-such-host.invalid:9092", code=FAILED), "address no-such-host.invalid:9092",
                 "does not resolve")
    assert_wrong(checked(tmp_path, f"127.0.0.1:{closed}", code=FAILED), f"address 127.0.0.1:{closed}",
                 "connection refused", "nothing listens")


def test_what_is_not_kafka_is_told(tmp_path, gateway):
    address = gateway.addresses["http"]
    assert_wrong(checked(tmp_path, address, code=FAILED), f"address {address}", "not Kafka")


def test_what_takes_connections_and_says_nothing_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        held = []
        threading.Thread(target=lambda: held.append(listener.accept()), daemon=True).start()
        assert_wrong(checked(tmp_path, address, code=FAILED), f"address {address}", "nobody answers")


def test_without_kafka_configured_it_says_what_to_set(tmp_path):
    done = subprocess.run([world.BIN, "kafka", "check"], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                          env=world.environment())
    assert done.returncode == USAGE and "kafka.bootstrap_servers" in done.stderr


def test_one_bad_address_beside_a_good_one_is_a_warning(tmp_path, secure):
    [closed] = kafka.free_ports(1)
    findings = checked(tmp_path, f"127.0.0.1:{closed},{secure.address}")
    assert findings[f"address 127.0.0.1:{closed}"][0][0] == "warning"
    assert findings[f"address {secure.address}"] == [("ok", "Kafka answers, in plain text")]


# --- TLS ---


def test_tls_on_a_plain_port_and_plain_text_on_one_of_tls(tmp_path, secure, certs):
    plain, sasl_tls = f"localhost:{secure.ports['plain']}", secure.listener("sasl_tls")
    assert_wrong(checked(tmp_path, plain, code=FAILED, **tls(certs)), f"address {plain}", "plain text, not TLS")
    assert_wrong(checked(tmp_path, sasl_tls, code=FAILED, **sasl()), f"address {sasl_tls}", "speaks TLS")


def test_an_authority_that_is_not_known(tmp_path, secure, certs):
    Certs(tmp_path / "other")
    address = secure.listener("sasl_tls")
    settings = {**tls(certs), "tls__ca": tmp_path / "other/ca.pem"}
    assert_wrong(checked(tmp_path, address, code=FAILED, **sasl(), **settings), f"address {address}",
                 "not signed by the authority", "kafka.tls.ca")


@pytest.fixture
def served(certs):
    """A TLS listener with a certificate that no broker would start with, on a port of its own."""
    servers = []

    def serve(name):
        [port] = kafka.free_ports(1)
        servers.append(subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certs[f"{name}.pem"], "-key",
             certs[f"{name}.key"], "-quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL))
        world.eventually(lambda: answers(port), "openssl s_server listens")
        return f"localhost:{port}"

    yield serve
    for server in servers:
        server.kill()
        server.wait()


def test_a_certificate_that_has_expired(tmp_path, certs, served):
    certs.signed("expired", dates=("-startdate", "20200101000000Z", "-enddate", "20200201000000Z"))
    address = served("expired")
    assert_wrong(checked(tmp_path, address, code=FAILED, **tls(certs)), f"address {address}", "has expired")


def test_a_certificate_for_another_name(tmp_path, certs, served):
    certs.cli("server", "--name", "kafka.example.com")
    address = served("server")
    assert_wrong(checked(tmp_path, address, code=FAILED, **tls(certs)), f"address {address}", "for another name")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_client_certificate_that_is_wanted(tmp_path, secure, certs):
    address = secure.listener("tls")
    assert_wrong(checked(tmp_path, address, code=FAILED, **tls(certs)), f"address {address}", "wants a client's certificate")
    findings = checked(tmp_path, address, **tls(certs, client="gateway"))
    assert findings[f"address {address}"] == [("ok", "Kafka answers, over TLS")]


# --- credentials ---


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
@pytest.mark.parametrize("listener", ["sasl", "sasl_tls"])
def test_a_user_is_taken_with_the_right_password_alone(tmp_path, secure, certs, mechanism, listener):
    address = secure.listener(listener)
    secured = tls(certs) if listener == "sasl_tls" else {}
    findings = checked(tmp_path, address, **secured, **sasl(mechanism=mechanism))
    assert findings[f"user {kafka.USER}"][0][0] == "ok"
    findings = checked(tmp_path, address, code=FAILED, **secured, **sasl(password="swordfish", mechanism=mechanism))
    assert_wrong(findings, f"user {kafka.USER}", "user or password is wrong")


def test_a_mechanism_that_the_broker_does_not_have(tmp_path, secure):
    findings = checked(tmp_path, secure.listener("sasl"), code=FAILED, **sasl(mechanism="SCRAM-SHA-256"))
    assert_wrong(findings, f"user {kafka.USER}", "kafka.sasl.mechanism")


# --- topics ---


def test_topics_that_will_be_made_and_ones_that_are_there(tmp_path, secure):
    secure.make_topic("made", partitions=6)
    findings = checked(tmp_path, secure.address, topics=["made"])
    assert findings["topic made"] == [("ok", "exists and may be written to")]
    for topic in DEFAULTS:
        assert findings[f"topic {topic}"] == [("ok", "does not exist yet, and will be made with 6 partitions")]
    assert not set(DEFAULTS) & set(secure.topics()), "looking makes none"
    assert secure.read("made", isolation="read_uncommitted") == [], "looking writes nothing"


def test_a_topic_that_is_not_as_configured(tmp_path, secure):
    secure.make_topic("narrow", partitions=2, max_message_bytes=20_000)
    narrow = checked(tmp_path, secure.address, topics=["narrow"])["topic narrow"]
    assert ("warning", "has 2 partitions, kafka.partitions says 6: it stays as it is") in narrow
    assert any(verdict == "warning" and "up to 20000 bytes" in message for verdict, message in narrow)
    assert narrow[-1] == ("ok", "exists and may be written to")
    findings = checked(tmp_path, secure.address, code=FAILED, replication=3)
    assert_wrong(findings, f"topic {TOPIC}", "kafka.replication is 3", "1 brokers")


def test_a_user_who_may_not_write_or_make_topics(tmp_path, secure):
    secure.make_topic("forbidden", partitions=6)
    allow = AclBinding(ResourceType.TOPIC, "forbidden", ResourcePatternType.LITERAL, f"User:{kafka.READER}", "*",
                       AclOperation.DESCRIBE, AclPermissionType.ALLOW)
    admin = secure.admin()
    for future in admin.create_acls([allow]).values():
        future.result(20)
    reader = sasl(kafka.READER, kafka.READER_PASSWORD, "PLAIN")
    of = checked(tmp_path, secure.listener("sasl"), code=FAILED, topics=["forbidden"], **reader)
    assert ("wrong", "Kafka does not let this user write to the topic; grant it WRITE and DESCRIBE") in of["topic forbidden"]
    [(verdict, message)] = of[f"topic {TOPIC}"]
    # It may not even be told whether the topic is there.
    assert verdict == "wrong" and "grant it WRITE and DESCRIBE" in message
    [(verdict, message)] = of["transactional id backtide-o1-check"]
    assert verdict == "warning" and "exactly once stand still" in message


def test_the_api_says_the_same(tmp_path, gateways, secure):
    config = tmp_path / "backtide.toml"
    config.write_text(f'[kafka]\nbootstrap_servers = "{secure.address}"\n')
    gateway = gateways("--config", str(config)).start()
    answer = gateway.http("GET", "/api/v1/kafka/check?topics=another")
    assert answer.status_code == 200, answer.text
    report = answer.json()
    subjects = [finding["subject"] for finding in report["findings"]]
    assert report["ok"] and f"topic {TOPIC}" in subjects and "topic another" in subjects


def test_the_api_without_kafka(gateway):
    answer = gateway.http("GET", "/api/v1/kafka/check")
    assert answer.status_code == 404 and "kafka.bootstrap_servers" in answer.text
