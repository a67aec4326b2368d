// `/download?bytes=n`: as many bytes as asked for, made as fast as the client reads them.

import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

// Byte i is i % 251. The prime never falls in step with a buffer size,
// so a chunk that is lost, doubled or moved shows.
const PERIOD = 251;

/** `&chunk=n` is the size of a write (64 KiB); `&chunked=1` leaves Content-Length out. */
export async function download(exchange) {
  const { req, res } = exchange;
  const bytes = exchange.number('bytes', 1024);
  const chunk = Math.max(1, exchange.number('chunk', 65536, 16 * 1024 * 1024));
  const headers = { 'Content-Type': 'application/octet-stream', 'Cache-Control': 'no-store' };
  if (exchange.query.get('chunked') !== '1') headers['Content-Length'] = bytes;
  res.writeHead(200, headers);
  if (req.method === 'HEAD') {
    res.end();
    return;
  }
  await pipeline(Readable.from(pattern(bytes, chunk), { objectMode: false }), res);
}

function* pattern(bytes, chunk) {
  const period = Uint8Array.from({ length: PERIOD }, (_, i) => i);
  const source = Buffer.alloc(Math.min(chunk, bytes) + PERIOD, period);
  for (let offset = 0; offset < bytes; offset += chunk) {
    const start = offset % PERIOD;
    yield source.subarray(start, start + Math.min(chunk, bytes - offset));
  }
}
