# A WSGI app with WebSocket echo on the worker's own socket: gunicorn hands it out, and StopIteration ends the connection.
import base64
import hashlib
import os
import struct
import time

ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def exactly(sock, length):
    data = b""
    while len(data) < length:
        more = sock.recv(length - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def frame(opcode, payload):
    head = bytes([len(payload)]) if len(payload) < 126 else struct.pack("!BH", 126, len(payload))
    return bytes([0x80 | opcode]) + head + payload


def websocket(environ):
    sock = environ["gunicorn.socket"]
    key = hashlib.sha1(environ["HTTP_SEC_WEBSOCKET_KEY"].encode() + ACCEPT).digest()
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(key) + b"\r\n\r\n"
    )
    try:
        while True:
            first, length = exactly(sock, 2)
            length &= 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", exactly(sock, 2))
            mask = exactly(sock, 4)
            payload = bytes(b ^ mask[n & 3] for n, b in enumerate(exactly(sock, length)))
            opcode = first & 0x0F
            if opcode != 10:
                sock.sendall(frame(10 if opcode == 9 else opcode, payload))
            if opcode == 8:
                break
    except OSError:
        pass
    raise StopIteration


def pieces():
    for _ in range(10):
        yield b"a piece\n"
        time.sleep(0.1)


def app(environ, start_response):
    os.write(1, (environ.get("HTTP_X_REQUEST_ID", "") + "\n").encode())
    if environ.get("HTTP_UPGRADE", "").lower() == "websocket" and "gunicorn.socket" in environ:
        websocket(environ)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [])
        return pieces()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.2)
    answer = b"%d bytes\n" % len(body)
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
