"""Asks for a URL as `user0`, authenticated by NTLM that is bound to the TLS session, and prints
the status of the answer. Arguments: the URL, the address that it leads to, the file of the
authority."""

import socket
import sys

import requests
from requests_ntlm import HttpNtlmAuth

url, address, authority = sys.argv[1:]

# The name is in no DNS; everything else about it is checked.
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: resolve(address, *rest, **named)

with requests.Session() as session:
    session.trust_env = False
    session.auth = HttpNtlmAuth("EXAMPLE\\user0", "password0")
    answer = session.get(url, verify=authority, timeout=30, headers={"X-User": "user0"})
print(answer.status_code)
