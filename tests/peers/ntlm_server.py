"""A server that authenticates connections, as Exchange does, made of pyspnego. Whoever is
authenticated on a connection is believed to be the sender of all that comes by it; what the
sender says that it is goes beside it, so that nobody can be taken for somebody else unnoticed.

Arguments: the number of users (`user0` and so on, whose passwords are `password0` and so on),
and for TLS the files of a chain and a key, and the name of a channel binding that is required
("tls-server-end-point"). Prints the port that it listens on. `GET /report` is answered with
what was seen; nobody has to be authenticated for it."""

import base64
import hashlib
import json
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ews
import spnego
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from spnego.channel_bindings import GssChannelBindings

users = int(sys.argv[1])
files = sys.argv[2:4]
binding = sys.argv[4:] == ["tls-server-end-point"]

store = tempfile.NamedTemporaryFile("w", suffix=".users")
for number in range(users):
    store.write(f"EXAMPLE:user{number}:password{number}\n")
store.flush()
os.environ["NTLM_USER_FILE"] = store.name

lock = threading.Lock()
report = {"requests": 0, "believed": 0, "mismatches": [], "users": {}, "handshakes": 0,
          "shared": [], "tls": [], "refused": []}


def expected_binding():
    with open(files[0], "rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read())
    digest = certificate.fingerprint(hashes.SHA256())
    return GssChannelBindings(application_data=b"tls-server-end-point:" + digest)


class Exchange(BaseHTTPRequestHandler):
    """One for each connection."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.context = None
        self.claimed = set()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self):
        body = self.body()
        if self.path == "/report":
            with lock:
                return self.send(200, json.dumps(report).encode())
        if self.path == "/ews/healthcheck.htm":
            return self.send(200, b"200 OK")
        try:
            token = self.authenticate()
        except spnego.exceptions.SpnegoError as error:
            self.context = None
            with lock:
                report["refused"].append(type(error).__name__)
            return self.challenge()
        believed = None
        if self.context is not None and self.context.complete:
            believed = self.context.client_principal
        claimed = self.headers.get("X-User")
        with lock:
            report["requests"] += 1
            self.claimed.add(claimed)
            if len(self.claimed) > 1:
                report["shared"].append(sorted(map(str, self.claimed)))
            if believed is not None:
                report["believed"] += 1
                report["users"][believed] = report["users"].get(believed, 0) + 1
                # exchangelib says nothing beside.
                if claimed and believed != f"EXAMPLE\\{claimed}":
                    report["mismatches"].append([believed, claimed, self.path])
        if believed is None:
            return self.challenge(token)
        self.serve(believed, body, token)

    def authenticate(self):
        """Takes what the request says about who it is; the token of the answer, if any."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("ntlm", "negotiate"):
            return None
        if self.context is None or self.context.complete:
            ntlm = scheme.lower() == "ntlm"
            protocol, option = ("ntlm", spnego.NegotiateOptions.use_ntlm) if ntlm else (
                "negotiate", spnego.NegotiateOptions.use_negotiate)
            self.context = spnego.server(
                protocol=protocol, options=option,
                channel_bindings=expected_binding() if binding else None)
            with lock:
                report["handshakes"] += 1
        token = self.context.step(base64.b64decode(token))
        return f"{scheme} {base64.b64encode(token).decode()}" if token else None

    def challenge(self, token=None):
        fields = [token] if token else ["Negotiate", "NTLM", 'Basic realm="mail"']
        self.send(401, b"who is there?", [("WWW-Authenticate", field) for field in fields])

    def serve(self, believed, body, token):
        fields = [("WWW-Authenticate", token)] if token else []
        known = {"believed": believed, "length": len(body),
                 "digest": hashlib.sha256(body).hexdigest()}
        answer = json.dumps(known).encode()
        if self.path.endswith("/Exchange.asmx"):
            return ews.answer(self, believed, body)
        if self.path.endswith("/slow"):
            time.sleep(1.0)
        elif self.path.endswith("/vanish"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        elif self.path.endswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(answer)
            self.close_connection = True
            return
        elif self.path.endswith("/last"):
            fields.append(("Connection", "close"))
            self.close_connection = True
        elif self.path.endswith("/64MiB"):
            answer = bytes(range(256)) * (64 << 12)
            fields.append(("X-Digest", hashlib.sha256(answer).hexdigest()))
        elif self.path.endswith("/large"):
            answer = answer + b" " * (1 << 20)
        self.send(200, answer, fields)

    def send(self, status, body, fields=()):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # Clients break off; that is what is tried.


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_):
        pass

    def finish_request(self, request, client_address):
        if files:
            request = context.wrap_socket(request, server_side=True)
            with lock:
                report["tls"].append(request.version())
        super().finish_request(request, client_address)


if files:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
server = Server(("127.0.0.1", 0), Exchange)
print(server.server_port, flush=True)
server.serve_forever()
