// One request and its response, and the few things that every endpoint does with them.

/** A mistake of the client; becomes a JSON answer with this status. */
export class ClientError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Exchange {
  #gone = null;

  constructor(req, res) {
    this.req = req;
    this.res = res;
    const { path, query } = splitTarget(req.url);
    /** The path as it was sent, percent-encoding untouched. */
    this.path = path;
    this.query = new URLSearchParams(query);
  }

  /** Aborts when the connection closes: whoever waits for something stops waiting then. */
  get gone() {
    if (!this.#gone) {
      this.#gone = new AbortController();
      this.res.once('close', () => this.#gone.abort());
      if (this.res.closed) this.#gone.abort();
    }
    return this.#gone.signal;
  }

  /** A whole number of the query from 0 to `max`, or `fallback` where it is absent. */
  number(name, fallback, max = Number.MAX_SAFE_INTEGER) {
    const text = this.query.get(name);
    if (text === null) return fallback;
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (!(value <= max)) {
      throw new ClientError(400, `${name} must be a whole number from 0 to ${max}, not "${text}"`);
    }
    return value;
  }

  /** Answers with JSON. The length is declared, so HEAD tells the same as GET. */
  json(status, value, headers = {}) {
    this.#answer(status, `${JSON.stringify(value, null, 2)}\n`, 'application/json; charset=utf-8', headers);
  }

  text(status, text, headers = {}) {
    this.#answer(status, text, 'text/plain; charset=utf-8', headers);
  }

  /**
   * Answers before the request body has been read, and reads none of it.
   * Closing a socket with unread bytes makes the kernel send a reset, which may overtake the answer;
   * so only our side is closed, and the client has a second to read and leave.
   */
  refuse(status, value) {
    const { socket } = this.req;
    socket.destroySoon = () => {
      socket.end();
      setTimeout(() => socket.destroy(), 1000).unref();
    };
    // A body that nobody asked for is one that Node reads and throws away; so ask for none of it.
    this.req.read(0);
    this.json(status, value, { Connection: 'close' });
  }

  #answer(status, text, type, headers) {
    const body = Buffer.from(text);
    this.res.writeHead(status, {
      'Content-Type': type,
      'Content-Length': body.length,
      'Cache-Control': 'no-store',
      ...headers,
    });
    this.res.end(body);
  }
}

/** Splits a request target without tidying it up: `//x` stays a path, and `/a/../b` stays as it is. */
export function splitTarget(target) {
  const origin = target.replace(/^https?:\/\/[^/?]*/i, '');
  const mark = origin.indexOf('?');
  const path = mark < 0 ? origin : origin.slice(0, mark);
  return { path: path || '/', query: mark < 0 ? '' : origin.slice(mark + 1) };
}
