'use strict';

const express = require('express');
const claims = require('./claims');

const app = express();
app.use('/api', claims.router);

const server = app.listen(process.env.PORT || 80);

process.on('SIGTERM', () => process.exit(0));
