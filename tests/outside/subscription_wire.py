"""The subscription protocol by hand, where an SDK would hide the byte that matters: protobuf in varint-framed packages."""

import hashlib
import socket
import struct

AUTH_REQ, AUTH_RSP, PULL_REQ, PULL_RSP, SUB_REQ, SUB_RSP, COMMIT_REQ, CLOSE_REQ = 2, 3, 4, 5, 6, 7, 8, 10


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """(number, value) of each field."""
    at = 0

    def read_varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        tag = read_varint()
        if tag & 7 == 0:
            yield tag >> 3, read_varint()
        else:
            length = read_varint()
            yield tag >> 3, data[at:at + length]
            at += length


def package(command, body):
    whole = field(1, command) + field(2, body) + field(3, 0) + field(4, 0) + field(5, 0)
    return varint(len(whole)) + whole


def sign(access_key, secret, subscription):
    return hashlib.sha256(f"access_key{access_key}access_secret{secret}sub_id{subscription}".encode()).hexdigest()


class Session:
    """A plain TCP connection to the subscription door."""

    def __init__(self, address, timeout_s=20):
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.pulls = 0

    def send(self, command, body=b""):
        self.socket.sendall(package(command, body))

    def _bytes(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the door closed the connection")
            data += piece
        return bytes(data)

    def receive(self):
        """(command, fields) of the next package."""
        length = shift = 0
        while True:
            byte, = struct.unpack("B", self._bytes(1))
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        whole = dict(fields(self._bytes(length)))
        return whole[1], list(fields(whole[2]))

    def login(self, key, subscription, sub_type=3, secret=None):
        self.send(AUTH_REQ, field(1, key.accessKey) + field(2, subscription)
                  + field(3, sign(key.accessKey, secret or key.accessSecret, subscription)) + field(4, sub_type))
        command, body = self.receive()
        assert command == AUTH_RSP
        return dict(body)[1]

    def subscribe(self, key, subscription, group, sub_type=3):
        assert self.login(key, subscription, sub_type) == 0
        self.send(SUB_REQ, field(1, sub_type) + field(2, "host") + field(3, subscription) + field(4, key.accessKey)
                  + field(5, group))
        command, body = self.receive()
        assert command == SUB_RSP and dict(body)[1] == 0, body
        return self

    def ask(self):
        self.pulls += 1
        self.send(PULL_REQ, field(1, self.pulls))

    def pull(self):
        """(partition, offset, value) of each message of one answer."""
        self.ask()
        command, body = self.receive()
        assert command == PULL_RSP and dict(body)[1] == self.pulls
        batch = dict(body)[3]
        messages = [dict(fields(message)) for number, message in fields(batch) if number == 1]
        return [(m[2], m[3], m[6].decode()) for m in messages]

    def commit(self, subscription, partition, offset):
        self.send(COMMIT_REQ, field(1, field(1, subscription) + field(2, partition) + field(3, offset)))

    def close(self):
        self.socket.close()
