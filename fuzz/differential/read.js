// HTTP/1 by the letter (RFC 9112): what a strict reader makes of a client's bytes, and of a server's.

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const TARGET = /^[\x21\x22\x24-\x7e\x80-\xff]+$/;

class Bad extends Error {}
class End extends Error {}

/**
 * The requests in `bytes`, and how they end: 'close' where one asked to, 'bad' at what is none, 'more' where one is not
 * complete, 'open' where the next may come. From the first one on that may become a WebSocket, they are `doubtful`.
 */
export function requests(bytes) {
  const reader = new Reader(bytes);
  const list = [];
  let doubtful = false;
  for (;;) {
    let request;
    try {
      if (reader.skipEmptyLines()) {
        return { list, end: 'open', doubtful };
      }
      request = { ...head(reader), body: Buffer.alloc(0), complete: false };
      list.push(request);
      if (request.upgrade) {
        doubtful = true;
      }
      if (request.chunked) {
        chunks(reader, request);
      } else {
        sized(reader, request, request.length);
      }
      request.complete = true;
    } catch (error) {
      if (error instanceof Bad || error instanceof End) {
        return { list, end: error instanceof Bad ? 'bad' : 'more', doubtful };
      }
      throw error;
    }
    if (request.close) {
      return { list, end: 'close', doubtful };
    }
  }
}

function head(reader) {
  const parts = /^([^ ]+) ([^ ]+) HTTP\/1\.([01])$/.exec(reader.line());
  if (!parts || !TOKEN.test(parts[1]) || !TARGET.test(parts[2])) {
    throw new Bad();
  }
  const [, method, target, minor] = parts;
  const fields = reader.fields();
  const all = (name) => fields.filter(([found]) => found === name).map(([, value]) => value);
  const lengths = all('content-length');
  const codings = all('transfer-encoding');
  // Where there is more than tokens in it, it is not a list of options, and nobody has to understand any.
  const options = all('connection').filter((value) => /^[\x20-\x7e\t]*$/.test(value)).flatMap((value) => value.toLowerCase().split(',').map((item) => item.trim()));
  if (lengths.length + codings.length > 1 || lengths.some((it) => !/^\d+$/.test(it) || BigInt(it) >= 1n << 63n)) {
    throw new Bad();
  }
  if (codings.some((it) => it.toLowerCase() !== 'chunked') || (codings.length > 0 && minor === '0')) {
    throw new Bad();
  }
  const sockets = all('upgrade').some((value) => value.toLowerCase().split(',').some((item) => item.trim() === 'websocket'));
  return {
    method,
    target,
    length: Number(lengths[0] ?? 0),
    chunked: codings.length > 0,
    upgrade: sockets && method === 'GET' && minor === '1',
    // To whatever: lowport goes on as if it had not been asked.
    asks: all('upgrade').length > 0,
    close: options.includes('close') || (minor === '0' && !options.includes('keep-alive')),
  };
}

function sized(reader, request, length) {
  const part = reader.take(length);
  request.body = Buffer.concat([request.body, part]);
  if (part.length < length) {
    throw new End();
  }
}

function chunks(reader, request) {
  for (;;) {
    const line = /^([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?$/.exec(reader.line());
    if (!line) {
      throw new Bad();
    }
    const size = parseInt(line[1], 16);
    if (size === 0) {
      reader.fields();
      return;
    }
    sized(reader, request, size);
    reader.exactly('\r\n');
  }
}

/**
 * The responses in `bytes`, given the methods that they answer, in order. `error` says what is wrong with them, if
 * anything is; the last one may not be complete.
 */
export function responses(bytes, methods) {
  const reader = new Reader(bytes);
  const list = [];
  try {
    while (!reader.isDone()) {
      const status = /^HTTP\/1\.[01] (\d{3}) /.exec(`${reader.line()} `);
      if (!status) {
        return { list, error: 'a status line is none' };
      }
      const code = Number(status[1]);
      const fields = new Map(reader.fields());
      if (code < 200 && code !== 101) {
        continue;
      }
      const response = { status: code, fields, body: Buffer.alloc(0), complete: false };
      const method = methods[list.length];
      list.push(response);
      if (code === 101) {
        response.complete = true;
        return { list, tunnel: reader.take(Infinity) };
      }
      if (method === 'HEAD' || code === 204 || code === 304) {
        // No body, whatever the fields say.
      } else if (fields.get('transfer-encoding') === 'chunked') {
        chunks(reader, response);
      } else if (fields.has('content-length')) {
        sized(reader, response, Number(fields.get('content-length')));
      } else {
        response.body = reader.take(Infinity);
      }
      response.complete = true;
    }
  } catch (error) {
    if (error instanceof Bad) {
      return { list, error: 'a response is malformed' };
    }
    if (!(error instanceof End)) {
      throw error;
    }
  }
  return { list };
}

class Reader {
  #bytes;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  isDone() {
    return this.#at === this.#bytes.length;
  }

  /** Whether nothing is left behind the empty lines. */
  skipEmptyLines() {
    while (this.#bytes[this.#at] === 0x0d) {
      this.exactly('\r\n');
    }
    return this.isDone();
  }

  /** A line without its end. What has no end yet may be wrong already, but nobody has to know. */
  line() {
    const end = this.#bytes.indexOf('\n', this.#at);
    if (end < 0) {
      throw new End();
    }
    const line = this.#bytes.toString('latin1', this.#at, end);
    if (!line.endsWith('\r') || line.indexOf('\r') < line.length - 1) {
      throw new Bad();
    }
    this.#at = end + 1;
    return line.slice(0, -1);
  }

  /** Fields up to the empty line: names in lower case, values without the space around them. */
  fields() {
    const fields = [];
    for (let line = this.line(); line !== ''; line = this.line()) {
      const colon = line.indexOf(':');
      const name = line.slice(0, Math.max(colon, 0));
      const value = line.slice(colon + 1);
      if (!TOKEN.test(name) || !VALUE.test(value)) {
        throw new Bad();
      }
      fields.push([name.toLowerCase(), value.replace(/^[ \t]+|[ \t]+$/g, '')]);
    }
    return fields;
  }

  take(length) {
    const part = this.#bytes.subarray(this.#at, Math.min(this.#bytes.length, this.#at + length));
    this.#at += part.length;
    return part;
  }

  exactly(text) {
    const found = this.take(text.length).toString('latin1');
    if (!text.startsWith(found)) {
      throw new Bad();
    }
    if (found.length < text.length) {
      throw new End();
    }
  }
}
