// What the suite tries: `ws`, as a server that echoes and as a client that does.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';

/** `ws`, from the folder that `run` installs it in. */
export function load(tools) {
  return createRequire(path.join(tools, 'node', 'index.js'))('ws');
}

// Without its limits, which some cases go past.
const OPTIONS = { perMessageDeflate: true, maxPayload: 0, maxFragments: 0, maxBufferedChunks: 0 };

/** An echo server's port. */
export async function echo({ WebSocketServer }) {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, ...OPTIONS });
  server.on('connection', answer);
  await once(server, 'listening');
  return server.address().port;
}

/** How long a connection may last, in ms: no case waits for longer. */
const PATIENCE = 600_000;

/** Connects to `url`, under the name `host`, echoes until the other side is gone, and resolves to the last text that came. */
export function talk({ WebSocket }, url, host) {
  const socket = new WebSocket(url, { headers: { host }, rejectUnauthorized: false, ...OPTIONS });
  let last;
  socket.on('message', (data, isBinary) => {
    last = isBinary ? undefined : data;
  });
  answer(socket);
  const patience = setTimeout(() => socket.terminate(), PATIENCE);
  return new Promise((resolve) =>
    socket.on('close', () => {
      clearTimeout(patience);
      resolve(last);
    }),
  );
}

function answer(socket) {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  // A case that breaks the protocol: the suite sees the close.
  socket.on('error', () => {});
}
