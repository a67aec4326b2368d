// WebSockets over HTTP/2 for whoever only speaks HTTP/1.1: an upgrade becomes an extended CONNECT (RFC 8441), on one connection
// for all of them.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

/** The port of a listener that takes WebSockets to `port` over HTTP/2 in TLS. */
export async function overHttp2(port) {
  let session;
  const connected = async () => {
    if (!session || session.closed || session.destroyed) {
      session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false });
      session.on('error', (error) => console.error(`h2: ${error.message}`));
      // Without an error it is the end of an idle connection.
      session.on('goaway', (code) => code === 0 || console.error(`h2: GOAWAY ${code}`));
      await once(session, 'remoteSettings');
    }
    return session;
  };
  const server = http.createServer();
  server.on('upgrade', async (request, socket, head) => {
    socket.on('error', () => {});
    try {
      pass(await connected(), request, socket, head);
    } catch {
      socket.destroy();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server.address().port;
}

function pass(session, request, socket, head) {
  const fields = Object.entries(request.headers).filter(([name]) => name.startsWith('sec-websocket-') && name !== 'sec-websocket-key');
  const stream = session.request(
    { ':method': 'CONNECT', ':protocol': 'websocket', ':path': request.url, ':authority': request.headers.host, ...Object.fromEntries(fields) },
    { endStream: false },
  );
  stream.on('response', (headers) => {
    if (headers[':status'] !== 200) {
      socket.end(`HTTP/1.1 ${headers[':status']} refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
      return;
    }
    const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
    const kept = Object.entries(headers).filter(([name]) => name.startsWith('sec-websocket-'));
    const lines = [['upgrade', 'websocket'], ['connection', 'Upgrade'], ['sec-websocket-accept', accept], ...kept];
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`);
    stream.write(head);
    stream.pipe(socket);
    socket.pipe(stream);
  });
  stream.on('error', () => socket.destroy());
  stream.on('aborted', () => socket.destroy());
  // One that is gone without a word leaves no stream open.
  socket.on('close', () => stream.close(http2.constants.NGHTTP2_CANCEL));
}
