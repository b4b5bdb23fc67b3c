// A service that fails as it is told to: by path, by environment. It logs each id as the request arrives, and its own 5xx carry it back.
const http = require("http");
const env = process.env;

const stall = (ms) => { const until = Date.now() + ms; while (Date.now() < until); };
const idle = Number(env.IDLE_MS || 0);

const server = http.createServer((request, response) => {
  const id = request.headers["x-request-id"];
  if (id) console.log(id);
  const path = request.url.split("?")[0];
  const fail = (status) => { response.writeHead(status, { "x-request-id": id || "" }); response.end("failed\n"); };
  const socket = request.socket;
  clearTimeout(socket.closing);
  // An idle timeout that a pause of the whole process meets: the request that came in the pause is in the kernel, and is not read.
  if (idle) response.on("finish", () => {
    socket.closing = setTimeout(() => { stall(60); socket.destroy(); }, idle);
  });
  request.resume();
  if (path === "/error") return fail(500);
  if (path === "/busy") return fail(503);
  if (path === "/hang") return undefined;
  if (path === "/stall") { stall(Number(env.STALL_MS)); return response.end("ok\n"); }
  const wait = { "/slow": 200, "/late": 4000 }[path];
  if (path === "/stream") {
    let left = 10;
    const more = () => (left-- > 0 ? (response.write("a piece\n"), setTimeout(more, 100)) : response.end());
    return more();
  }
  return wait ? setTimeout(() => response.end("ok\n"), wait) : response.end("ok\n");
});
if (idle) server.keepAliveTimeout = 600e3;
// Stops as documented, and waits for what is under way.
if (env.STOP === "close") process.on("SIGTERM", () => server.close());
// A number, or the path of a socket.
const where = env.PORT.includes("/") ? { path: env.PORT } : { port: env.PORT, host: env.HOST || "127.0.0.1" };
const listen = () => server.listen({ ...where, backlog: Number(env.BACKLOG || 511) });
// The replicas after the first ones are slow to start, where that is asked for.
const late = Number(env.PORT) >= Number(env.LATE_FROM || 1e6);
setTimeout(listen, late ? Number(env.LATE_MS) : 0);
