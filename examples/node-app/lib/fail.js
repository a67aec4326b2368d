// `/fail`: every way in which an app lets its proxy down.

/** `/fail?status=n`: an honest error, from 400 to 599. */
export function answer(exchange) {
  const status = exchange.number('status', 500, 599);
  if (status < 400) exchange.json(400, { error: 'status must be from 400 to 599' });
  else exchange.json(status, { error: `failed with ${status}, as asked for`, status });
}

/** `/fail/crash[?code=n]` ends the process; `?how=throw` by an exception that nobody catches. */
export function crash(exchange) {
  const code = exchange.number('code', 1, 255);
  if (exchange.query.get('how') === 'throw') {
    // Thrown outside of the request, where no handler can catch it.
    setImmediate(() => {
      throw new Error('crashed, as asked for by /fail/crash?how=throw');
    });
    return;
  }
  console.error(`crashed with exit code ${code}, as asked for by /fail/crash`);
  process.exit(code);
}

/** `/fail/reset`: the connection closes before a byte of a response; `?how=rst` with a TCP reset. */
export function reset(exchange) {
  const { socket } = exchange.req;
  if (exchange.query.get('how') === 'rst') socket.resetAndDestroy();
  else socket.destroy();
}

/** `/fail/cut?bytes=n`: the response breaks off after n bytes; `&chunked=1` inside a chunk. */
export function cut(exchange) {
  const { req, res } = exchange;
  const bytes = exchange.number('bytes', 1024, 16 * 1024 * 1024);
  const chunked = exchange.query.get('chunked') === '1';
  const headers = { 'Content-Type': 'text/plain' };
  if (!chunked) headers['Content-Length'] = bytes + 1024;
  res.writeHead(200, headers);
  // To HEAD no body is promised, so there is none to break off.
  if (req.method === 'HEAD') return res.end();
  res.flushHeaders();
  if (bytes) res.write('x'.repeat(bytes));
  // A chunk that announces 1024 bytes and brings four.
  if (chunked) req.socket.write('400\r\ncut!');
  req.socket.destroySoon();
}

/** `/fail/garbage`: an answer that is not HTTP. */
export function garbage(exchange) {
  const { socket } = exchange.req;
  socket.write('This is not HTTP.\r\n\r\n');
  socket.destroySoon();
}

/** `/fail/hang`: never answers. Only a timeout of the proxy, or a client that leaves, ends it. */
export function hang() {}
