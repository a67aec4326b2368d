// Sends the same bytes to Node directly and through lowport, for as long as told, and compares what each took for requests.
//
//   node fuzz/differential [--seconds N] [--seed N] [--lowport BINARY] [--case N]
//
// Every case depends on the seed and its number only. What disagrees is printed with its bytes; `--case` runs one again.

import { parseArgs } from 'node:util';

import { exchange } from './client.js';
import { generate } from './generate.js';
import { compare, isSettled, judge } from './judge.js';
import { Lowport } from './lowport.js';
import { NodeServer } from './node.js';
import { requests, responses } from './read.js';

const BATCH = 256;
const AT_ONCE = 16;
/** Findings after which there is enough to do. */
const ENOUGH = 20;

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    lowport: { type: 'string', default: 'target/debug/lowport' },
    case: { type: 'string' },
  },
});
const seed = Number(options.seed);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => process.exit(1));
}

/** Each case has an address of its own, so that whoever sees a request knows whose it is. */
function address(number) {
  const host = (number % 0xf00000) + 0x1000;
  return `127.${host >> 16}.${(host >> 8) & 255}.${host & 255}`;
}

const direct = new NodeServer((request) => request.socket.remoteAddress, false);
const plain = new NodeServer((request) => request.headers['x-forwarded-for'], false);
const upgrades = new NodeServer((request) => request.headers['x-forwarded-for'], true);
const directPort = await direct.listen();
const lowport = await Lowport.start(options.lowport, await plain.listen(), await upgrades.listen());

const totals = { cases: 0, refused: 0, forwarded: 0, 'answered with an error': 0, tunnels: 0, 'read otherwise by Node alone': 0 };
let findings = 0;

/** Sends one case both ways. */
async function send(number) {
  const { bytes, cuts } = generate(seed, number);
  const from = address(number);
  const wanted = requests(bytes);
  const methods = wanted.list.map((request) => request.method);
  const complete = wanted.list.filter((request) => request.complete).length;
  const closes = !wanted.doubtful && (wanted.end === 'close' || wanted.end === 'bad');
  const enough = (answer) => wanted.doubtful || responses(answer, methods).list.length >= complete;
  const [through] = await Promise.all([
    exchange({ port: lowport.port, from, bytes, cuts, closes, enough }),
    exchange({ port: directPort, from, bytes, cuts, closes: false, enough: () => true }),
  ]);
  return { number, bytes, from, wanted, ...through };
}

/** What the servers and the log have on a case by now. */
function gather(sent) {
  const seen = [...plain.requests(sent.from), ...upgrades.requests(sent.from)];
  seen.sort((a, b) => a.number - b.number);
  return { ...sent, seen, direct: direct.requests(sent.from), log: lowport.entries(sent.from) };
}

/** The log is in order: once it has the marker, it has whatever came before. */
async function logged(marker) {
  const from = address(0xf00000 - 1 - (marker % 0xf000));
  const bytes = Buffer.from('GET /marker HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  await exchange({ port: lowport.port, from, bytes, cuts: [], closes: true, enough: () => false });
  await until(() => lowport.entries(from).length > 0);
  forget(from);
}

/** Waits for a condition for as long as is reasonable, and tells whether it came. */
async function until(condition) {
  for (let turn = 0; turn < 100; turn++) {
    if (condition()) {
      return true;
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  return false;
}

function forget(from) {
  for (const server of [direct, plain, upgrades, lowport]) {
    server.forget(from);
  }
}

async function conclude(sent) {
  // Whoever closed first, the other may not have noticed yet.
  await until(() => isSettled(gather(sent)) && judge(gather(sent)).length === 0);
  const ended = gather(sent);
  const wrong = judge(ended);
  totals.cases += 1;
  totals.refused += ended.wanted.end === 'bad' ? 1 : 0;
  totals.forwarded += ended.seen.length;
  totals['answered with an error'] += ended.log.filter((entry) => !entry.upstream).length;
  totals.tunnels += ended.log.filter((entry) => entry.status === 101).length;
  const unlike = compare(ended);
  totals['read otherwise by Node alone'] += unlike.length;
  if (wrong.length + unlike.length > 0) {
    report(ended, [...wrong, ...unlike]);
  }
  forget(ended.from);
}

function report({ number, bytes, answer, closed, log, seen, wanted }, wrong) {
  findings += 1;
  const text = (buffer) => JSON.stringify(buffer.toString('latin1'));
  console.log(`\n--- case ${number} (--seed ${seed} --case ${number})`);
  wrong.forEach((line) => console.log(`  ${line}`));
  console.log(`sent:   ${text(bytes)}`);
  console.log(`read:   ${wanted.list.map((it) => `${it.method} ${it.target} ${it.complete}`).join(', ')}; then ${wanted.end}`);
  console.log(`logged: ${log.map((it) => `${it.method} ${it.target} ${it.status} (${it.reason})`).join(', ')}`);
  console.log(`Node:   ${seen.map((it) => `${it.method} ${it.target} ${it.complete} ${text(Buffer.concat(it.chunks))}`).join(', ')}`);
  console.log(`answer: ${text(answer)}; ${closed ? 'closed' : 'left open'}`);
}

async function batch(numbers) {
  const ended = [];
  const queue = [...numbers];
  const lane = async () => {
    while (queue.length > 0) {
      ended.push(await send(queue.shift()));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  await logged(numbers[0]);
  for (const sent of ended) {
    await conclude(sent);
  }
  // Somebody else's: a request that says it is from a client that there is none of.
  for (const from of [...plain.clients(), ...upgrades.clients()]) {
    findings += 1;
    console.log(`\n--- in cases ${numbers[0]} to ${numbers.at(-1)}: a request from nobody, ${from}`);
    forget(from);
  }
  for (const { code, reason, bytes } of [...plain.complaints.splice(0), ...upgrades.complaints.splice(0)]) {
    // lowport breaks off what its client breaks off; and Node does not know every method.
    if (code?.startsWith('HPE_') && !['HPE_INVALID_EOF_STATE', 'HPE_INVALID_METHOD'].includes(code)) {
      findings += 1;
      console.log(`\n--- in cases ${numbers[0]} to ${numbers.at(-1)}: Node cannot read what lowport sent: ${code} ${reason}`);
      console.log(JSON.stringify(bytes?.toString('latin1')));
    }
  }
  direct.complaints.length = 0;
  if (!lowport.isRunning) {
    throw new Error(`lowport ended:\n${lowport.noise.join('\n')}`);
  }
}

const end = Date.now() + Number(options.seconds) * 1000;
if (options.case !== undefined) {
  await batch([Number(options.case)]);
} else {
  for (let first = 0; Date.now() < end && findings < ENOUGH; first += BATCH) {
    await batch(Array.from({ length: BATCH }, (_, index) => first + index));
  }
}
const panics = lowport.noise.filter((line) => line.includes('panicked'));
panics.forEach((line) => console.log(line));
await lowport.stop();
[direct, plain, upgrades].forEach((server) => server.close());
console.log(`seed ${seed}: ${Object.entries(totals).map(([name, count]) => `${count} ${name}`).join(', ')}; ${findings} findings`);
process.exitCode = findings + panics.length > 0 ? 1 : 0;
