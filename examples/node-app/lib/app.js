// The app: which path leads to which endpoint, and what surrounds each request.

import http from 'node:http';

import { AbortLog } from './abort-log.js';
import { Chat, echoMessages } from './chat.js';
import { download } from './download.js';
import { echo } from './echo.js';
import { ClientError, Exchange, splitTarget } from './exchange.js';
import * as fail from './fail.js';
import { earlyHints, status, trailers } from './semantics.js';
import { slow } from './slow.js';
import { EventClock } from './sse.js';
import { readPublicFiles } from './static.js';
import { refusal, upload } from './upload.js';
import { handshake } from './websocket.js';
import { whoami } from './whoami.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Builds the server, not yet listening, and the function that stops it politely. */
export function createApp() {
  const aborts = new AbortLog();
  const clock = new EventClock();
  const chat = new Chat();
  const webSockets = new Set();
  let stopping = false;

  const READ = ['GET', 'HEAD'];
  const routes = new Map([
    ['/whoami', { methods: READ, run: whoami }],
    ['/health', { methods: READ, run: (x) => x.text(200, 'ok\n') }],
    ['/echo', { run: echo }],
    ['/events', { methods: READ, run: (x) => clock.serve(x) }],
    ['/upload', { methods: ['POST', 'PUT'], run: upload }],
    ['/download', { methods: READ, run: download }],
    ['/slow', { run: slow }],
    ['/trailers', { run: trailers }],
    ['/early-hints', { methods: READ, run: earlyHints }],
    ['/status', { run: status }],
    ['/abort-log', { methods: READ, run: (x) => x.json(200, aborts) }],
    ['/fail', { run: fail.answer }],
    ['/fail/crash', { run: fail.crash }],
    ['/fail/reset', { run: (x) => aborts.skip(x.res, fail.reset(x)) }],
    ['/fail/cut', { run: (x) => aborts.skip(x.res, fail.cut(x)) }],
    ['/fail/garbage', { run: (x) => aborts.skip(x.res, fail.garbage(x)) }],
    ['/fail/hang', { run: fail.hang }],
    ['/chat', { methods: READ, run: needsUpgrade }],
    ['/ws/echo', { methods: READ, run: needsUpgrade }],
    ...readPublicFiles().map(([path, run]) => [path, { methods: READ, run }]),
  ]);
  const webSocketRoutes = new Map([
    ['/chat', { limit: 1 * MIB, run: (ws) => chat.join(ws) }],
    ['/ws/echo', { limit: 16 * MIB, run: echoMessages }],
  ]);

  /** An endpoint answers for its own path; `/echo` and `/status` also for what is below. */
  function find(path) {
    const below = path.match(/^\/(echo|status)\//);
    return routes.get(below ? `/${below[1]}` : path);
  }

  async function handle(req, res) {
    const exchange = new Exchange(req, res);
    aborts.watch(req, res);
    // A connection that stays open would hold up the stop until its keep-alive ends.
    if (stopping) res.setHeader('Connection', 'close');
    res.once('finish', () => stopping && req.socket.end());
    try {
      const route = find(exchange.path);
      if (!route) throw new ClientError(404, `nothing at ${exchange.path}`);
      if (route.methods && !route.methods.includes(req.method)) {
        res.setHeader('Allow', route.methods.join(', '));
        throw new ClientError(405, `${exchange.path} takes ${route.methods.join(' and ')} only`);
      }
      await route.run(exchange);
    } catch (error) {
      answerError(exchange, error);
    }
  }

  /** With this listener in place Node hands over EVERY request with an Upgrade header. */
  function upgrade(req, socket, head) {
    const route = webSocketRoutes.get(splitTarget(req.url).path);
    const wantsWebSocket = /^\s*websocket\s*$/i.test(req.headers.upgrade);
    if (!route || !wantsWebSocket) {
      answerWithoutUpgrade(req, socket);
      return;
    }
    const ws = handshake(req, socket, head, { maxMessage: route.limit });
    if (!ws) return;
    webSockets.add(ws);
    ws.on('close', () => webSockets.delete(ws));
    route.run(ws);
    if (stopping) ws.close(1001, 'the app is stopping');
  }

  /** A server may ignore an upgrade it does not know (h2c, say) and answer as if it were not there. */
  function answerWithoutUpgrade(req, socket) {
    socket.on('error', () => {});
    const res = new http.ServerResponse(req);
    res.assignSocket(socket);
    res.shouldKeepAlive = false;
    res.once('finish', () => socket.end());
    const hasBody = 'transfer-encoding' in req.headers || Number(req.headers['content-length']) > 0;
    if (hasBody) new Exchange(req, res).json(400, { error: 'an upgrade with a body is not read here' });
    else handle(req, res);
  }

  const server = http.createServer(handle);
  server.on('upgrade', upgrade);
  server.on('checkContinue', (req, res) => {
    // An upload that its head alone condemns is answered without "100 Continue".
    const exchange = new Exchange(req, res);
    if (exchange.path !== '/upload' || !refusal(exchange)) res.writeContinue();
    handle(req, res);
  });

  function stop() {
    stopping = true;
    // Node closes what is idle along with the listener.
    server.close();
    clock.end();
    for (const ws of webSockets) ws.close(1001, 'the app is stopping');
  }

  return { server, stop };
}

function needsUpgrade(exchange) {
  const headers = { Upgrade: 'websocket', Connection: 'Upgrade, close' };
  exchange.json(426, { error: 'this is a websocket: ask with Upgrade: websocket' }, headers);
}

function answerError(exchange, error) {
  const { req, res } = exchange;
  // The client left in the middle: there is nobody to tell.
  if (res.closed || req.socket.destroyed) return;
  if (!(error instanceof ClientError)) console.error(`${req.method} ${req.url}:`, error);
  if (res.headersSent) res.destroy();
  else exchange.json(error.status ?? 500, { error: error.status ? error.message : 'internal error' });
}
