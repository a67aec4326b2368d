// A websocket server, RFC 6455, without extensions: small, and strict about what it reads.

import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { isUtf8 } from 'node:buffer';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const CONTINUATION = 0x0;
const TEXT = 0x1;
const BINARY = 0x2;
const CLOSE = 0x8;
const PING = 0x9;
const PONG = 0xa;
// How long the other side may take to answer a close frame and to leave.
const CLOSE_TIMEOUT_MS = 2000;

/**
 * Answers an upgrade request (section 4.2). Returns the connection, or null after an error answer.
 * `maxMessage` is in bytes, over all fragments of a message.
 */
export function handshake(req, socket, head, { maxMessage }) {
  // Without a listener a reset by the client would end the whole process.
  socket.on('error', () => {});
  const { headers } = req;
  const key = headers['sec-websocket-key'] ?? '';
  const refuse = (status, extra = '') => {
    socket.end(`HTTP/1.1 ${status}\r\n${extra}Connection: close\r\nContent-Length: 0\r\n\r\n`);
    return null;
  };
  if (req.httpVersion !== '1.1') return refuse('400 Bad Request');
  if (req.method !== 'GET') return refuse('405 Method Not Allowed', 'Allow: GET\r\n');
  if (headers['sec-websocket-version'] !== '13') {
    return refuse('426 Upgrade Required', 'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n');
  }
  if (!/^[A-Za-z0-9+/]{22}==$/.test(key)) return refuse('400 Bad Request');
  if (!sameOrigin(headers)) return refuse('403 Forbidden');

  const accept = createHash('sha1').update(key + GUID).digest('base64');
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  return new WebSocketConnection(socket, head, maxMessage);
}

/** Browsers let any page open a websocket anywhere, so the server has to look where it comes from. */
function sameOrigin({ origin, host, 'x-forwarded-host': forwardedHost }) {
  if (origin === undefined) return true;
  return URL.canParse(origin) && new URL(origin).host === (forwardedHost ?? host)?.toLowerCase();
}

/**
 * One open connection. Emits `message` (a Buffer, whether it is binary) and, once, `close`
 * (the code, 1006 where none came).
 */
class WebSocketConnection extends EventEmitter {
  #socket;
  #maxMessage;
  #input = new ByteQueue();
  /** The head of the frame whose payload has not come yet. */
  #frame = null;
  /** The message in pieces: null, or its opcode and what has come of it. */
  #message = null;
  /** `open`, then `closing` once our close frame is sent, then `deaf`: nothing read matters. */
  #state = 'open';
  #code = 1006;

