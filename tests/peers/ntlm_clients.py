"""Many users at once, each authenticated by NTLM (requests-ntlm, and curl for every fourth
user) or Negotiate (pyspnego) on connections that are kept, with time-outs, resets and
repetitions among their requests.
Arguments: the URL that ends with a slash, the address that it leads to, the file of the
authority, the scheme, the number of users and of requests of each. Prints what they were told
as JSON: how many answers there were, how many of them to curl, and which were for somebody
else."""

import base64
import hashlib
import http.client
import json
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse

import requests
import spnego
from requests_ntlm import HttpNtlmAuth

url, address, authority, scheme, users, count = sys.argv[1:]

# The name is in no DNS; everything else about it is checked.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: resolve(address, *rest, **named)

lock = threading.Lock()
result = {"answers": 0, "curl": 0, "wrong": [], "failures": {}, "anonymous": [], "unexpected": []}
PATIENCE = 60


class Ntlm:
    """A user with requests-ntlm."""

    def __init__(self, number):
        self.name = f"user{number}"
        self.auth = HttpNtlmAuth(f"EXAMPLE\\{self.name}", f"password{number}")
        self.session = None
        self.again()

    def again(self):
        if self.session is not None:
            self.session.close()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = authority
        self.session.auth = self.auth
        self.session.headers["X-User"] = self.name

    def ask(self, path, body, timeout=PATIENCE, part=None):
        with self.session.post(url + path, data=body, timeout=timeout, stream=True) as answer:
            if part is not None:
                answer.raw.read(part)
                return None
            return answer.status_code, answer.content


class Curl:
    """A user with curl, whose NTLM is its own. Each process asks twice on one connection."""

    def __init__(self, number):
        self.name = f"user{number}"
        self.secret = f"EXAMPLE\\{self.name}:password{number}"
        self.host = urllib.parse.urlsplit(url).hostname

    def again(self):
        """Nothing is kept."""

    def ask(self, path, body, timeout=PATIENCE, part=None):
        command = ["curl", "--silent", "--show-error", "--cacert", authority, "--ntlm",
                   "--user", self.secret, "--resolve", f"{self.host}:443:{address}",
                   "--noproxy", "*", "--fail-early", "--header", f"X-User: {self.name}",
                   "--data-binary", "@-", "--max-time", str(timeout),
                   "--write-out", "%{http_code}\n"]
        if part is not None:
            command += ["--limit-rate", "100k", "--max-time", "0.5"]
        with tempfile.TemporaryDirectory() as directory:
            files = [f"{directory}/{number}" for number in range(2)]
            for file in files:
                command += ["--output", file, url + path]
            done = subprocess.run(command, input=body, capture_output=True, check=False)
            if done.returncode != 0:
                raise ConnectionError(done.stderr.decode())
            answers = []
            for line, file in zip(done.stdout.decode().splitlines(), files, strict=True):
                with open(file, "rb") as content:
                    answers.append((int(line), content.read()))
        first, second = answers
        if first != second:
            with lock:
                result["wrong"].append([f"curl was told {first} and {second}", self.name])
        return first


class Negotiate:
    """A user with pyspnego and a plain HTTP client."""

    def __init__(self, number):
        self.name = f"user{number}"
        self.password = f"password{number}"
        self.place = urllib.parse.urlsplit(url)
        self.connection = None
        self.again()

    def again(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def ask(self, path, body, timeout=PATIENCE, part=None):
        if self.connection is None:
            trust = ssl.create_default_context(cafile=authority)
            self.connection = http.client.HTTPSConnection(
                self.place.hostname, timeout=PATIENCE, context=trust)
            self.connection.connect()
        self.connection.sock.settimeout(timeout)
        status, field, content = self.once(path, body, part)
        if status != 401:
            return status, content
        client = spnego.client(
            f"EXAMPLE\\{self.name}", self.password, hostname=self.place.hostname, service="http",
            protocol="negotiate", options=spnego.NegotiateOptions.use_negotiate)
        token = client.step()
        while status == 401 and token:
            said = f"Negotiate {base64.b64encode(token).decode()}"
            status, field, content = self.once(path, body, part, said)
            given = (field or "").partition(" ")[2]
            token = client.step(base64.b64decode(given)) if given else None
        return status, content

    def once(self, path, body, part, said=None):
        fields = {"X-User": self.name}
        if said:
            fields["Authorization"] = said
        self.connection.request("POST", self.place.path + path, body, fields)
        answer = self.connection.getresponse()
        if part is not None and answer.status == 200:
            answer.read(part)
            raise ConnectionResetError("as was meant")
        content = answer.read()
        if answer.will_close:
            self.again()
        return answer.status, answer.headers.get("WWW-Authenticate"), content


def anonymous():
    """Somebody without credentials, who must be nobody."""
    trust = {"verify": authority, "timeout": PATIENCE, "headers": {"X-User": "nobody"}}
    with requests.Session() as session:
        session.trust_env = False
        return [session.get(url + "echo", **trust).status_code for _ in range(2)]


def user(number):
    chance = random.Random(number)
    kind_of_client = Negotiate if scheme != "NTLM" else Curl if number % 4 == 3 else Ntlm
    client = kind_of_client(number)
    for _ in range(int(count)):
        body = chance.randbytes(chance.choice([0, 10, 3000, 100_000]))
        kind = chance.choices(
            ["echo", "slow", "reset", "vanish", "cut", "last", "anonymous", "new"],
            [60, 4, 6, 5, 5, 5, 8, 7])[0]
        try:
            if kind == "anonymous":
                statuses = anonymous()
                with lock:
                    result["anonymous"].extend(statuses)
                continue
            if kind == "new":
                client.again()
            path = {"reset": "large", "new": "echo"}.get(kind, kind)
            timeout = 0.3 if kind == "slow" else PATIENCE
            answer = client.ask(path, body, timeout, 1000 if kind == "reset" else None)
        except (OSError, requests.RequestException, http.client.HTTPException) as error:
            with lock:
                name = f"{kind}: {type(error).__name__}"
                result["failures"][name] = result["failures"].get(name, 0) + 1
            # Whoever was broken off begins anew, or goes on, as clients do.
            if not isinstance(client, Ntlm) or chance.random() < 0.5:
                client.again()
            continue
        if answer is None:
            continue
        status, content = answer
        with lock:
            if status != 200:
                result["unexpected"].append([kind, status])
                continue
            told = json.loads(content)
            result["answers"] += 1
            result["curl"] += isinstance(client, Curl)
            wanted = [f"EXAMPLE\\{client.name}", hashlib.sha256(body).hexdigest()]
            if [told["believed"], told["digest"]] != wanted:
                result["wrong"].append([told, client.name])


threads = [threading.Thread(target=user, args=(number,)) for number in range(int(users))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(result))
