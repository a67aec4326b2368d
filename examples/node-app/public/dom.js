// The little that every card needs.

export const $ = (id) => document.getElementById(id);

/** Shows a state as a word and a colour: connecting, connected, reconnecting, lost, idle. */
export function showState(id, state, words = state) {
  $(id).dataset.state = state;
  // An unchanged text is left alone, or a screen reader would say it again.
  if ($(id).textContent !== words) $(id).textContent = words;
}

export function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

/** Fills a `<dl>` with pairs of a term and its value. Long values take a whole line. */
export function showFacts(id, facts) {
  const pairs = Object.entries(facts).map(([term, value]) => {
    const pair = element('div', undefined, String(value).length > 40 ? 'long' : '');
    pair.append(element('dt', term), element('dd', String(value)));
    return pair;
  });
  $(id).replaceChildren(...pairs);
}

/** Appends a line to a list that scrolls, and forgets the oldest of more than 200. */
export function appendLine(list, line) {
  list.querySelector('.empty')?.remove();
  list.append(line);
  while (list.children.length > 200) list.firstElementChild.remove();
  list.scrollTop = list.scrollHeight;
}

/** `1536` becomes `1.5 KiB`. */
export function formatBytes(bytes) {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}
