// The buttons that make the app misbehave.

import { $, appendLine, element, formatBytes, showState } from './dom.js';

const PATIENCE_MS = 5000;

export function startWeather() {
  let running = 0;
  $('weather').addEventListener('click', async ({ target }) => {
    const { path } = target.dataset;
    if (!path) return;
    target.disabled = true;
    running += 1;
    showState('weather-state', 'connecting', 'waiting');
    const { ok, words } = await attempt(path);
    running -= 1;
    target.disabled = false;
    if (running === 0) showState('weather-state', 'idle', 'calm');
    const line = element('li', undefined, ok ? 'good' : 'bad');
    line.append(element('span', `/${path.split('?')[0]}`), element('span', words));
    appendLine($('results'), line);
  });
}

/** Asks, reads the answer to its end, and says what came of it. */
async function attempt(path) {
  const started = performance.now();
  const took = () => `${Math.round(performance.now() - started)} ms`;
  let status = 'no answer';
  let bytes = 0;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const response = await fetch(path, { cache: 'no-store', signal });
    status = response.status;
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
    }
    return { ok: response.ok, words: `${status}, ${formatBytes(bytes)}, ${took()}` };
  } catch (error) {
    const why = error.name === 'TimeoutError' ? 'gave up' : bytes ? `broken off after ${formatBytes(bytes)}` : 'broken off';
    return { ok: false, words: `${status}, ${why}, ${took()}` };
  }
}
