// The page and its files, read once at the start.

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const FOLDER = new URL('../public/', import.meta.url);
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};
// The page loads nothing from elsewhere and has no inline script, and says so.
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * Pairs of a path and its endpoint, one for each file in `public`.
 * No path of a request is ever joined to a folder, so none can climb out of it.
 */
export function readPublicFiles() {
  return fs.readdirSync(FOLDER).map((name) => {
    const body = fs.readFileSync(new URL(name, FOLDER));
    const headers = {
      'Content-Type': TYPES[path.extname(name)],
      'Cache-Control': 'no-cache',
      ETag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`,
      'Content-Security-Policy': POLICY,
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
    };
    const run = ({ req, res }) => {
      const known = (req.headers['if-none-match'] ?? '').split(/\s*,\s*/);
      if (known.some((tag) => tag.replace(/^W\//, '') === headers.ETag)) {
        res.writeHead(304, headers).end();
      } else {
        res.writeHead(200, { ...headers, 'Content-Length': body.length }).end(body);
      }
    };
    return [name === 'index.html' ? '/' : `/${name}`, run];
  });
}
