import os


def app(environ, start):
    os.write(1, (environ.get("HTTP_X_REQUEST_ID", "") + "\n").encode())
    environ["wsgi.input"].read()
    start("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
