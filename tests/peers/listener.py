"""An EWS push listener made of exchangelib: it parses what it is sent and answers with
exchangelib's own messages. Prints the port that it listens on, then a line of JSON for each
notification."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from exchangelib.services import SendNotification

ANSWER = sys.argv[1]


class Listener(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        service = SendNotification(protocol=None)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for notification in service.parse(body):
            seen = {
                "subscription": notification.subscription_id,
                "watermark": notification.previous_watermark,
                "events": [type(event).__name__ for event in notification.events],
                "source": self.headers["X-Forwarded-For"],
            }
            print(json.dumps(seen), flush=True)
        answer = service.ok_payload() if ANSWER == "OK" else service.unsubscribe_payload()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Listener)
print(server.server_port, flush=True)
server.serve_forever()
