'use strict';

const http = require('http');
const claims = require('./claims');
const livelog = require('./livelog');

const server = http.createServer(claims.handle);
server.on('upgrade', livelog.upgrade);
// Longer than the load balancer's 600 s.
server.keepAliveTimeout = 620e3;
server.headersTimeout = 621e3;
server.listen(process.env.PORT || 80);

process.on('SIGTERM', () => server.close(() => process.exit(0)));
