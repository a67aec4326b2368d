// Checks every endpoint of a running app: `node --test`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test as check } from 'node:test';
import { fileURLToPath } from 'node:url';

const SERVER = fileURLToPath(new URL('server.js', import.meta.url));
const UPGRADE = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
  + 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
const BROKEN = { code: 'ECONNRESET' };

// What waits for something that never comes fails soon, and leaves no process behind.
const test = (name, run, options) => check(name, { timeout: 10_000, ...options }, run);
const children = [];
after(() => children.forEach((child) => child.kill('SIGKILL')));

let app;
before(async () => {
  app = await start();
});

// --- the app as a process ---

/** Starts the server and waits until it says where it listens. */
async function start(env = {}) {
  const child = spawn(process.execPath, [SERVER], {
    env: { ...process.env, ALLOW_ROOT: '1', PORT: '0', HOST: '127.0.0.1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  const started = { child, out: '', err: '', exit: once(child, 'exit').then(([code]) => code) };
  child.stderr.on('data', (chunk) => (started.err += chunk));
  await new Promise((resolve, reject) => {
    child.stdout.on('data', (chunk) => {
      started.out += chunk;
      const line = /listening on (\S+)/.exec(started.out);
      if (!line) return;
      started.url = line[1];
      started.port = Number(/:(\d+)$/.exec(line[1])?.[1]);
      resolve();
    });
    started.exit.then((code) => reject(new Error(`exit ${code}: ${started.err}`)));
  });
  return started;
}

/** One request on a connection of its own; the whole answer with its trailers. */
function ask(target, { method = 'GET', headers = {}, body, port = app.port, socketPath } = {}) {
  return new Promise((resolve, reject) => {
    const where = socketPath ? { socketPath } : { port, host: '127.0.0.1' };
    const req = http.request({ ...where, path: target, method, headers, agent: false });
    const seen = { informational: [] };
    req.on('information', (info) => seen.informational.push(info));
    req.on('error', reject);
    req.on('response', async (res) => {
      try {
        const parts = [];
        for await (const chunk of res) parts.push(chunk);
        const bytes = Buffer.concat(parts);
        resolve({ ...seen, status: res.statusCode, headers: res.headers, trailers: res.trailers, bytes, text: bytes.toString() });
      } catch (error) {
        reject(error);
      }
    });
    if (typeof body === 'function') body(req);
    else req.end(body);
  });
}

const askJson = async (target, options) => JSON.parse((await ask(target, options)).text);

/** A connection to write bytes to, and everything that has come back. */
class Raw {
  constructor(port = app.port, options = {}) {
    this.socket = net.connect({ port, host: '127.0.0.1', ...options });
    this.received = Buffer.alloc(0);
    this.news = new EventEmitter();
    this.ended = new Promise((resolve) => this.socket.once('close', resolve));
    this.socket.on('error', (error) => (this.error = error));
    this.socket.on('data', (chunk) => (this.received = Buffer.concat([this.received, chunk])));
    for (const event of ['data', 'end', 'close']) this.socket.on(event, () => this.news.emit('any'));
  }

  write(data) {
    this.socket.write(data);
    return this;
  }

  /** Waits until `test` says something other than null or false of what has come. */
  async until(test) {
    for (;;) {
      const result = test(this.received);
      if (result) return result;
      assert.ok(!this.socket.closed, `closed after: ${this.received.toString('latin1').slice(0, 300)}`);
      await once(this.news, 'any');
    }
  }

  has(text) {
    return this.until((bytes) => bytes.includes(text));
  }
}

async function rawAnswer(request) {
  const raw = new Raw().write(request);
  await raw.ended;
  return raw.received.toString('latin1');
}

// --- a websocket client that can misbehave ---

class WebSocketClient extends Raw {
  static async open(target = '/ws/echo', port = app.port) {
    const ws = new WebSocketClient(port);
    ws.write(`GET ${target} HTTP/1.1\r\nHost: x\r\n${UPGRADE}\r\n`);
    await ws.has('\r\n\r\n');
    const head = ws.received.subarray(0, ws.received.indexOf('\r\n\r\n') + 4);
    assert.match(head.toString(), /^HTTP\/1\.1 101 .*Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/s);
    ws.received = ws.received.subarray(head.length);
    return ws;
  }

  frame(first, payload = '', { masked = true } = {}) {
    const data = Buffer.from(payload);
    const bit = masked ? 0x80 : 0;
    const head = Buffer.alloc(data.length < 126 ? 2 : data.length < 65536 ? 4 : 10);
    head[0] = first;
    head[1] = bit | (head.length === 2 ? data.length : head.length === 4 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(data.length, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(data.length), 2);
    const mask = Buffer.from([1, 2, 3, 4]);
    if (!masked) return this.write(head).write(data);
    return this.write(head).write(mask).write(data.map((byte, i) => byte ^ mask[i & 3]));
  }

  /** The next whole frame from the server. */
  async read() {
    const { first, payload, end } = await this.until((bytes) => {
      if (bytes.length < 2) return null;
      assert.equal(bytes[1] & 0x80, 0, 'a server does not mask');
      const short = bytes[1] & 0x7f;
      const start = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (bytes.length < start) return null;
      const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
      const end = start + length;
      return bytes.length >= end && { first: bytes[0], payload: bytes.subarray(start, end), end };
    });
    this.received = this.received.subarray(end);
    return { first, payload, text: payload.toString() };
  }

  /** Expects a close frame of this code, and then the end of the connection. */
  async closedWith(code) {
    const { first, payload } = await this.read();
    assert.equal(first, 0x88);
    assert.equal(payload.length ? payload.readUInt16BE() : null, code);
    this.socket.end();
    await this.ended;
  }
}

// --- the page ---

test('the page and its files load, with types, tags and a policy that allows no inline script', async () => {
  const page = await ask('/');
  assert.equal(page.status, 200);
  assert.match(page.headers['content-type'], /^text\/html/);
  assert.match(page.headers['content-security-policy'], /script-src 'self'/);
  assert.doesNotMatch(page.text, /<script(?![^>]*src=)|<style| style=| on\w+=|https?:\/\//);
  for (const [, file] of page.text.matchAll(/(?:src|href)="([^"]+)"/g)) {
    assert.equal((await ask(`/${file}`)).status, 200, file);
  }
  const again = await ask('/', { headers: { 'If-None-Match': `"other", W/${page.headers.etag}` } });
  assert.deepEqual([again.status, again.text], [304, '']);
  assert.equal((await ask('/../package.json')).status, 404);
});

test('whoami tells the user of the process, and believes the headers of the proxy', async () => {
  const direct = await askJson('/whoami');
  assert.equal(direct.app.uid, process.getuid());
  assert.equal(direct.app.root, process.getuid() === 0);
  assert.deepEqual([direct.visitor.proxied, direct.visitor.protocol], [false, 'http']);
  const headers = { 'X-Forwarded-For': '203.0.113.7', 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'a.test' };
  const { visitor } = await askJson('/whoami', { headers });
  assert.deepEqual(visitor, { proxied: true, protocol: 'https', host: 'a.test', ip: '203.0.113.7' });
});

test('health, unknown paths, wrong methods and bad numbers', async () => {
  assert.equal((await ask('/health')).text, 'ok\n');
  assert.equal((await ask('/nowhere')).status, 404);
  const wrong = await ask('/upload');
  assert.deepEqual([wrong.status, wrong.headers.allow], [405, 'POST, PUT']);
  assert.equal((await ask('/slow?ms=-1')).status, 400);
  assert.equal((await ask('/download?bytes=1e3')).status, 400);
});

test('HEAD tells what GET would, without a body', async () => {
  for (const target of ['/', '/health', '/download?bytes=5000', '/download?chunked=1', '/events', '/slow?ms=0',
    '/slow?head=0', '/fail', '/status/204', '/status/304', '/early-hints', '/fail/cut?bytes=9']) {
    const answer = await rawAnswer(`HEAD ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    assert.match(answer, /^HTTP\/1\.1 \d+ /, target);
    assert.equal(answer.slice(answer.lastIndexOf('\r\n\r\n')), '\r\n\r\n', target);
  }
  const download = await ask('/download?bytes=5000', { method: 'HEAD' });
  assert.equal(download.headers['content-length'], '5000');
});

// --- bodies ---

test('echo tells exactly what came', async () => {
  const answer = await rawAnswer(
    'POST //echo/../echo/%41?a=%20&a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.match(answer, /^HTTP\/1\.1 404/, 'a path is not tidied up');
  const raw = await rawAnswer(
    'PATCH /echo/%41//b?a=%20&a HTTP/1.1\r\nHost: x\r\nX-Twice: 1\r\nx-twice: 2\r\nTransfer-Encoding: chunked\r\n'
    + 'Connection: close\r\n\r\n5\r\nhello\r\n0\r\nX-End: yes\r\n\r\n');
  const seen = JSON.parse(raw.slice(raw.indexOf('\r\n\r\n')));
  assert.equal(seen.method, 'PATCH');
  assert.equal(seen.url, '/echo/%41//b?a=%20&a');
  assert.equal(seen.httpVersion, '1.1');
  assert.equal(seen.headers['x-twice'], '1, 2');
  assert.deepEqual(seen.rawHeaders.slice(2, 6), ['X-Twice', '1', 'x-twice', '2']);
  assert.deepEqual(seen.trailers, { 'x-end': 'yes' });
  assert.deepEqual(seen.body, { length: 5, sha256: sha256('hello'), text: 'hello' });
  assert.deepEqual([seen.remoteAddress, seen.uid], ['127.0.0.1', process.getuid()]);
  const long = await askJson('/echo', { method: 'POST', body: Buffer.alloc(4096, 'x') });
  assert.deepEqual([long.body.length, long.body.text], [4096, undefined]);
});

test('upload counts and hashes', async () => {
  const body = Buffer.alloc(3_000_000, 'upload');
  const { bytes, sha256: hash } = await askJson('/upload', { method: 'POST', body });
  assert.deepEqual([bytes, hash], [body.length, sha256(body)]);
});

test('an upload over its limit is refused without reading it to the end', async () => {
  for (const framing of ['Content-Length: 10000000', 'Transfer-Encoding: chunked']) {
    // The body stops in the middle, so an app that wanted all of it would never answer.
    const raw = new Raw().write(`POST /upload?limit=10 HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`);
    raw.write('1000\r\n').write(Buffer.alloc(4000));
    await raw.has('"limit": 10');
    assert.match(raw.received.toString(), /^HTTP\/1\.1 413 .*Connection: close/s);
    await raw.until(() => raw.socket.readableEnded);
    raw.socket.destroy();
  }
});

test('a refused upload is neither read on nor reset, so the answer arrives', async () => {
  const raw = new Raw(app.port, { allowHalfOpen: true });
  raw.write('POST /upload?limit=10 HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n');
  await raw.until(() => raw.socket.readableEnded);
  raw.write(Buffer.alloc(20_000_000));
  assert.equal(await drains(raw.socket), false);
  assert.equal(raw.error, undefined);
  raw.socket.destroy();
});

test('Expect: 100-continue is answered, or refused from the head alone', async () => {
  const headers = { Expect: '100-continue', 'Content-Length': 2 };
  const onContinue = (req) => req.once('continue', () => req.end('ok'));
  const taken = await askJson('/upload', { method: 'POST', headers, body: onContinue });
  assert.equal(taken.bytes, 2);
  const head = 'HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n';
  for (const [query, status] of [['expect=refuse', 417], ['expect=refuse&status=401', 401], ['limit=10', 413]]) {
    const raw = new Raw().write(`POST /upload?${query} ${head}`);
    await raw.until(() => raw.socket.readableEnded);
    assert.match(raw.received.toString(), new RegExp(`^HTTP/1\\.1 ${status} `));
    raw.socket.destroy();
  }
});

test('download sends the bytes asked for, in either framing', async () => {
  const expected = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, i) => i % 251));
  const plain = await ask('/download?bytes=200000&chunk=777');
  assert.equal(plain.headers['content-length'], '200000');
  assert.ok(plain.bytes.equals(expected));
  const chunked = await ask('/download?bytes=200000&chunked=1');
  assert.equal(chunked.headers['transfer-encoding'], 'chunked');
  assert.ok(chunked.bytes.equals(expected));
  assert.equal((await ask('/download?bytes=0')).bytes.length, 0);
});

test('trailers go both ways', async () => {
  const { headers, trailers, text } = await ask('/trailers', {
    method: 'POST',
    headers: { Trailer: 'x-mine' },
    body: (req) => {
      req.write('part');
      req.addTrailers({ 'x-mine': 'here' });
      req.end();
    },
  });
  assert.equal(headers.trailer, 'x-checksum');
  assert.equal(trailers['x-checksum'], sha256(text));
  assert.equal(JSON.parse(text).trailers['x-mine'], 'here');
});

// --- time ---

test('events come one by one, with ids, and go on after the last one seen', async () => {
  const raw = new Raw().write('GET /events?interval=20 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 41\r\n\r\n');
  await raw.has('id: 44\n');
  const text = raw.received.toString();
  assert.match(text, /text\/event-stream/);
  assert.match(text, /retry: \d+\n\n/);
  assert.match(text, /id: 42\ndata: \{"id":42,/);
  raw.socket.destroy();
  const three = await ask('/events?interval=1&count=3');
  assert.equal(three.text.match(/^data:/gm).length, 3);
  const done = await ask('/events?count=3', { headers: { 'Last-Event-ID': '3' } });
  assert.equal(done.status, 204);
});

test('slow waits, and trickles', async () => {
  const started = performance.now();
  assert.deepEqual(await askJson('/slow?ms=50'), { waited: 50 });
  assert.ok(performance.now() - started >= 49);
  assert.equal((await ask('/slow?head=1&chunks=2&every=1')).text, 'chunk 1 of 2\nchunk 2 of 2\n');
  const raw = new Raw().write('GET /slow?head=0&every=3600000 HTTP/1.1\r\nHost: x\r\n\r\n');
  await raw.has('\r\n\r\n');
  raw.socket.destroy();
});

test('a client that leaves is counted, an app that cuts is not', async () => {
  await assert.rejects(ask('/fail/reset?not-counted'), BROKEN);
  for (const target of ['/fail/hang?counted', '/slow?ms=3600000&counted', '/events?counted']) {
    const raw = new Raw().write(`GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await once(raw.socket, 'connect');
    raw.socket.end();
  }
  const upload = new Raw().write('POST /upload?counted HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx');
  await once(upload.socket, 'connect');
  upload.socket.end();
  await ask('/health?not-counted');
  let log;
  do log = await askJson('/abort-log');
  while (Object.keys(log.urls).filter((url) => /[?&]counted/.test(url)).length < 4);
  assert.ok(log.count >= 4);
  assert.ok(!Object.keys(log.urls).some((url) => url.includes('not-counted')));
});

// --- failures ---

test('failures fail as they are told to', async () => {
  assert.equal((await ask('/fail')).status, 500);
  assert.equal((await ask('/fail?status=503')).status, 503);
  assert.equal((await ask('/fail?status=200')).status, 400);
  await assert.rejects(ask('/fail/reset'), BROKEN);
  await assert.rejects(ask('/fail/reset?how=rst'), BROKEN);
  await assert.rejects(ask('/fail/cut?bytes=10'), BROKEN);
  await assert.rejects(ask('/fail/garbage'), { code: 'HPE_INVALID_CONSTANT' });
  const cut = await rawAnswer('GET /fail/cut?bytes=10 HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.match(cut, /Content-Length: 1034\r\n.*\r\n\r\nx{10}$/s);
  const chunked = await rawAnswer('GET /fail/cut?bytes=10&chunked=1 HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.match(chunked, /\r\n\r\na\r\nx{10}\r\n400\r\ncut!$/);
});

test('a crash ends the process with its reason', async () => {
  const crashes = [['/fail/crash', 1, /asked for/], ['/fail/crash?code=7', 7, /code 7/], ['/fail/crash?how=throw', 1, /Error: crashed/]];
  await Promise.all(crashes.map(async ([target, code, reason]) => {
    const own = await start();
    await assert.rejects(ask(target, { port: own.port }), BROKEN);
    assert.equal(await own.exit, code);
    assert.match(own.err, reason);
  }));
});

test('statuses without a body, and early hints', async () => {
  const empty = await rawAnswer('GET /status/204 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.match(empty, /^HTTP\/1\.1 204 [^]*\r\n\r\n$/);
  assert.doesNotMatch(empty, /content-length|transfer-encoding/i);
  const same = await ask('/status/304');
  assert.deepEqual([same.status, same.headers.etag, same.text], [304, '"sample"', '']);
  assert.equal((await ask('/status/418')).status, 418);
  assert.equal((await ask('/status/101')).status, 404);
  const hints = await ask('/early-hints');
  assert.deepEqual(hints.informational.map((info) => info.statusCode), [103]);
  assert.match(hints.informational[0].headers.link, /rel=preload/);
  assert.equal(hints.status, 200);
});

// --- websockets ---

test('the handshake is checked', async () => {
  const get = (headers, line = 'GET /ws/echo HTTP/1.1') => rawAnswer(`${line}\r\nHost: a.test\r\n${headers}\r\n`);
  assert.match(await get(UPGRADE, 'POST /ws/echo HTTP/1.1'), /^HTTP\/1\.1 405 /);
  assert.match(await get(UPGRADE.replace('13', '8')), /^HTTP\/1\.1 426 .*Sec-WebSocket-Version: 13/s);
  assert.match(await get(UPGRADE.replace('==', '')), /^HTTP\/1\.1 400 /);
  assert.match(await get(`${UPGRADE}Origin: https://evil.test\r\n`), /^HTTP\/1\.1 403 /);
  assert.match(await get('Connection: close\r\n'), /^HTTP\/1\.1 426 /);
  assert.match(await get(UPGRADE, 'GET /health HTTP/1.1'), /^HTTP\/1\.1 200 .*ok\n$/s);
  assert.match(await get('Connection: Upgrade\r\nUpgrade: h2c\r\n', 'GET /health HTTP/1.1'), /^HTTP\/1\.1 200 .*ok\n$/s);
  const own = new Raw().write(`GET /chat HTTP/1.1\r\nHost: a.test\r\nOrigin: https://a.test\r\n${UPGRADE}\r\n`);
  await own.has('101 Switching');
  own.socket.destroy();
});

test('messages come back: text, binary, fragmented, long, with a ping between', async () => {
  const ws = await WebSocketClient.open();
  ws.frame(0x81, 'grüße');
  assert.deepEqual(pick(await ws.read()), [0x81, 'grüße']);
  ws.frame(0x82, Buffer.from([0, 255]));
  assert.deepEqual((await ws.read()).payload, Buffer.from([0, 255]));
  ws.frame(0x01, 'a').frame(0x00, '').frame(0x89, 'between').frame(0x80, 'b');
  assert.deepEqual(pick(await ws.read()), [0x8a, 'between']);
  assert.deepEqual(pick(await ws.read()), [0x81, 'ab']);
  const long = Buffer.alloc(3 * 1024 * 1024, 'long');
  for (const length of [0, 125, 126, 65535, 65536, long.length]) {
    ws.frame(0x82, long.subarray(0, length));
    const { first, payload } = await ws.read();
    assert.ok(first === 0x82 && payload.equals(long.subarray(0, length)), `${length} bytes`);
  }
  ws.frame(0x88, Buffer.from([0x03, 0xe8]));
  await ws.closedWith(1000);
});

test('what breaks the protocol is closed with its code', async () => {
  const cases = {
    'no mask': [1002, (ws) => ws.frame(0x81, 'x', { masked: false })],
    'reserved bit': [1002, (ws) => ws.frame(0xc1, 'x')],
    'unknown opcode': [1002, (ws) => ws.frame(0x83, 'x')],
    'continuation of nothing': [1002, (ws) => ws.frame(0x80, 'x')],
    'message within a message': [1002, (ws) => ws.frame(0x01, 'x').frame(0x81, 'y')],
    'fragmented ping': [1002, (ws) => ws.frame(0x09, 'x')],
    'long ping': [1002, (ws) => ws.frame(0x89, Buffer.alloc(126))],
    'length not minimal': [1002, (ws) => ws.write(Buffer.from([0x81, 0xfe, 0, 1, 1, 2, 3, 4, 5]))],
    'half a close code': [1002, (ws) => ws.frame(0x88, 'x')],
    'close code never sent': [1002, (ws) => ws.frame(0x88, Buffer.from([0x03, 0xed]))],
    'close reason not UTF-8': [1007, (ws) => ws.frame(0x88, Buffer.from([0x03, 0xe8, 0xff]))],
    'text not UTF-8': [1007, (ws) => ws.frame(0x81, Buffer.from([0xff]))],
    'over 16 MiB': [1009, (ws) => ws.write(Buffer.from([0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]))],
    'close without a code': [null, (ws) => ws.frame(0x88)],
    'code of an application': [4321, (ws) => ws.frame(0x88, Buffer.from([0x10, 0xe1]))],
  };
  await Promise.all(Object.entries(cases).map(async ([name, [code, act]]) => {
    const ws = await WebSocketClient.open();
    act(ws);
    await ws.closedWith(code).catch((error) => assert.fail(`${name}: ${error.message}`));
  }));
});

test('the limit holds over all fragments of a message', async () => {
  const ws = await WebSocketClient.open('/chat');
  const half = Buffer.alloc(512 * 1024);
  ws.frame(0x02, half).frame(0x00, half).frame(0x80, 'x');
  await ws.closedWith(1009);
});

test('text is checked as a whole: a character may be cut by a fragment', async () => {
  const ws = await WebSocketClient.open();
  ws.frame(0x01, Buffer.from([0xc3])).frame(0x80, Buffer.from([0xbc]));
  assert.equal((await ws.read()).text, 'ü');
  ws.socket.destroy();
});

test('a client that does not read stops being read', async () => {
  const ws = await WebSocketClient.open();
  ws.socket.pause();
  const message = Buffer.alloc(256 * 1024);
  let sent = 0;
  do {
    assert.ok((sent += 1) <= 400, 'the app went on reading 100 MB that nobody took back');
    ws.frame(0x82, message);
  } while (await drains(ws.socket));
  ws.socket.resume();
  for (; sent > 0; sent -= 1) assert.equal((await ws.read()).payload.length, message.length);
  ws.socket.destroy();
});

test('the chat goes to everybody, also to the sender', async () => {
  const [one, two] = await Promise.all([WebSocketClient.open('/chat'), WebSocketClient.open('/chat')]);
  one.frame(0x81, 'hello');
  assert.equal((await one.read()).text, 'hello');
  assert.equal((await two.read()).text, 'hello');
  one.socket.destroy();
  two.frame(0x81, 'alone');
  assert.equal((await two.read()).text, 'alone');
  two.socket.destroy();
});

// --- start and stop ---

test('TERM lets requests end, and says goodbye to streams and websockets', async () => {
  const own = await start({ KEEP_ALIVE_TIMEOUT: '60000' });
  const idle = new Raw(own.port).write('GET /health HTTP/1.1\r\nHost: x\r\n\r\n');
  await idle.has('ok\n');
  assert.match(idle.received.toString(), /Keep-Alive: timeout=60/);
  const events = new Raw(own.port).write('GET /events HTTP/1.1\r\nHost: x\r\n\r\n');
  await events.has('id: 1\n');
  const ws = await WebSocketClient.open('/chat', own.port);
  const slow = new Raw(own.port).write('GET /slow?head=0&chunks=3&every=100 HTTP/1.1\r\nHost: x\r\n\r\n');
  await slow.has('chunk 1');
  const stopped = performance.now();
  own.child.kill('SIGTERM');
  await ws.closedWith(1001);
  await Promise.all([idle.ended, events.ended, slow.ended]);
  assert.match(events.received.toString(), /\r\n0\r\n\r\n$/);
  assert.match(slow.received.toString(), /chunk 3 of 3\n\r\n0\r\n\r\n$/);
  assert.equal(await own.exit, 0);
  assert.ok(performance.now() - stopped < 3500, 'it ended by itself, and not by its deadline');
});

test('a Unix socket is listened on, also where a crash left one behind', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'node-app-'));
  const socketPath = path.join(folder, 'app.sock');
  for (const signal of ['SIGKILL', 'SIGTERM']) {
    const own = await start({ PORT: socketPath });
    assert.equal(own.url, `unix:${socketPath}`);
    assert.equal((await ask('/health', { socketPath })).text, 'ok\n');
    assert.equal((await askJson('/echo', { socketPath })).remoteAddress, null);
    own.child.kill(signal);
    await own.exit;
  }
  const file = path.join(folder, 'file');
  fs.writeFileSync(file, 'kept');
  await assert.rejects(start({ PORT: file }), /EADDRINUSE/);
  assert.equal(fs.readFileSync(file, 'utf8'), 'kept');
  fs.rmSync(folder, { recursive: true });
});

test('root is refused, unless it is asked for', async () => {
  await assert.rejects(start({ ALLOW_ROOT: '' }), /exit 1: This app does not run as root.*USER node/s);
  assert.match(app.err, /WARNING: RUNNING AS ROOT/);
}, { skip: process.getuid() !== 0 && 'needs root' });

function sha256(data) {
  return createHash('sha256').update(data).digest('hex');
}

function pick({ first, text }) {
  return [first, text];
}

/** Whether the app takes what is queued, given twenty turns of its event loop to do so. */
async function drains(socket) {
  for (let turn = 0; turn < 20 && socket.writableLength > 0; turn += 1) await ask('/health');
  return socket.writableLength === 0;
}
