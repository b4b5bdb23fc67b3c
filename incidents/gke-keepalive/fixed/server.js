const http = require('http');

const server = http.createServer((req, res) => {
  res.setHeader('X-My-Uuid', req.headers['x-my-uuid'] || '');
  res.end('ok\n');
});

// After each answer this replaces whatever timeout the socket had before.
server.keepAliveTimeout = 620e3;

server.listen(3000);
