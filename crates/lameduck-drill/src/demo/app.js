// The service of `lameduck demo --app node`: Node's http as most people write it, without a handler for SIGTERM.
const http = require("http");

http.createServer((request, response) => {
  console.log(request.headers["x-request-id"]);
  let bytes = 0;
  request.on("data", (data) => { bytes += data.length; });
  request.on("end", () => {
    const answer = () => response.end(`${bytes} bytes\n`);
    const slow = request.url.match(/^\/slow\?ms=(\d+)$/);
    slow ? setTimeout(answer, Number(slow[1])) : answer();
  });
}).listen(process.env.PORT);
