// What the page shows first: who the app is, and what the proxy said about the visitor.

import { identity } from './identity.js';

export function whoami(exchange) {
  const { req } = exchange;
  const { headers, socket } = req;
  // Behind lowport these come from lowport alone: it replaces what a client claims.
  // That holds only while nobody else reaches this port, hence 127.0.0.1 as the default.
  const proxied = 'x-forwarded-for' in headers;
  exchange.json(200, {
    app: { ...identity(), pid: process.pid, node: process.version, uptime: Math.round(process.uptime()) },
    visitor: {
      proxied,
      protocol: headers['x-forwarded-proto'] ?? 'http',
      host: headers['x-forwarded-host'] ?? headers.host ?? null,
      ip: headers['x-forwarded-for']?.split(',')[0].trim() ?? socket.remoteAddress ?? null,
    },
    heard: {
      from: socket.remoteAddress ?? 'a Unix socket',
      httpVersion: req.httpVersion,
      headers: Object.fromEntries(
        Object.entries(headers).filter(([name]) => /^(x-forwarded-|x-real-ip|forwarded|via|host)/.test(name)),
      ),
    },
  });
}
