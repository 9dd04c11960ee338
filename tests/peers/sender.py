"""Sends notifications with requests, as a client that knows nothing of the relay. Arguments:
the URL, the address that it leads to, the file of the authority, and how many. Prints the
statuses as JSON."""

import json
import socket
import sys

import requests

url, address, authority, count = sys.argv[1:]

# The name is in no DNS; everything else about it is checked.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: resolve(address, *rest, **named)

statuses = []
with requests.Session() as session:
    session.verify = authority
    # What the environment says about authorities would go before that.
    session.trust_env = False
    for number in range(int(count)):
        item = {
            "subscriptionId": "requests",
            "changeType": "updated",
            "resource": f"Users/1/Events/{number}",
            "resourceData": {"id": number},
        }
        answer = session.post(url, json={"value": [item]}, timeout=10)
        statuses.append(answer.status_code)
    validation = session.post(url, params={"validationToken": "a+b c/%"}, timeout=10)
print(json.dumps({"statuses": statuses, "validation": [validation.status_code, validation.text]}))
