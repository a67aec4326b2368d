// `/events`: a clock over server-sent events. A proxy that buffers makes it stutter.

const RETRY_MS = 2000;

export class EventClock {
  #streams = new Set();

  /**
   * `?interval=ms` between two events (1000), `?count=n` ends after the n-th.
   * A client that comes back with Last-Event-ID goes on counting where it stopped.
   */
  serve(exchange) {
    const { req, res } = exchange;
    const interval = Math.max(1, exchange.number('interval', 1000, 3_600_000));
    const count = exchange.number('count', Infinity);
    let id = Number(/^\d{1,15}$/.exec(req.headers['last-event-id'] ?? '')?.[0] ?? 0);
    if (id >= count) {
      // 204 is how a browser is told not to come back.
      res.writeHead(204).end();
      return;
    }
    res.writeHead(200, {
      'Content-Type': 'text/event-stream; charset=utf-8',
      'Cache-Control': 'no-store',
      'X-Accel-Buffering': 'no',
    });
    if (req.method === 'HEAD') {
      res.end();
      return;
    }
    res.flushHeaders();
    res.write(`retry: ${RETRY_MS}\n\n`);

    const tick = () => {
      // A client that does not keep up misses events rather than filling our memory.
      if (res.writableNeedDrain) return;
      id += 1;
      res.write(`id: ${id}\ndata: ${JSON.stringify({ id, time: new Date().toISOString() })}\n\n`);
      if (id >= count) res.end();
    };
    const timer = setInterval(tick, interval);
    this.#streams.add(res);
    const cease = () => {
      clearInterval(timer);
      this.#streams.delete(res);
    };
    res.once('finish', cease);
    res.once('close', cease);
    tick();
  }

  /** Ends every stream between two events; the browser then reconnects by itself. */
  end() {
    for (const res of this.#streams) res.end();
  }
}
