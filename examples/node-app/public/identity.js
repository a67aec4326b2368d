// Who the app runs as, and what it knows about the way to it.

import { $, showFacts, showState } from './dom.js';

export async function showIdentity() {
  try {
    const response = await fetch('whoami', { cache: 'no-store' });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const { app, visitor, heard } = await response.json();
    showVerdict(app);
    showWay(app, visitor, heard);
  } catch (error) {
    showState('way-state', 'lost', 'no answer');
    $('verdict').dataset.verdict = 'unknown';
    $('verdict-title').textContent = 'The app does not answer';
    $('verdict-text').textContent = `Its identity is unknown (${error.message}). The page asks again when the clock is back.`;
    showFacts('app-facts', {});
  }
}

function showVerdict(app) {
  const known = app.uid !== null;
  const capable = app.capabilities !== null && app.capabilities !== '0';
  const safe = known && !app.root && !capable;
  $('verdict').dataset.verdict = safe ? 'good' : known ? 'bad' : 'unknown';
  if (!known) {
    $('verdict-title').textContent = 'Unknown user';
    $('verdict-text').textContent = 'This system has no user ids.';
  } else if (app.root) {
    $('verdict-title').textContent = 'Running as root';
    $('verdict-text').textContent = 'Whoever takes over this app has the whole machine. Start it as another user.';
  } else if (capable) {
    $('verdict-title').textContent = `Not root, uid ${app.uid}, but with capabilities`;
    $('verdict-text').textContent = 'The app holds pieces of root that it has no use for.';
  } else {
    $('verdict-title').textContent = `Not root, uid ${app.uid}`;
    $('verdict-text').textContent = 'The low ports belong to the proxy, so this app needs no privilege at all.';
  }
  showFacts('app-facts', {
    User: app.user ?? 'no name',
    Uid: app.uid ?? 'unknown',
    Gid: app.gid ?? 'unknown',
    Capabilities: app.capabilities === null ? 'unknown' : capable ? app.capabilities : 'none',
    'New privileges': app.noNewPrivs === null ? 'unknown' : app.noNewPrivs ? 'ruled out' : 'possible',
    Process: app.pid,
    Node: app.node,
  });
}

function showWay(app, visitor, heard) {
  const spoken = protocolName(spokenProtocol());
  const { proxied } = visitor;
  showState('way-state', proxied ? 'connected' : 'idle', proxied ? 'through a proxy' : 'direct');
  $('way-ip').textContent = visitor.ip ?? 'unknown';
  $('hop-browser').firstElementChild.textContent = `${spoken}${visitor.protocol === 'https' ? ' + TLS' : ''}`;
  $('way-proxy').className = proxied ? '' : 'absent';
  $('way-proxy').firstElementChild.textContent = proxied ? 'Proxy' : 'No proxy';
  $('way-host').textContent = proxied ? visitor.host : 'lowport would be here';
  $('hop-app').firstElementChild.textContent = proxied ? `HTTP/${heard.httpVersion}` : '\u00a0';
  $('way-app').textContent = `${app.user ?? app.uid}, pid ${app.pid}`;
  showFacts('visitor-facts', {
    Protocol: visitor.protocol,
    Host: visitor.host ?? 'none',
    'Client address': visitor.ip ?? 'unknown',
    'Browser speaks': spoken,
    'App hears': `HTTP/${heard.httpVersion}`,
    'App is asked by': heard.from,
  });
  const lines = Object.entries(heard.headers).map(([name, value]) => `${name}: ${value}`);
  $('heard').textContent = lines.join('\n');
}

/** A page that came out of the browser's cache has no protocol; what it asked for last has one. */
function spokenProtocol() {
  const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource').reverse()];
  return entries.find((entry) => entry.nextHopProtocol)?.nextHopProtocol;
}

/** The names that browsers use are ALPN's. */
function protocolName(alpn) {
  const names = { 'http/1.0': 'HTTP/1.0', 'http/1.1': 'HTTP/1.1', h2: 'HTTP/2', h3: 'HTTP/3' };
  return names[alpn] ?? (alpn || 'unknown');
}
