// Whether what a connection came to is what its bytes say.

import { requests, responses } from './read.js';

/** Path and query of a target: an absolute one loses scheme and host (RFC 9112 section 3.2). */
function origin(target) {
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/[^/?]*(.*)$/i.exec(target);
  const path = absolute ? absolute[1] : target;
  return path === '' || path.startsWith('?') ? `/${path}` : path;
}

/** Whether something is missing that may still be on its way: an entry of the log, or the end of a request. */
export function isSettled({ log, seen }) {
  return seen.every((request) => request.over || request.complete || request.early) && log.length >= seen.length;
}

/**
 * The complaints about one connection through lowport: `bytes` were sent, `answer` came back and `closed` tells whether
 * lowport ended it; `log` is what lowport says that it read, `seen` what Node read behind it.
 */
export function judge({ bytes, answer, closed, log, seen, from }) {
  const wanted = requests(bytes);
  const said = responses(answer, log.map((entry) => entry.method));
  const wrong = [];
  const complain = (text) => wrong.push(text);

  // 1. Every request that Node saw is in the bytes, in that order, with that body.
  let at = 0;
  for (const request of seen) {
    const found = wanted.list.findIndex((it, index) => index >= at && it.method === request.method && origin(it.target) === request.target);
    if (found < 0) {
      complain(`Node saw a request that is not in the bytes: ${request.method} ${request.target}`);
      continue;
    }
    at = found + 1;
    const { body, complete } = wanted.list[found];
    const received = Buffer.concat(request.chunks);
    if (request.complete && !complete) {
      complain(`Node took a broken body for a whole one: ${request.target}`);
    }
    if (request.complete ? !received.equals(body) : !body.subarray(0, received.length).equals(received)) {
      complain(`Node got another body than was sent: ${request.target}`);
    }
    // Who is answered before the end need not go on.
    if (!request.complete && complete && closed && !request.early) {
      complain(`Node did not get the whole of a body: ${request.target}`);
    }
    // 2. With what lowport says of the client, and nothing that the client says of itself.
    if (request.headers['x-forwarded-for'] !== from || request.headers['x-real-ip'] !== from || request.headers.forwarded) {
      complain(`Node was told of another client: ${JSON.stringify(request.headers)}`);
    }
  }

  // 3. lowport knows of each, by the same target. What Node refused to read is not among them.
  const forwarded = log.filter((entry) => entry.upstream);
  at = 0;
  for (const request of seen) {
    const plain = /^[ -~]*$/.test(request.target);
    const found = forwarded.findIndex((it, index) => index >= at && it.method === request.method && (!plain || origin(it.target) === request.target));
    if (found < 0) {
      complain(`Node saw what lowport did not send: ${request.method} ${request.target}`);
    } else {
      at = found + 1;
    }
  }

  // 4. Each is answered once, in order.
  if (said.error) {
    complain(`${said.error}: ${JSON.stringify(answer.toString('latin1'))}`);
  }
  for (const [index, response] of said.list.entries()) {
    const entry = log[index];
    if (!entry) {
      complain(`there is an answer to no request: ${response.status}`);
    } else if (entry.status !== response.status && entry.status !== 499) {
      complain(`request ${index} was answered with ${response.status}, and logged with ${entry.status}`);
    }
  }
  const told = said.list.filter((response) => response.fields.has('x-seen')).map((response) => Number(response.fields.get('x-seen')));
  const numbers = seen.map((request) => request.number);
  if (!isSubsequence(told, numbers)) {
    complain(`the answers are not those to the requests: ${told} to ${numbers}`);
  }
  if (closed && !said.tunnel) {
    if (said.list.length < log.length) {
      complain(`${log.length} requests, ${said.list.length} answers`);
    }
    if (said.list.some((response) => !response.complete)) {
      complain('an answer is not complete');
    }
  }
  // 5. What is over is closed.
  if (!closed && !wanted.doubtful && (wanted.end === 'close' || wanted.end === 'bad')) {
    complain(`lowport did not close after the end: ${wanted.end}`);
  }
  return wrong;
}

/** Where Node, asked directly, read something else in bytes that lowport forwarded. */
export function compare({ bytes, direct, seen }) {
  const wanted = requests(bytes).list;
  const wrong = [];
  for (const [index, request] of direct.entries()) {
    const read = wanted[index];
    // Without a listener for upgrades, Node may pass over a request for one that comes behind another.
    if (!read || read.asks || !seen.some((it) => it.target === origin(read.target))) {
      break;
    }
    const same = read.method === request.method && origin(read.target) === origin(request.target);
    const body = Buffer.concat(request.chunks);
    if (!same || (request.complete && read.complete && !body.equals(read.body))) {
      wrong.push(`Node, asked directly, took request ${index} for ${request.method} ${request.target}`);
      break;
    }
  }
  return wrong;
}

function isSubsequence(part, whole) {
  let at = 0;
  for (const item of part) {
    at = whole.indexOf(item, at) + 1;
    if (at === 0) {
      return false;
    }
  }
  return true;
}
