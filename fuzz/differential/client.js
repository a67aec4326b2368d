// A client of bytes.

import net from 'node:net';

// A message that is not complete: how long the other side may be silent before it is taken for waiting.
const QUIET = 40;
/** How long a side that has to close may take. */
export const PATIENCE = 8000;

/**
 * Sends `bytes`, cut where told, from an address of its own, and resolves to what came back and whether the other side
 * closed. It is waited for if `closes`; else until it is silent and `enough` of what came.
 */
export function exchange({ port, from, bytes, cuts, closes, enough }) {
  return new Promise((resolve) => {
    const parts = [];
    let quiet;
    const socket = net.connect({ port, host: '127.0.0.1', localAddress: from, noDelay: true });
    const done = (closed) => {
      clearTimeout(quiet);
      clearTimeout(patience);
      socket.destroy();
      resolve({ answer: Buffer.concat(parts), closed });
    };
    const patience = setTimeout(() => done(false), PATIENCE);
    const wait = () => {
      if (!closes) {
        clearTimeout(quiet);
        quiet = setTimeout(() => (enough(Buffer.concat(parts)) ? done(false) : wait()), QUIET);
      }
    };
    socket.on('data', (part) => {
      parts.push(part);
      wait();
    });
    socket.on('end', () => done(true));
    socket.on('error', () => done(true));
    socket.on('connect', () => send(socket, bytes, [...cuts, bytes.length]).then(wait));
  });
}

async function send(socket, bytes, ends) {
  let at = 0;
  for (const end of ends) {
    if (end > at && !socket.destroyed) {
      socket.write(bytes.subarray(at, end));
      at = end;
      // So that the kernel hands over what was written before the rest.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
