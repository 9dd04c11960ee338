"""The far end of a tunnel: knocks at a port of the host behind it, as several sources, and says
what each was answered. Arguments: the interface, the address and the port, and the sources.
Frames begin with the IP header, as those of tun and WireGuard do. Prints a line of JSON."""

import fcntl
import json
import os
import select
import socket
import struct
import sys
import time

name, target, port, *sources = sys.argv[1:]
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def knock(source):
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack("!HHIIBBHHH", 40000, int(port), 1, 0, 5 << 4, 2, 65535, 0, 0)
    summed = checksum(ends + struct.pack("!BBH", 0, 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", summed) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


tunnel = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
answers = {source: "nothing" for source in sources}
for source in sources:
    os.write(tunnel, knock(source))
end = time.monotonic() + 2
while (left := end - time.monotonic()) > 0:
    if not select.select([tunnel], [], [], left)[0]:
        break
    packet = os.read(tunnel, 65536)
    if packet[0] >> 4 != 4 or packet[9] != 6:
        continue
    flags = packet[(packet[0] & 15) * 4 + 13]
    answers[socket.inet_ntoa(packet[16:20])] = "accepted" if flags & 0x12 == 0x12 else "refused"
print(json.dumps(answers))
