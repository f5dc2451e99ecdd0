"""A recursor that knows an answer to every question: which, its name decides."""
import socket
import threading
import zlib

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

import servers

PORT = 5300
ANSWERS = [
    [],
    [("A", "192.0.2.1")],
    [("A", "192.0.2.%d" % number) for number in range(1, 8)],
    [("CNAME", "alias.example."), ("A", "192.0.2.9")],
    [("CNAME", "alias.example."), ("AAAA", "2001:db8::9"), ("A", "192.0.2.8")],
    [("A", "192.0.2.1"), ("TXT", '"text"'), ("MX", "10 mx.example.")],
    [("TXT", '"text"'), ("AAAA", "2001:db8::1")],
]
RCODES = [dns.rcode.NOERROR] * 6 + [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL]


def answer(data):
    """What it says to a message; None: nothing."""
    try:
        question = dns.message.from_wire(data, ignore_trailing=True)
        response = dns.message.make_response(question, recursion_available=True)
    except (dns.exception.DNSException, ValueError):
        return None
    name = question.question[0].name if question.question else dns.name.root
    choice = zlib.crc32(name.to_text().lower().encode())
    response.set_rcode(RCODES[choice % len(RCODES)])
    for kind, text in ANSWERS[choice // 16 % len(ANSWERS)] if response.rcode() == dns.rcode.NOERROR else []:
        response.answer.append(dns.rrset.from_text(name, 30, "IN", kind, text))
        if kind == "CNAME":
            name = dns.name.from_text(text)
    return response.to_wire()


class Upstream:
    """Runs until it is closed."""

    def __init__(self):
        address = servers.free_address()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, PORT))
        self.listener = socket.create_server((address, PORT))
        self.name = "%s:%d" % (address, PORT)
        for work in (self.datagrams, self.streams):
            threading.Thread(target=work, daemon=True).start()

    def close(self):
        self.socket.close()
        self.listener.close()

    def datagrams(self):
        while True:
            try:
                data, asker = self.socket.recvfrom(65535)
                said = answer(data)
                if said is not None:
                    self.socket.sendto(said, asker)
            except OSError:
                return

    def streams(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            with stream:
                stream.settimeout(2)
                try:
                    size = int.from_bytes(stream.recv(2, socket.MSG_WAITALL), "big")
                    said = answer(stream.recv(size, socket.MSG_WAITALL))
                    if said is not None:
                        stream.sendall(len(said).to_bytes(2, "big") + said)
                except OSError:
                    pass