  constructor(socket, head, maxMessage) {
    super();
    this.#socket = socket;
    this.#maxMessage = maxMessage;
    socket.setTimeout(0);
    socket.on('data', (chunk) => this.#receive(chunk));
    // Output that does not drain stops the input: an echo needs no queue then.
    socket.on('drain', () => socket.resume());
    socket.on('end', () => socket.end());
    socket.on('close', () => this.emit('close', this.#code));
    // After this tick, so that the owner has its listeners in place.
    if (head.length) setImmediate(() => this.#receive(head));
  }

  /** Bytes that were sent and that the kernel has not taken yet. */
  get backlog() {
    return this.#socket.writableLength;
  }

  /** Sends a Buffer as one frame; a connection that is closing drops it. */
  send(data, binary = false) {
    if (this.#state === 'open') this.#write(binary ? BINARY : TEXT, data);
  }

  /** Begins the close handshake (section 7.1.2). */
  close(code, reason = '') {
    if (this.#state !== 'open') return;
    this.#sendClose(code, reason);
    this.#state = 'closing';
  }

  /** Drops the connection without a word. */
  terminate() {
    this.#socket.destroy();
  }

  #receive(chunk) {
    if (this.#state === 'deaf') return;
    this.#input.push(chunk);
    try {
      while (this.#state !== 'deaf' && this.#readFrame());
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#fail(error.code, error.message);
    }
  }

  /** Takes one whole frame from the input; false where more bytes are needed (section 5.2). */
  #readFrame() {
    this.#frame ??= this.#readHead();
    if (!this.#frame || this.#input.length < this.#frame.length) return false;
    const { fin, opcode, mask, length } = this.#frame;
    const payload = this.#input.take(length);
    for (let i = 0; i < length; i += 1) payload[i] ^= mask[i & 3];
    this.#frame = null;
    if (opcode >= CLOSE) this.#control(opcode, payload);
    else this.#data(opcode, fin, payload);
    return true;
  }

  /** The head is judged before its payload comes, so nobody makes us wait for what we will refuse. */
  #readHead() {
    const start = this.#input.peek(14);
    if (start.length < 2) return null;
    const fin = (start[0] & 0x80) !== 0;
    const opcode = start[0] & 0x0f;
    const short = start[1] & 0x7f;
    if (start[0] & 0x70) throw new ProtocolError(1002, 'reserved bits');
    if (![CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG].includes(opcode)) {
      throw new ProtocolError(1002, 'unknown opcode');
    }
    if (!(start[1] & 0x80)) throw new ProtocolError(1002, 'frame without a mask');
    if (opcode >= CLOSE && (!fin || short > 125)) throw new ProtocolError(1002, 'bad control frame');
    if (opcode === CONTINUATION && !this.#message) throw new ProtocolError(1002, 'nothing to continue');
    if ((opcode === TEXT || opcode === BINARY) && this.#message) {
      throw new ProtocolError(1002, 'message within a message');
    }

    const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
    const headBytes = 2 + lengthBytes + 4;
    if (start.length < headBytes) return null;
    let length = short;
    if (lengthBytes === 2) length = start.readUInt16BE(2);
    if (lengthBytes === 8) length = Number(start.readBigUInt64BE(2));
    if (lengthBytes === 2 && length < 126) throw new ProtocolError(1002, 'length not minimal');
    if (lengthBytes === 8 && (length < 65536 || length >= 2 ** 63)) {
      throw new ProtocolError(1002, 'bad length');
    }
    if (opcode < CLOSE && length + (this.#message?.length ?? 0) > this.#maxMessage) {
      throw new ProtocolError(1009, `more than ${this.#maxMessage} bytes`);
    }
    return { fin, opcode, length, mask: this.#input.take(headBytes).subarray(-4) };
  }

  #data(opcode, fin, payload) {
    this.#message ??= { opcode, parts: [], length: 0 };
    const message = this.#message;
    // Empty pieces cost nothing to send, so they must cost nothing to keep.
    if (payload.length) message.parts.push(payload);
    message.length += payload.length;
    if (!fin) return;
    this.#message = null;
    const whole = message.parts.length === 1 ? message.parts[0] : Buffer.concat(message.parts);
    if (message.opcode === TEXT && !isUtf8(whole)) throw new ProtocolError(1007, 'text is not UTF-8');
    if (this.#state === 'open') this.emit('message', whole, message.opcode === BINARY);
  }

  #control(opcode, payload) {
    if (opcode === PING) {
      if (this.#state === 'open') this.#write(PONG, payload);
    } else if (opcode === CLOSE) {
      const code = closeCode(payload);
      this.#code = code ?? 1005;
      if (this.#state === 'open') this.#sendClose(code);
      this.#leave();
    }
  }

  #fail(code, reason) {
    this.#code = code;
    if (this.#state === 'open') this.#sendClose(code, reason);
    this.#leave();
  }

  #sendClose(code, reason = '') {
    const payload = code === null ? Buffer.alloc(0) : Buffer.from(`..${reason}`);
    if (code !== null) payload.writeUInt16BE(code);
    this.#write(CLOSE, payload);
    setTimeout(() => this.#socket.destroy(), CLOSE_TIMEOUT_MS).unref();
  }

  /**
   * The server closes first (section 7.1.1). What still comes is read and thrown away:
   * closing on unread bytes would reset the connection and lose our close frame.
   */
  #leave() {
    this.#state = 'deaf';
    this.#input.clear();
    this.#socket.end();
  }

  #write(opcode, payload) {
    const { length } = payload;
    const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
    head[0] = 0x80 | opcode;
    head[1] = length < 126 ? length : length < 65536 ? 126 : 127;
    if (head.length === 4) head.writeUInt16BE(length, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
    this.#socket.cork();
    this.#socket.write(head);
    const keepsUp = this.#socket.write(payload);
    this.#socket.uncork();
    if (!keepsUp && this.#state === 'open') this.#socket.pause();
  }
}

/** Ends the connection with a close frame of this code (section 7.4.1). */
class ProtocolError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The code of a close frame, null where it has none (sections 5.5.1 and 7.4). */
function closeCode(payload) {
  if (payload.length === 0) return null;
  if (payload.length === 1) throw new ProtocolError(1002, 'half a close code');
  const code = payload.readUInt16BE();
  const known = (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code <= 4999);
  if (!known) throw new ProtocolError(1002, 'bad close code');
  if (!isUtf8(payload.subarray(2))) throw new ProtocolError(1007, 'close reason is not UTF-8');
  return code;
}

/** Bytes in the pieces in which they came; joined only when taken, so each is copied once at most. */
class ByteQueue {
  #chunks = [];
  length = 0;

  push(chunk) {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.length += chunk.length;
  }

  /** Up to `n` bytes from the front, left in place. */
  peek(n) {
    if (this.#chunks[0]?.length >= n) return this.#chunks[0].subarray(0, n);
    return Buffer.concat(this.#chunks, Math.min(n, this.length));
  }

  /** Exactly `n` bytes from the front; there must be as many. */
  take(n) {
    this.length -= n;
    const taken = [];
    let missing = n;
    while (missing > 0) {
      const first = this.#chunks[0];
      if (first.length > missing) {
        taken.push(first.subarray(0, missing));
        this.#chunks[0] = first.subarray(missing);
        missing = 0;
      } else {
        taken.push(this.#chunks.shift());
        missing -= first.length;
      }
    }
    return taken.length === 1 ? taken[0] : Buffer.concat(taken, n);
  }

  clear() {
    this.#chunks = [];
    this.length = 0;
  }
}
