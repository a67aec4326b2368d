// The Node servers: what each client address asked of them, as Node read it.

import { once } from 'node:events';
import http from 'node:http';

/** Requests of all servers, so that their order is known. */
let count = 0;

/** A server that remembers every request by the client that it is told of. */
export class NodeServer {
  #server = http.createServer((request, response) => this.#answer(request, response));
  #client;
  #requests = new Map();
  /** What Node could not read, by client where there is one. */
  complaints = [];

  /** `client` names who sent a request; with `upgrades`, it takes WebSockets. */
  constructor(client, upgrades) {
    this.#client = client;
    this.#server.keepAliveTimeout = 0;
    this.#server.requestTimeout = 0;
    this.#server.headersTimeout = 0;
    this.#server.on('clientError', (error, socket) => {
      this.complaints.push({ code: error.code, reason: error.reason, bytes: error.rawPacket, client: socket.remoteAddress });
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    });
    this.#server.on('checkExpectation', (request, response) => this.#answer(request, response));
    if (upgrades) {
      this.#server.on('upgrade', (request, socket) => {
        const record = this.#record(request);
        record.complete = true;
        socket.on('error', () => {});
        socket.on('end', () => socket.end());
        socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Seen: ${record.number}\r\n\r\n`);
        socket.resume();
      });
    }
  }

  async listen() {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return this.#server.address().port;
  }

  /** What a client asked so far, in order. */
  requests(client) {
    return this.#requests.get(client) ?? [];
  }

  forget(client) {
    this.#requests.delete(client);
  }

  /** Whose requests are not forgotten. */
  clients() {
    return [...this.#requests.keys()];
  }

  close() {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #record(request) {
    const record = {
      number: count++,
      method: request.method,
      target: request.url,
      headers: request.headers,
      chunks: [],
      complete: false,
      early: false,
      over: false,
    };
    const client = this.#client(request);
    const list = this.#requests.get(client);
    if (list) {
      list.push(record);
    } else {
      this.#requests.set(client, [record]);
    }
    return record;
  }

  /** One of several ways to answer, by number: a proxy has to frame each of them right. */
  #answer(request, response) {
    const record = this.#record(request);
    response.setHeader('X-Seen', record.number);
    const early = record.number % 8 === 0;
    record.early = early;
    request.on('data', (chunk) => record.chunks.push(chunk));
    request.on('end', () => {
      record.complete = true;
      if (!early) {
        finish(record.number, response);
      }
    });
    request.on('error', () => {});
    response.on('error', () => {});
    request.on('close', () => {
      record.over = true;
    });
    if (early) {
      response.end('early');
    }
  }
}

function finish(number, response) {
  switch (number % 8) {
    case 1:
      response.writeHead(204).end();
      break;
    case 2:
      response.write('HTTP/1.1 200 OK\r\n');
      response.end('X-Seen: none\r\n\r\n');
      break;
    case 3:
      response.writeHead(200, { 'Content-Length': 4 }).end('body');
      break;
    case 4:
      response.writeHead(304).end();
      break;
    default:
      response.end('ok');
  }
}
