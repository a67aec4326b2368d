// The clock, and the beat in which its events arrive.

import { $, element, showState } from './dom.js';

const BEATS = 30;
const RETRY_MS = 2000;

/** `onTurn` is called when the stream breaks, and when it is back. */
export function startClock({ onTurn }) {
  const beats = Array.from({ length: BEATS }, () => element('i'));
  $('beats').append(...beats);
  let before = null;
  let wasLost = false;

  function connect() {
    const source = new EventSource('events');
    source.onopen = () => {
      showState('clock-state', 'connected');
      $('clock').classList.remove('stale');
      before = null;
      if (wasLost) onTurn();
      wasLost = false;
    };
    source.onmessage = ({ data }) => {
      const { id, time } = JSON.parse(data);
      $('clock').textContent = new Date(time).toLocaleTimeString('en-GB');
      const now = performance.now();
      if (before !== null) beat(now - before, id);
      before = now;
    };
    source.onerror = () => {
      if (!wasLost) onTurn();
      wasLost = true;
      $('clock').classList.add('stale');
      if (source.readyState === EventSource.CONNECTING) {
        showState('clock-state', 'reconnecting');
      } else {
        // An error answer, such as 502 while the app restarts, makes a browser give up for good.
        showState('clock-state', 'lost', 'lost, trying again');
        setTimeout(() => {
          showState('clock-state', 'reconnecting');
          connect();
        }, RETRY_MS);
      }
    };
  }

  function beat(gap, id) {
    const bar = beats.shift();
    beats.push(bar);
    $('beats').append(bar);
    // An even beat is as high as half of the box; a bar twice as high took two seconds.
    bar.style.height = `${Math.min(100, gap / 20)}%`;
    bar.className = Math.abs(gap - 1000) < 250 ? 'even' : 'uneven';
    $('clock-hint').textContent = `Event ${id} arrived ${Math.round(gap)} ms after the one before.`;
  }

  connect();
}
