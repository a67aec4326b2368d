// The corners of HTTP that proxies forget: trailers, 103, responses without a body.

import { createHash } from 'node:crypto';

import { digest } from './echo.js';
import { ClientError } from './exchange.js';

/** `/trailers`: tells the request's trailers, and sends the checksum of the answer as its own trailer. */
export async function trailers(exchange) {
  const { req, res } = exchange;
  const body = await digest(req);
  const text = `${JSON.stringify({ trailers: req.trailers, rawTrailers: req.rawTrailers, body }, null, 2)}\n`;
  res.writeHead(200, {
    'Content-Type': 'application/json; charset=utf-8',
    'Cache-Control': 'no-store',
    Trailer: 'x-checksum',
  });
  res.write(text);
  res.addTrailers({ 'x-checksum': createHash('sha256').update(text).digest('hex') });
  res.end();
}

/** `/early-hints`: 103 with a Link, then 200. */
export function earlyHints(exchange) {
  exchange.res.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
  exchange.json(200, { hinted: '/style.css' });
}

/** `/status/n`: this status, from 200 to 599. 204, 205 and 304 have no body; 304 has an ETag. */
export function status(exchange) {
  const code = Number(/^\/status\/(\d{3})$/.exec(exchange.path)?.[1]);
  if (!(code >= 200 && code <= 599)) {
    throw new ClientError(404, 'a status is a number from 200 to 599: /status/204');
  }
  const { res } = exchange;
  if (code === 304) res.writeHead(304, { ETag: '"sample"', 'Cache-Control': 'no-cache' }).end();
  else if (code === 204) res.writeHead(204).end();
  else if (code === 205) res.writeHead(205, { 'Content-Length': 0 }).end();
  else exchange.json(code, { status: code });
}
