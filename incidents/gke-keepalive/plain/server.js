const http = require('http');

const server = http.createServer((req, res) => {
  res.setHeader('X-My-Uuid', req.headers['x-my-uuid'] || '');
  res.end('ok\n');
});

// https://nodejs.org/api/http.html#http_event_connection
server.on('connection', function (socket) {
  // Set the socket timeout to 620 seconds
  socket.setTimeout(620e3);
});

server.listen(3000);
