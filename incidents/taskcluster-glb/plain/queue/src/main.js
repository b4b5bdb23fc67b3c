'use strict';

const http = require('http');
const claims = require('./claims');
const livelog = require('./livelog');

const server = http.createServer(claims.handle);
server.on('upgrade', livelog.upgrade);
server.listen(process.env.PORT || 80);

process.on('SIGTERM', () => process.exit(0));
