# The service of `lameduck demo --app gunicorn`.
import os
import time


def app(environ, start_response):
    os.write(1, (environ.get("HTTP_X_REQUEST_ID", "") + "\n").encode())
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if environ["PATH_INFO"] == "/slow":
        time.sleep(int(environ["QUERY_STRING"].removeprefix("ms=")) / 1000)
    answer = b"%d bytes\n" % len(body)
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
