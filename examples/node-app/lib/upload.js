// `/upload`: takes a body of any size in constant memory.

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * `?limit=n` answers 413 as soon as more than n bytes are announced or have come, and reads no further.
 * `?delay=ms` waits before reading, so that the sender feels back-pressure.
 * `?expect=refuse[&status=401]` answers 417, or that status, from the head alone.
 */
export async function upload(exchange) {
  const { req } = exchange;
  const started = performance.now();
  const limit = exchange.number('limit', Infinity);
  const delay = exchange.number('delay', 0, 3_600_000);
  const refused = refusal(exchange);
  if (refused) return exchange.refuse(refused.status, refused);
  if (delay) await sleep(delay, undefined, { signal: exchange.gone });

  const hash = createHash('sha256');
  let bytes = 0;
  await new Promise((resolve, reject) => {
    req.on('data', (chunk) => {
      bytes += chunk.length;
      hash.update(chunk);
      if (bytes > limit) {
        req.pause();
        req.removeAllListeners('data');
        resolve();
      }
    });
    req.once('end', resolve);
    req.once('error', reject);
  });
  if (bytes > limit) return exchange.refuse(413, tooLarge(limit));
  exchange.json(200, { bytes, sha256: hash.digest('hex'), ms: Math.round(performance.now() - started) });
}

/** Why an upload is refused before a byte of its body has come, or null. */
export function refusal(exchange) {
  const { query, req } = exchange;
  if (query.get('expect') === 'refuse') {
    return { status: query.get('status') === '401' ? 401 : 417, error: 'refused, as asked for' };
  }
  const limit = query.get('limit');
  if (limit && Number(req.headers['content-length']) > Number(limit)) return tooLarge(Number(limit));
  return null;
}

function tooLarge(limit) {
  return { status: 413, error: `more than ${limit} bytes`, limit };
}
