import asyncio


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    print(dict(scope["headers"]).get(b"x-request-id", b"").decode(), flush=True)
    while (await receive()).get("more_body"):
        pass
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
    piece = {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"a piece\n"}
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    await send(head)
    if scope["path"] == "/stream":
        for _ in range(10):
            await send({**piece, "more_body": True})
            await asyncio.sleep(0.1)
    await send(piece)
