"""MQTT packets by hand, where a library would hide the byte that matters, and the channel's login digest."""

import hashlib
import socket
import struct


def digest(cid, product_key, timestamp, secret, method="sha256"):
    """The password of a channel login: mqtt-channel.md §1.3."""
    content = f"clientId{cid}deviceKey%channel%productKey{product_key}timestamp{timestamp}{secret}"
    return hashlib.new(method.removeprefix("hmac"), content.encode()).hexdigest()


def login(product_key, secret, cid=None, timestamp="1700000000000", method="sha256"):
    """(client id, user name, password) as an SDK makes them."""
    cid = product_key if cid is None else cid
    return (f"{cid}|securemode=4,signmethod={method},timestamp={timestamp}|", f"%channel%&{product_key}",
            digest(cid, product_key, timestamp, secret, method))


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(value)) + value


def packet(first, body):
    length, size = b"", len(body)
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([first]) + length + body


def connect(client_id, username, password, level=4, clean=True, keep_alive_s=60):
    flags = 0xC0 | (0x02 if clean else 0)
    properties = b"\x00" if level == 5 else b""
    return packet(0x10, text("MQTT") + bytes([level, flags]) + struct.pack(">H", keep_alive_s) + properties
                  + text(client_id) + text(username) + text(password))


def publish(topic, payload, packet_id=None, level=4):
    """QoS 1 with a packet id, QoS 0 without."""
    middle = b"" if packet_id is None else struct.pack(">H", packet_id)
    properties = b"\x00" if level == 5 else b""
    return packet(0x30 if packet_id is None else 0x32, text(topic) + middle + properties + payload)


class Link:
    """A TCP connection that speaks packets."""

    def __init__(self, address, timeout_s=20):
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """(first byte, body) of the next packet; None when the other side has closed."""
        while True:
            found = split(self.buffer)
            if found:
                first, body, self.buffer = found
                return first, body
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self.buffer += more

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def split(buffer):
    size, shift = 0, 0
    for at in range(1, 5):
        if at >= len(buffer):
            return None
        size |= (buffer[at] & 0x7F) << shift
        shift += 7
        if not buffer[at] & 0x80:
            end = at + 1 + size
            return (buffer[0], buffer[at + 1:end], buffer[end:]) if len(buffer) >= end else None
    raise AssertionError("malformed length")


def connack(address, client_id, username, password, level=4):
    """The CONNACK's return code (3.1.1) or reason code (5)."""
    with Link(address) as link:
        link.send(connect(client_id, username, password, level))
        answer = link.receive()
        assert answer is not None, "closed without a CONNACK"
        first, body = answer
        assert first == 0x20, f"not a CONNACK: {first:#x} {body!r}"
        return body[1]
