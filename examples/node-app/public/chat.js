// The chat: a websocket that finds its way back.

import { $, appendLine, element, showState } from './dom.js';

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8000;

export function startChat() {
  const name = `guest ${Math.random().toString(36).slice(2, 5)}`;
  const form = $('chat-form');
  const button = form.querySelector('button');
  let socket;
  let retry = FIRST_RETRY_MS;

  function connect() {
    const url = new URL('chat', document.baseURI);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    socket = new WebSocket(url);
    socket.onopen = () => {
      retry = FIRST_RETRY_MS;
      button.disabled = false;
      showState('chat-state', 'connected');
    };
    socket.onmessage = ({ data }) => show(data);
    socket.onclose = () => {
      button.disabled = true;
      const seconds = Math.round(retry / 100) / 10;
      showState('chat-state', 'lost', `lost, again in ${seconds} s`);
      setTimeout(() => {
        showState('chat-state', 'reconnecting');
        connect();
      }, retry);
      retry = Math.min(2 * retry, LAST_RETRY_MS);
    };
  }

  /** A line of this page is JSON; anything else that is sent here is shown as it is. */
  function show(data) {
    let line = { from: 'someone', text: String(data) };
    try {
      const parsed = JSON.parse(data);
      if (typeof parsed?.text === 'string') line = parsed;
    } catch {
      // Not ours, shown raw.
    }
    const item = element('li', undefined, line.from === name ? 'mine' : '');
    item.append(element('b', line.from === name ? `${name} (you)` : String(line.from)), line.text);
    appendLine($('lines'), item);
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const text = $('chat-text').value.trim();
    if (!text || socket.readyState !== WebSocket.OPEN) return;
    socket.send(JSON.stringify({ from: name, text }));
    $('chat-text').value = '';
  });

  connect();
}
