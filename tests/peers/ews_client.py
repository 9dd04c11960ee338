"""Speaks to an Exchange server by exchangelib, authenticated by NTLM: gets an item, makes one,
listens to a stream of notifications; then sends and fetches 64 MiB by requests. Arguments: the
URL of the directory, the address that it leads to, the file of the authority. Prints what came
of it as JSON, in a line for each step."""

import hashlib
import json
import os
import socket
import sys
import time

url, address, authority = sys.argv[1:]
os.environ["REQUESTS_CA_BUNDLE"] = authority

# The name is in no DNS; everything else about it is checked.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: resolve(address, *rest, **named)

import requests
from exchangelib import (DELEGATE, NTLM, Account, Build, Configuration, Credentials, FaultTolerance,
                         Message, Version)
from exchangelib.fields import FieldPath
from exchangelib.items import SEND_ONLY
from exchangelib.properties import ItemId
from exchangelib.services import GetItem, GetStreamingEvents
from requests_ntlm import HttpNtlmAuth

MIB = 1 << 20
credentials = Credentials("EXAMPLE\\user0", "password0")
config = Configuration(
    service_endpoint=url + "Exchange.asmx", credentials=credentials, auth_type=NTLM,
    version=Version(build=Build(15, 1, 2507, 6)), retry_policy=FaultTolerance(max_wait=60))
account = Account(
    "user0@example.com", config=config, autodiscover=False, access_type=DELEGATE)


def say(step, **what):
    print(json.dumps({"step": step, **what}), flush=True)


subject = FieldPath(field=Message.get_field_by_fieldname("subject"))
[item] = GetItem(account=account).call(
    items=[ItemId(id="item", changekey="CQ==")], additional_fields=[subject], shape="IdOnly")
say("get", subject=item.subject)

message = Message(account=account, subject="new", body="x" * 100_000,
                  to_recipients=["user1@example.com"])
created = account.bulk_create(folder=None, items=[message], message_disposition=SEND_ONLY)
say("create", created=[str(one) for one in created])

began, moments, events = time.monotonic(), [], []
for notification in GetStreamingEvents(account=account).call(
        subscription_ids=["stream"], connection_timeout=1):
    moments.append(time.monotonic() - began)
    events += [event.item_id.id for event in notification.events]
say("stream", events=events, moments=moments)

with requests.Session() as session:
    session.auth = HttpNtlmAuth("EXAMPLE\\user0", "password0")
    session.headers["X-User"] = "user0"
    # Authenticates the connection; what follows is sent once.
    session.get(url + "echo", timeout=60).raise_for_status()
    parts = 64
    digest = hashlib.sha256()

    def body():
        for number in range(parts):
            part = bytes([number]) * MIB
            digest.update(part)
            yield part

    answer = session.post(url + "echo", data=body(), timeout=300)
    told = answer.json()
    say("up", length=told["length"], same=told["digest"] == digest.hexdigest())
    length, digest = 0, hashlib.sha256()
    with session.get(url + "64MiB", stream=True, timeout=300) as answer:
        for part in answer.iter_content(MIB):
            length += len(part)
            digest.update(part)
    say("down", length=length, same=digest.hexdigest() == answer.headers["X-Digest"])
    too_much = session.post(url + "echo", data=b"x" * (64 * MIB + 1), timeout=300)
    say("beyond", status=too_much.status_code)
