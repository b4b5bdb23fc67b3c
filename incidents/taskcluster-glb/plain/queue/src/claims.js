'use strict';

// A claim is made, logged, and answered a moment later: what happens to the answer on its way is not seen here.
function handle(request, response) {
  request.resume();
  request.on('end', () => {
    if (request.url === '/api/ready') {
      response.end('ready\n');
      return;
    }
    const id = request.headers['x-request-id'];
    console.log(JSON.stringify({ time: new Date().toISOString(), id, method: 'claimWork', status: 200 }));
    setTimeout(() => {
      response.setHeader('Content-Type', 'application/json');
      response.end('{"tasks":[]}\n');
    }, 300);
  });
}

module.exports = { handle };
