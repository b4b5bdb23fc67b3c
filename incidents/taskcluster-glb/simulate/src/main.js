// What the account says of the services before its fixes: told to stop, they just stopped, "dropping all open connections".
const http = require('http');

const server = http.createServer((request, response) => response.end('{"alive":true}'));
server.listen(8080);

process.on('SIGTERM', () => process.exit(0));
