// Connections' worth of requests, most of them nearly right. All text is latin1: a character is a byte.

import { Draw } from './draw.js';

const EOLS = ['\n', '\r', '\r\r\n', '\n\r\n', '\0\r\n', ' \r\n', '\r\n ', '\r\n\t'];
const SPACES = ['  ', '\t', '\x0b', '\0', '\xa0', ''];
const VERSIONS = ['HTTP/1.0', 'HTTP/1.0', 'HTTP/0.9', 'HTTP/1.2', 'HTTP/2.0', 'http/1.1', 'HTTP/1.1 ', 'HTTP/1.10', 'HTTP/11', ''];
const METHODS = ['GET', 'POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'PATCH', 'PROPFIND'];
const ODD_METHODS = ['CONNECT', 'TRACE', 'get', 'FOO', 'GE T', 'PRI', 'G\0T', 'M-SEARCH', ''];
const HOSTS = ['', 'b', 'a b', 'a:80', 'a,b', '[::1]', 'u@a', 'a\0', 'a/b', 'A.'];
const LENGTHS = [
  (n) => `+${n}`, (n) => `-${n}`, (n) => `0x${n.toString(16)}`, (n) => `${n} `, (n) => `\t${n}`, (n) => `0${n}`, (n) => `${n}, ${n}`,
  (n) => `${n};`, (n) => `${n}.0`, (n) => `${n} 0`, () => '', () => '18446744073709551617', () => '9223372036854775808',
  (n) => `${n}\x0b`, (n) => `"${n}"`, (n) => `${n + 1}`, (n) => `${Math.max(0, n - 1)}`, () => '0', (n) => `1e${n}`,
];
const CODINGS = [
  'Chunked', 'CHUNKED', 'chunked ', '\tchunked', 'chunked, chunked', 'identity', 'identity, chunked', 'gzip, chunked', 'chunked, identity',
  'xchunked', '"chunked"', 'chunked;a=b', ',chunked', 'chunked,', '\x0bchunked', 'chunked\0', 'chunke', '', 'ch\xfcnked', '\r\n chunked',
];
const CODING_NAMES = [
  'Transfer-Encoding ', 'Transfer-Encoding\t', ' Transfer-Encoding', 'Transfer_Encoding', 'Transfer-Encoding\0', 'X:\nTransfer-Encoding',
  'X: y\rTransfer-Encoding', 'transfer-encoding', 'TRANSFER-ENCODING', 'Transfer-Encodin\xc7', 'Transfer-Encoding\x0b',
];
const FIELDS = [
  'Connection: close', 'Connection: keep-alive', 'Connection: content-length', 'Connection: transfer-encoding', 'Connection: host',
  'Connection: x-forwarded-for, close', 'Connection: te', 'Keep-Alive: timeout=1', 'Proxy-Connection: close', 'TE: trailers',
  'X-Forwarded-For: 127.255.255.1', 'x_forwarded_for: 127.255.255.1', 'Forwarded: for=127.255.255.1', 'X-Real-IP: 127.255.255.1',
  'Expect: 100-continue', 'Expect: 200-ok', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk', 'Trailer: X-T', 'Cookie: a=b', 'X: y', 'X: \xe9',
  'X:', 'Max-Forwards: 0', 'Range: bytes=0-1',
];
const BROKEN_FIELDS = [
  'X', ': y', 'X Y: z', 'X: y\0z', 'X: y\rz', 'X: y\r\n z', 'X: y\r\n\tContent-Length: 5', ' X: y', '\tX: y', 'X\0: y', 'X: y\nZ: w', 'X: \x7f', '\x01: y',
  'X : y', '\xe9: y', '=', 'GET / HTTP/1.1', 'X: y\r\n\r', 'Content-Length', 'Content-Length : 5', 'Transfer-Encoding', '(: y',
];
const CHUNK_SIZES = [
  (h) => `0x${h}`, (h) => `+${h}`, (h) => `-${h}`, (h) => ` ${h}`, (h) => `${h} `, (h) => `${h}\t`, (h) => `000000${h}`, (h) => h.toUpperCase(),
  (h) => `${h};x`, (h) => `${h};x=y`, (h) => `${h};x="y;z"`, (h) => `${h} ;x`, (h) => `${h};x\ny`, (h) => `${h};\0`, (h) => `${h};x\ry`, (h) => `${h}\0`,
  (h) => `10000000000000000${h}`, (h) => `00000000000000000000${h}`, () => '', (h) => `${h}g`, (h) => `${h}\x0b`, (h) => `${h};${'x'.repeat(300)}`,
  (h) => (parseInt(h, 16) + 1).toString(16), (h) => Math.max(0, parseInt(h, 16) - 1).toString(16), (h) => (parseInt(h, 16) + 2).toString(16),
];
const TRAILERS = [
  'X-T: 1\r\n', 'Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n', 'Host: b\r\n', 'X-Forwarded-For: 127.255.255.1\r\n', 'X: y\n', ' X: y\r\n', 'X\r\n',
  'X: y\r\n z\r\n', 'X: \0\r\n', ': y\r\n', 'X: y\rz\r\n', 'X : y\r\n',
];

/** The bytes of one connection, and where they are cut into writes. The last request asks to close. */
export function generate(seed, number) {
  const draw = new Draw(seed, number);
  const units = 1 + draw.below(3);
  let text = '';
  for (let unit = 0; unit < units; unit++) {
    text += request(draw, `c${number}`, unit);
  }
  if (draw.once(6)) {
    text = damage(draw, text);
  }
  text += `GET /c${number}end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`;
  const cuts = draw.once(2) ? [] : Array.from({ length: 1 + draw.below(4) }, () => draw.below(text.length));
  return { bytes: Buffer.from(text, 'latin1'), cuts: cuts.sort((a, b) => a - b) };
}

function request(draw, name, unit) {
  // How odd it is: half of them are as they should be, so that what follows is reached.
  const odds = draw.of([1e9, 1e9, 40, 12]);
  const upgrade = draw.once(15);
  const method = upgrade ? 'GET' : draw.odd(odds, draw.of(METHODS), ODD_METHODS);
  const line = [method, target(draw, odds, `${upgrade ? 'w' : ''}${name}u${unit}`), draw.odd(odds, 'HTTP/1.1', VERSIONS)];
  const eol = () => draw.odd(odds * 2, '\r\n', EOLS);
  let text = draw.odd(odds, '', ['\r\n', '\r\n\r\n', '\n', ' ', '\r', '\0']);
  text += line.join(draw.odd(odds, ' ', SPACES)) + eol();
  const [framing, body] = message(draw, odds, name, unit);
  const fields = [...host(draw, odds), ...framing];
  for (let count = draw.below(3); count > 0; count--) {
    fields.push(draw.odd(odds, draw.of(FIELDS), BROKEN_FIELDS));
  }
  if (upgrade) {
    fields.push('Connection: Upgrade', `Upgrade: ${draw.odd(4, 'websocket', ['WebSocket', 'foo, websocket', 'h2c', 'websocket\0'])}`);
    fields.push('Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13');
  }
  if (draw.once(3)) {
    fields.sort(() => draw.below(3) - 1);
  }
  return text + fields.map((field) => field + eol()).join('') + eol() + body;
}

function target(draw, odds, name) {
  const plain = draw.odd(8, `/${name}`, [`/${name}?a=b`, `/${name}/../x`, `/${name}%2Fx`, `//${name}`, `http://a/${name}`]);
  return draw.odd(odds, plain, [
    '*', `${name}`, `/${name}#x`, `/${name} x`, `/${name}\0`, `/${name}\xe9`, `/${name}\t`, `http://b/${name}`, `http://u@a/${name}`, 'a:80',
    `http:///${name}`, `ftp://a/${name}`, `://a/${name}`, `https://a/${name}`, `/${name}\x7f`, `/${name}?${'x'.repeat(9000)}`, `http://a?${name}`, '', `/${name}"<>`,
  ]);
}

function host(draw, odds) {
  if (draw.once(odds)) {
    return draw.of([[], ['Host: a', 'Host: a'], ['Host: a', 'host: b'], ['Host : a'], ...HOSTS.map((value) => [`Host: ${value}`])]);
  }
  return ['Host: a'];
}

/** Fields that frame a body, and the body: one that looks like a request wherever it can. */
function message(draw, odds, name, unit) {
  const hidden = `GET /${name}s${unit} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.255.255.1\r\n\r\n`;
  const data = draw.of(['', 'x', hidden, hidden, `x\r\n${hidden}`, `\n0\r\n\r\n${hidden}`, hidden.slice(0, -2)]);
  const sized = () => `Content-Length: ${draw.once(odds) ? draw.of(LENGTHS)(data.length) : data.length}`;
  const coded = () => `${draw.odd(odds * 2, 'Transfer-Encoding', CODING_NAMES)}: ${draw.odd(odds, 'chunked', CODINGS)}`;
  if (draw.once(odds)) {
    const both = draw.of([[sized(), coded()], [coded(), sized()], [sized(), sized()], [coded(), coded()], [`X: y\r\n ${coded()}`, sized()]]);
    return [both, draw.once(2) ? data : chunked(draw, odds, data, hidden)];
  }
  switch (draw.below(3)) {
    case 0:
      return [[], ''];
    case 1:
      return [[sized()], data];
    default:
      return [[coded()], chunked(draw, odds, data, hidden)];
  }
}

function chunked(draw, odds, data, hidden) {
  const eol = () => draw.odd(odds * 2, '\r\n', [...EOLS, '', 'x\r\n']);
  let text = '';
  while (data.length > 0) {
    const part = data.slice(0, 1 + draw.below(data.length));
    data = data.slice(part.length);
    const size = part.length.toString(16);
    text += (draw.once(odds) ? draw.of(CHUNK_SIZES)(size) : size) + eol() + part + eol();
  }
  const last = draw.odd(odds, '0', ['00', '0;x', '0 ', '', '0x0', '-0', '0;\n', `0;${hidden}`]);
  const trailers = draw.once(4) ? draw.odd(odds, 'X-T: 1\r\n', [...TRAILERS, hidden]) : '';
  return text + last + eol() + trailers + eol();
}

/** A few bytes changed, taken away, put in or doubled. */
function damage(draw, text) {
  for (let count = 1 + draw.below(3); count > 0; count--) {
    const at = draw.below(text.length);
    const end = at + 1 + draw.below(4);
    const middle = draw.of(['', '\0', '\r', '\n', '\r\n', ' ', ':', '\t', '0', ';', '\x80', text.slice(at, end) + text.slice(at, end)]);
    text = text.slice(0, at) + middle + text.slice(draw.once(2) ? at : end);
  }
  return text;
}
