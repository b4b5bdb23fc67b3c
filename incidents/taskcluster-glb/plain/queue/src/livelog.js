'use strict';

const { createHash } = require('crypto');

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

// One message, in one frame (RFC 6455, section 5.2).
function frame(opcode, payload) {
  const head = payload.length < 126 ? [payload.length] : [126, payload.length >> 8, payload.length & 255];
  return Buffer.concat([Buffer.from([0x80 | opcode, ...head]), payload]);
}

// The tunnel of a live log: what comes goes back.
function upgrade(request, socket, first) {
  const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
    `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.setNoDelay(true);
  let pending = first;
  const read = (data) => {
    pending = Buffer.concat([pending, data]);
    while (pending.length >= 6) {
      const short = pending[1] & 0x7f;
      const at = short === 126 ? 4 : 2;
      const length = short === 126 ? pending.readUInt16BE(2) : short;
      if (pending.length < at + 4 + length) return;
      const opcode = pending[0] & 0x0f;
      const payload = Buffer.from(pending.subarray(at + 4, at + 4 + length));
      for (let n = 0; n < length; n++) payload[n] ^= pending[at + (n & 3)];
      pending = pending.subarray(at + 4 + length);
      if (opcode === 8) {
        socket.end(frame(8, payload));
        return;
      }
      if (opcode === 9) socket.write(frame(10, payload));
      if (opcode === 1 || opcode === 2) socket.write(frame(opcode, payload));
    }
  };
  socket.on('data', read);
  socket.on('error', () => {});
  read(Buffer.alloc(0));
}

module.exports = { upgrade };
