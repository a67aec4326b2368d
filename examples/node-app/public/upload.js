// The upload: progress on the way, then what the app counted.

import { $, formatBytes, showFacts, showState } from './dom.js';

// Above this size the browser would need the whole file in memory for its own checksum.
const CHECK_LIMIT = 64 * 1024 * 1024;

export function startUpload() {
  const drop = $('drop');
  let file = null;
  let request = null;

  function choose(chosen) {
    if (!chosen) return;
    file = chosen;
    $('file-name').textContent = `${file.name}, ${formatBytes(file.size)}`;
    showState('upload-state', 'idle', 'ready');
    $('upload-hint').textContent = '';
    $('progress').value = 0;
  }

  $('file').addEventListener('change', () => choose($('file').files[0]));
  for (const type of ['dragover', 'dragleave', 'drop']) {
    drop.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', type === 'dragover');
      if (type === 'drop') choose(event.dataTransfer.files[0]);
    });
  }
  $('cancel').addEventListener('click', () => request?.abort());

  $('upload-form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (request) return;
    if (!file) {
      $('upload-hint').textContent = 'Choose a file first.';
      return;
    }
    send(file);
  });

  function send(sent) {
    const started = performance.now();
    // fetch() reports no upload progress, so this is an XMLHttpRequest.
    request = new XMLHttpRequest();
    request.responseType = 'json';
    request.upload.onprogress = ({ loaded, total }) => {
      $('progress').value = total ? loaded / total : 1;
      const rate = loaded / Math.max(1, performance.now() - started) * 1000;
      $('upload-hint').textContent = `${formatBytes(loaded)} of ${formatBytes(total)}, ${formatBytes(Math.round(rate))}/s`;
    };
    request.onload = async () => {
      const { status, response } = request;
      finish(status === 200 ? 'connected' : 'lost', status === 200 ? 'done' : `status ${status}`);
      if (status !== 200) {
        $('upload-hint').textContent = response?.error ?? '';
        return;
      }
      $('progress').value = 1;
      $('upload-hint').textContent = '';
      showFacts('upload-facts', {
        'Bytes received': response.bytes.toLocaleString('en'),
        Took: `${response.ms} ms`,
        [`sha256, ${await verdict(sent, response.sha256)}`]: response.sha256,
      });
    };
    request.onerror = () => finish('lost', 'connection lost');
    request.onabort = () => finish('idle', 'cancelled');
    showState('upload-state', 'connecting', 'sending');
    showFacts('upload-facts', {});
    $('cancel').disabled = false;
    request.open('POST', 'upload');
    request.send(sent);
  }

  function finish(state, words) {
    showState('upload-state', state, words);
    $('cancel').disabled = true;
    request = null;
  }
}

/** Compares with the browser's own checksum, where the page is secure enough to have one. */
async function verdict(file, sha256) {
  if (!globalThis.crypto?.subtle || file.size > CHECK_LIMIT) return 'as the app counted it';
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()));
  const own = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return own === sha256 ? 'the same as here' : 'NOT the same as here';
}
