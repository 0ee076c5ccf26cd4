"""Real Apache Kafka: one KRaft node on free loopback ports, and a consumer that nobody here wrote (confluent-kafka).

`make tools` brings Kafka to .tools/kafka. A node that a test may kill, stop or fill is the test's own; others share one.
"""

import signal
import socket
import subprocess
import time
import uuid

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

import world

LIBS = world.TOOLS / "kafka/libs"
USER, PASSWORD = "backtide", "correct horse"
READER, READER_PASSWORD = "reader", "battery staple"


def free_ports(count):
    """Ports that nobody listens on now; all are held until all are found."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


class Kafka:
    """One broker that is its own controller. Certificates give it listeners for TLS and SASL and
    access control; a link is a proxy by which clients reach it."""

    def __init__(self, folder, certs=None, link=None, properties=()):
        assert any(LIBS.glob("kafka_2.13-*.jar")), f"no Apache Kafka in {LIBS}: run `make tools`"
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certs = certs
        self.process = None
        self.log_path = folder / "kafka.log"
        names = ["plain", "controller", "tls", "sasl", "sasl_tls"] if certs else ["plain", "controller"]
        self.ports = dict(zip(names, free_ports(len(names))))
        # What clients are sent on to: a proxy, where there is one.
        self.link = link
        if link:
            link.target = ("127.0.0.1", self.ports["plain"])
        self._configure(properties)
        self._java("kafka.tools.StorageTool", "format", "-t", str(uuid.uuid4()), "-c", self.folder / "server.properties",
                   *(["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"] if certs else []))

    @property
    def address(self):
        """For tests: never by the link."""
        return f"127.0.0.1:{self.ports.get('direct', self.ports['plain'])}"

    def listener(self, name):
        """localhost, because the certificate is of that name."""
        return f"localhost:{self.ports[name]}"

    def _configure(self, more):
        protocols = {"plain": "PLAINTEXT", "controller": "PLAINTEXT", "tls": "SSL", "sasl": "SASL_PLAINTEXT",
                     "sasl_tls": "SASL_SSL"}
        host = "127.0.0.1" if not self.certs else "localhost"
        clients = [name for name in self.ports if name != "controller"]
        if self.link:
            # Tests speak to it by a listener that is never cut.
            self.ports["direct"] = free_ports(1)[0]
            clients.append("direct")
            protocols["direct"] = "PLAINTEXT"
        own = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self.ports['controller']}",
            "listeners": ",".join(f"{name.upper()}://127.0.0.1:{port}" for name, port in self.ports.items()),
            "advertised.listeners": ",".join(
                "PLAIN://%s:%d" % self.link.address if self.link and name == "plain"
                else f"{name.upper()}://{'127.0.0.1' if name in ('plain', 'direct') else host}:{self.ports[name]}"
                for name in clients),
            "listener.security.protocol.map": ",".join(f"{name.upper()}:{protocols[name]}" for name in self.ports),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "DIRECT" if self.link else "PLAIN",
            "log.dirs": self.folder / "logs",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            # A topic is there because somebody made it on purpose.
            "auto.create.topics.enable": "false",
            # A node that was killed is taken for dead soon, and may come back.
            "broker.session.timeout.ms": 1500,
            "broker.heartbeat.interval.ms": 300,
            "log.cleaner.dedupe.buffer.size": 2_097_152,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
        }
        if self.certs:
            own |= self._secured()
        lines = [f"{key}={value}" for key, value in {**own, **dict(more)}.items()]
        (self.folder / "server.properties").write_text("\n".join(lines) + "\n")

    def _secured(self):
        """The broker's certificate, one user by password with SCRAM and PLAIN, one who may only read."""
        both = self.folder / "broker.pem"
        both.write_text(open(self.certs["broker.key"]).read() + open(self.certs["broker.pem"]).read())
        plain = ("org.apache.kafka.common.security.plain.PlainLoginModule required "
                 f'user_{USER}="{PASSWORD}" user_{READER}="{READER_PASSWORD}";')
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        secured = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": both,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certs["ca.pem"],
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{USER}",
            "allow.everyone.if.no.acl.found": "false",
            "listener.name.tls.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^.*$/ANONYMOUS/",
        }
        for name in ("sasl", "sasl_tls"):
            secured[f"listener.name.{name}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-512"
            secured[f"listener.name.{name}.plain.sasl.jaas.config"] = plain
            secured[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = scram
        return secured

    # --- the process ---

    def _command(self, *arguments):
        heap = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *heap, "-cp", f"{LIBS}/*", *map(str, arguments)]

    def _java(self, *arguments, within_s=120):
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=within_s,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, within_s=90):
        assert self.process is None, "already running"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self._command("kafka.Kafka", self.folder / "server.properties"),
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        world.eventually(self._answers, lambda: f"Kafka did not come up:\n{self.log()}", within_s, every_s=0.2)
        return self

    def _answers(self):
        assert self.process.poll() is None, f"Kafka ended with {self.process.poll()}:\n{self.log()}"
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            return admin.list_topics(timeout=2).brokers
        except KafkaException:
            return None

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def freeze(self):
        """It neither answers nor refuses."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self.process = None

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:] if self.log_path.exists() else "(no log)"

    # --- what others see ---

    def admin(self):
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def topics(self):
        """{name: number of partitions}, without Kafka's own."""
        found = self.admin().list_topics(timeout=20).topics
        return {name: len(topic.partitions) for name, topic in found.items() if not name.startswith("__")}

    def make_topic(self, name, partitions=1, **config):
        config = {key.replace("_", "."): str(value) for key, value in config.items()}
        admin = self.admin()
        for future in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
            future.result(20)

    def settings(self, topic):
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        admin = self.admin()
        [future] = admin.describe_configs([resource]).values()
        return {name: entry.value for name, entry in future.result(20).items()}

    def read(self, topic, isolation="read_committed", address=None, within_s=60):
        """Every record that is there now, in order within its partition."""
        consumer = Consumer({
            "bootstrap.servers": address or self.address, "group.id": f"judge-{uuid.uuid4()}", "log_level": 0,
            "enable.auto.commit": False, "auto.offset.reset": "earliest", "isolation.level": isolation,
            "enable.partition.eof": True})
        try:
            described = consumer.list_topics(topic, timeout=20).topics[topic]
            if described.error is not None:
                return []
            partitions = list(described.partitions)
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            records, ended, deadline = [], set(), time.monotonic() + within_s
            while len(ended) < len(partitions):
                assert time.monotonic() < deadline, f"{topic} could not be read to its end"
                for message in consumer.consume(500, timeout=1.0):
                    if message.error() is None:
                        records.append(message)
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        ended.add(message.partition())
            return records
        finally:
            consumer.close()

    def committed(self, group):
        """{(topic, partition): offset} as Kafka's own tools show it."""
        admin = self.admin()

        def listed():
            [future] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
            try:
                return [future.result(20).topic_partitions]
            except KafkaException as error:
                # A broker that has just begun reads its offsets first, and says so.
                if error.args[0].code() != KafkaError.COORDINATOR_LOAD_IN_PROGRESS:
                    raise
                return None
        [partitions] = world.eventually(listed, "the coordinator has read its offsets")
        return {(p.topic, p.partition): p.offset for p in partitions}


def headers_of(record):
    return {key: value.decode() for key, value in record.headers() or []}
