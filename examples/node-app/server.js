// The boot story: who am I, where do I listen, how do I stop.

import { once } from 'node:events';
import fs from 'node:fs/promises';
import net from 'node:net';

import { createApp } from './lib/app.js';
import { describe, identity } from './lib/identity.js';

const HOW_TO_RUN = `Start it as a user without privileges instead, for example one of:
  lowport dev .          the proxy takes the ports and starts the app as you
  [app] user = "node"    in lowport.toml, when lowport itself starts as root
  USER node              in a Dockerfile
ALLOW_ROOT=1 overrides this, for a throw-away container.`;

// 1. Refuse root, since a hole in an app that is root is a hole in the machine.
const me = identity();
if (me.root) {
  if (process.env.ALLOW_ROOT !== '1') {
    console.error(`This app does not run as ${describe(me)}.\n${HOW_TO_RUN}`);
    process.exit(1);
  }
  console.error(`WARNING: RUNNING AS ROOT: ${describe(me)}, because ALLOW_ROOT=1 says so.`);
}

// 2. The server keeps Node's own limits and timeouts: a proxy has to live with those.
const { server, stop } = createApp();
if (process.env.KEEP_ALIVE_TIMEOUT) {
  server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_TIMEOUT);
}

// 3. Stop on TERM and INT. A second signal finds no handler and ends the process at once.
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    console.log(`${signal}: stopping`);
    stop();
    // The process ends by itself once nothing is open any more. This is for what will not end.
    setTimeout(() => process.exit(0), 4000).unref();
  });
}

// 4. Listen: `PORT` is a number or the path of a Unix socket.
const port = process.env.PORT || '3000';
try {
  console.log(`listening on ${await listen()} as ${describe(me)}, pid ${process.pid}`);
} catch (error) {
  console.error(`cannot listen: ${error.message}`);
  process.exit(1);
}

async function listen() {
  if (!/^\d+$/.test(port)) {
    await removeStaleSocket(port);
    // The proxy is another user, so the folder of the socket decides who may reach it.
    server.listen({ path: port, readableAll: true, writableAll: true });
    await once(server, 'listening');
    return `unix:${port}`;
  }
  server.listen({ port: Number(port), host: process.env.HOST || '127.0.0.1' });
  await once(server, 'listening');
  const { address, family, port: bound } = server.address();
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`;
}

/** Removes a socket that a crash left behind. One that still answers, and any other file, is left alone. */
async function removeStaleSocket(path) {
  const isSocket = await fs.lstat(path).then((stat) => stat.isSocket(), () => false);
  if (!isSocket) return;
  const probe = net.connect(path);
  try {
    await once(probe, 'connect');
  } catch (error) {
    if (error.code === 'ECONNREFUSED') await fs.unlink(path);
  } finally {
    probe.destroy();
  }
}
