"""Answers of a stand-in Exchange: one item, one that is made, and a stream of notifications."""

import re
import time

ENVELOPE = """<?xml version="1.0" encoding="utf-8"?>\
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header>\
<h:ServerVersionInfo MajorVersion="15" MinorVersion="1" MajorBuildNumber="2507" \
MinorBuildNumber="6" Version="V2017_07_11" \
xmlns:h="http://schemas.microsoft.com/exchange/services/2006/types"/></s:Header><s:Body>\
<m:{name}Response xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages" \
xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"><m:ResponseMessages>\
<m:{name}ResponseMessage ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode>\
{content}</m:{name}ResponseMessage></m:ResponseMessages></m:{name}Response></s:Body></s:Envelope>"""

EVENT = """<m:Notifications><m:Notification><t:SubscriptionId>stream</t:SubscriptionId>\
<t:CreatedEvent><t:Watermark>AQ==</t:Watermark><t:TimeStamp>2026-11-25T10:00:0{number}Z</t:TimeStamp>\
<t:ItemId Id="item{number}" ChangeKey="CQ=="/><t:ParentFolderId Id="folder" ChangeKey="AQ=="/>\
</t:CreatedEvent></m:Notification></m:Notifications>"""

# Between two events of a stream, and how many there are.
SILENCE, EVENTS = 7, 3


def answer(handler, believed, body):
    """Answers a request on a connection that somebody is authenticated on."""
    name = re.search(rb"<(?:\w+:)?(GetItem|CreateItem|GetStreamingEvents)\b", body)
    if name is None:
        return handler.send(400, b"not one of those")
    name = name[1].decode()
    if name == "GetStreamingEvents":
        return stream(handler, name)
    content = "<m:Items/>"
    if name == "GetItem":
        content = ('<m:Items><t:Message><t:ItemId Id="item" ChangeKey="CQ=="/>'
                   f"<t:Subject>for {believed}</t:Subject></t:Message></m:Items>")
    envelope = ENVELOPE.format(name=name, content=content).encode()
    handler.send(200, envelope, [("Content-Type", "text/xml; charset=utf-8")])


def stream(handler, name):
    handler.send_response(200)
    handler.send_header("Content-Type", "text/xml; charset=utf-8")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    contents = ["<m:ConnectionStatus>OK</m:ConnectionStatus>"]
    contents += [EVENT.format(number=number) for number in range(EVENTS)]
    contents.append("<m:ConnectionStatus>Closed</m:ConnectionStatus>")
    for place, content in enumerate(contents):
        if 0 < place <= EVENTS:
            time.sleep(SILENCE)
        part = ENVELOPE.format(name=name, content=content).encode()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.flush()
    handler.wfile.write(b"0\r\n\r\n")
