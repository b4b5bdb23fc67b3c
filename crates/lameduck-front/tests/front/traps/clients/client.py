"""Four workers, GET and POST in turns, over connections that are kept, by http.client or by urllib3. No retries."""
import http.client
import sys
import threading
import time

kind, url = sys.argv[1], sys.argv[2]
host = url.removeprefix("http://")
over = threading.Event()
lock = threading.Lock()
told = [0, 0]

if kind == "urllib3":
    import urllib3

    pool = urllib3.PoolManager(maxsize=4)

    def start():
        return lambda method, path, body: pool.request(method, url + path, body=body, retries=False).status
else:

    def start():
        connection = http.client.HTTPConnection(host)

        def request(method, path, body):
            try:
                connection.request(method, path, body=body)
                answer = connection.getresponse()
                answer.read()
                return answer.status
            except Exception:
                connection.close()
                raise

        return request


def work(worker):
    request, n = start(), 0
    while not over.is_set():
        n += 1
        try:
            failed = request(*(("POST", f"/p{worker}-{n}", "body") if n % 2 else ("GET", f"/p{worker}-{n}", None))) != 200
        except Exception as error:
            print(repr(error), flush=True)
            failed = True
        with lock:
            told[0] += 1
            told[1] += failed
        time.sleep(0.005)


threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print("told", *told)
