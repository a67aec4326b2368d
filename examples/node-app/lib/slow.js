// `/slow`: answers late, or little by little.

import { setTimeout as sleep } from 'node:timers/promises';

const HOUR = 3_600_000;

/**
 * `?ms=n` answers after n ms. `?head=ms&chunks=n&every=ms` sends the head after `head` ms
 * and then a line every `every` ms.
 */
export async function slow(exchange) {
  const { req, res, query } = exchange;
  const wait = (ms) => sleep(ms, undefined, { signal: exchange.gone });
  if (!query.has('head') && !query.has('chunks')) {
    const ms = exchange.number('ms', 1000, HOUR);
    await wait(ms);
    exchange.json(200, { waited: ms });
    return;
  }
  const head = exchange.number('head', 0, HOUR);
  const chunks = exchange.number('chunks', 5, 100_000);
  const every = exchange.number('every', 500, HOUR);
  await wait(head);
  res.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' });
  if (req.method !== 'HEAD') {
    res.flushHeaders();
    for (let n = 1; n <= chunks; n += 1) {
      await wait(every);
      res.write(`chunk ${n} of ${chunks}\n`);
    }
  }
  res.end();
}
