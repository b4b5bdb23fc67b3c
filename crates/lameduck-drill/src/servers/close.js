// Loaded before the app: the documented way to stop, which waits for answers and closes what is idle.
const http = require("http");

const { createServer } = http;
http.createServer = (...args) => {
  const server = createServer(...args);
  process.on("SIGTERM", () => server.close());
  return server;
};
