def app(environ, start):
    environ["wsgi.input"].read()
    start("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
