// Four workers, GET and POST in turns, over connections that an agent keeps.
const http = require('http');
const [host, port] = process.argv[2].replace('http://', '').split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
let sent = 0, failed = 0, over = false;

function once(path, method) {
  return new Promise((done) => {
    const body = method === 'POST' ? 'body' : '';
    const request = http.request({ host, port, path, method, agent, headers: { 'Content-Length': body.length } }, (answer) => {
      if (answer.statusCode !== 200) failed += 1;
      answer.on('error', (error) => { console.log(String(error)); failed += 1; done(); });
      answer.on('end', done);
      answer.resume();
    });
    request.on('error', (error) => { console.log(method, String(error)); failed += 1; done(); });
    request.end(body);
    sent += 1;
  });
}

async function work(worker) {
  for (let n = 0; !over; n += 1) {
    await once(`/n${worker}-${n}`, n % 2 ? 'POST' : 'GET');
    await new Promise((done) => setTimeout(done, 5));
  }
}

process.stdin.on('end', () => { over = true; });
process.stdin.resume();
Promise.all([0, 1, 2, 3].map(work)).then(() => { console.log(`told ${sent} ${failed}`); process.exit(0); });
