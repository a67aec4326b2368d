// `/echo`: exactly what arrived, so that a test can see what a proxy made of a request.

import { createHash } from 'node:crypto';
import { isUtf8 } from 'node:buffer';

import { identity } from './identity.js';

const TEXT_KEPT = 4096;

export async function echo(exchange) {
  const { req } = exchange;
  const { remoteAddress, remotePort } = req.socket;
  const body = await digest(req);
  const { uid, gid } = identity();
  exchange.json(200, {
    method: req.method,
    url: req.url,
    httpVersion: req.httpVersion,
    headers: req.headers,
    rawHeaders: req.rawHeaders,
    trailers: req.trailers,
    rawTrailers: req.rawTrailers,
    body,
    remoteAddress: remoteAddress ?? null,
    // The same port twice means the same connection: this shows that a proxy reuses it.
    remotePort: remotePort ?? null,
    uid,
    gid,
    pid: process.pid,
  });
}

/**
 * Reads a body to its end without keeping it.
 * `text` is there when the body is UTF-8 and shorter than 4 KiB.
 */
export async function digest(stream) {
  const hash = createHash('sha256');
  const kept = [];
  let length = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    length += chunk.length;
    if (length < TEXT_KEPT) kept.push(chunk);
  }
  const result = { length, sha256: hash.digest('hex') };
  const bytes = Buffer.concat(kept);
  if (length < TEXT_KEPT && isUtf8(bytes)) result.text = bytes.toString();
  return result;
}
