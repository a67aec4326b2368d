// Runs the suite's cases against a peer, directly and through lowport, and compares the verdicts case by case.
//
//   node tests/autobahn --lowport BINARY --out FOLDER [--jobs N] [--peer server|client] [CASES...]
//
// FOLDER has what `run` has installed, and gets the suite's reports and what lowport says.

import { mkdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { overHttp2 } from './http2.js';
import { freePorts, startLowport } from './lowport.js';
import { echo, load, talk } from './peer.js';
import { tryClients, tryServers } from './suite.js';

/** All cases, those that take longest first. */
const GROUPS = [
  '9.*', '12.1.*', '12.2.*', '12.3.*', '12.4.*', '12.5.*', '13.1.*', '13.2.*', '13.3.*', '13.4.*', '13.5.*', '13.6.*', '13.7.*',
  '1.*', '2.*', '3.*', '4.*', '5.*', '6.*', '7.*', '10.*',
];
/** How good a verdict is; one that is not here is a failure. */
const RANKS = { OK: 2, 'NON-STRICT': 1, INFORMATIONAL: 1 };

const { values: options, positionals } = parseArgs({
  options: {
    lowport: { type: 'string' },
    out: { type: 'string' },
    // More than one a core: most of the time they wait for each other.
    jobs: { type: 'string', default: String(2 * os.availableParallelism()) },
    peer: { type: 'string', multiple: true, default: ['server', 'client'] },
  },
  allowPositionals: true,
});
// Each process that is started has to end with this one.
process.setMaxListeners(0);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => process.exit(2));
}
const tools = path.join(options.out, 'tools');
const wstest = path.join(tools, 'python/bin/wstest');
const reports = path.join(options.out, 'reports');
rmSync(reports, { recursive: true, force: true });
mkdirSync(reports, { recursive: true });

const groups = (positionals.length > 0 ? positionals : GROUPS).map((cases) => [cases]);
const ws = load(tools);
const [again, ...fuzzPorts] = await freePorts(1 + groups.length);
const upstreams = { echo: await echo(ws), again, ...Object.fromEntries(fuzzPorts.map((port, number) => [`group${number}`, port])) };
const lowport = await startLowport(options.lowport, upstreams, path.join(reports, 'lowport.log'));
const bases = {
  http: `ws://127.0.0.1:${lowport.http}`,
  tls: `wss://127.0.0.1:${lowport.https}`,
  h2: `ws://127.0.0.1:${await overHttp2(lowport.https)}`,
};
const WAYS = ['direct', ...Object.keys(bases)];

function url(way, upstream) {
  return way === 'direct' ? `ws://127.0.0.1:${upstreams[upstream]}` : `${bases[way]}/${upstream}`;
}

/** Verdicts on `peer`, which is a server or a client, in all ways. */
async function verdicts(peer, cases, name) {
  const folder = path.join(reports, `${peer}-${name}`);
  if (peer === 'server') {
    return tryServers(wstest, cases, folder, Object.fromEntries(WAYS.map((way) => [way, url(way, 'echo')])));
  }
  const port = upstreams[name];
  return tryClients(wstest, cases, folder, port, WAYS, (way, rest) => talk(ws, url(way, name) + rest, `127.0.0.1:${port}`));
}

const rank = (verdict) => RANKS[verdict] ?? 0;
const told = (verdict) => (verdict ? `${verdict.behavior}, close ${verdict.behaviorClose}` : 'did not end');
const passes = (verdict) => rank(verdict?.behavior) > 0 && rank(verdict?.behaviorClose) > 0;

/** Whether `through` is worse than `direct`, in what the case is about or in how the connection ends. */
function isWorse(through, direct) {
  return rank(through?.behavior) < rank(direct?.behavior) || rank(through?.behaviorClose) < rank(direct?.behaviorClose);
}

/** All cases that have a verdict in any way, in order. */
function numbers(found) {
  const all = new Set(WAYS.flatMap((way) => Object.keys(found[way] ?? {})));
  return [...all].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

/** Runs all groups, a few at a time. Resolves to all verdicts by peer and way, and the groups that came to nothing. */
async function runAll() {
  const found = Object.fromEntries(options.peer.map((peer) => [peer, {}]));
  const dead = [];
  const todo = groups.flatMap((cases, number) => options.peer.map((peer) => ({ peer, cases, name: `group${number}` })));
  const worker = async () => {
    for (let next = todo.shift(); next; next = todo.shift()) {
      const { peer, cases, name } = next;
      const started = Date.now();
      const came = Object.entries(await verdicts(peer, cases, name));
      for (const [way, list] of came) {
        Object.assign((found[peer][way] ??= {}), list);
      }
      if (came.length === 0) {
        dead.push(`${cases} with ws as a ${peer}`);
      }
      console.log(`${peer} ${cases}: ${Math.round((Date.now() - started) / 1000)} s`);
    }
  };
  await Promise.all(Array.from({ length: Number(options.jobs) }, worker));
  return { found, dead };
}

function table(found) {
  const row = (cells) => console.log(cells.map((cell) => String(cell).padStart(8)).join(''));
  const all = numbers(found);
  const chapters = [...new Set(all.map((number) => number.split('.')[0]))];
  row(['', 'cases', ...WAYS]);
  const rows = chapters.map((chapter) => [`${chapter}.*`, all.filter((number) => number.startsWith(`${chapter}.`))]);
  for (const [title, list] of [...rows, ['all', all]]) {
    row([title, list.length, ...WAYS.map((way) => list.filter((number) => passes(found[way]?.[number])).length)]);
  }
}

/** Tells what is lost on the way, and resolves to how many cases that are. */
async function judge(peer, found) {
  console.log(`\nws as a ${peer}: cases, and how many pass`);
  table(found);
  for (const number of numbers(found).filter((number) => !passes(found.direct?.[number]))) {
    console.log(`fails directly, so says nothing: ${number}: ${told(found.direct?.[number])}`);
  }
  const worse = numbers(found).flatMap((number) =>
    WAYS.filter((way) => isWorse(found[way]?.[number], found.direct?.[number])).map((way) => ({ way, number })),
  );
  if (worse.length === 0) {
    return 0;
  }
  // Many cases are timed: what is lost has to be lost again with nothing else running.
  const second = await verdicts(peer, [...new Set(worse.map(({ number }) => number))], 'again');
  let lost = 0;
  for (const { way, number } of worse) {
    const direct = found.direct[number];
    const isLost = isWorse(second[way]?.[number], direct);
    const verdict = isLost ? 'LOST' : 'lost at first, but not with nothing else running';
    console.log(`${verdict}: ${number} over ${way}: ${told(found[way]?.[number])}; directly: ${told(direct)}`);
    lost += isLost;
  }
  return lost;
}

const { found, dead } = await runAll();
let lost = 0;
for (const peer of options.peer) {
  lost += await judge(peer, found[peer]);
}
for (const group of dead) {
  console.log(`did not end: ${group}`);
}
console.log(`\n${lost} lost on the way; reports and lowport's log are in ${reports}`);
process.exit(lost > 0 || dead.length > 0 ? 1 : 0);
