"""A server of feeds as they are met: whole, broken off, changed, moved, wrong. Says its port, then one
line for each request: path, Range, If-None-Match, status."""

import http.server
import json
import ssl
import sys

certificate, feed = sys.argv[1:]
CONTENT = open(feed, "rb").read()
NEWER = CONTENT.replace(b"1.2.3", b"1.2.4")
asked = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, content=b"", headers=(), length=None):
        ask = [self.headers.get(name, "-") for name in ("Range", "If-None-Match")]
        print(self.path, *ask, status, flush=True)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def versioned(self, content, etag, half=False):
        if self.headers.get("If-None-Match") == etag:
            return self.reply(304, headers=[("ETag", etag)])
        if half:
            return self.reply(200, content[: len(content) // 2], [("ETag", etag)], len(content))
        wanted = self.headers.get("Range", "")
        if wanted and self.headers.get("If-Range") == etag:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            place = f"bytes {first}-{len(content) - 1}/{len(content)}"
            return self.reply(206, content[first:], [("ETag", etag), ("Content-Range", place)])
        return self.reply(200, content, [("ETag", etag)])

    def do_GET(self):
        path = self.path.split("?")[0].split("/")[1]
        count = asked[path] = asked.get(path, 0) + 1
        match path:
            case "whole":
                self.versioned(CONTENT, '"1"')
            case "half":
                self.versioned(CONTENT, '"1"', half=count == 1)
            case "changing":
                first = count == 1
                self.versioned(CONTENT if first else NEWER, '"1"' if first else '"2"', half=first)
            case "always-half":
                self.reply(200, CONTENT[:10], [("ETag", f'"{count}"')], len(CONTENT))
            case "wrong-part":
                if self.headers.get("Range"):
                    self.reply(206, CONTENT, [("Content-Range", f"bytes 0-{len(CONTENT)}/x")])
                else:
                    self.versioned(CONTENT, '"1"', half=count == 1)
            case "moved":
                self.reply(302, headers=[("Location", "/whole/a.json")])
            case "circle":
                self.reply(302, headers=[("Location", "/circle/a.json")])
            case "plain":
                self.reply(302, headers=[("Location", "http://localhost:1/a.json")])
            case "page":
                self.reply(200, b"<html>Please log in</html>", [("ETag", '"page"')])
            case "large":
                self.reply(200, b"{", length=9 << 30)
            case _:
                self.reply(404)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
