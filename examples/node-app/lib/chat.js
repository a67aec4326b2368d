// What the two websockets do with a message.

// A reader that falls this far behind is let go: its backlog would be our memory.
const BACKLOG_LIMIT = 4 * 1024 * 1024;

/** `/chat`: every message goes to everybody, to its sender too, just as it came. */
export class Chat {
  #members = new Set();

  join(ws) {
    this.#members.add(ws);
    ws.on('close', () => this.#members.delete(ws));
    ws.on('message', (data, binary) => {
      for (const member of this.#members) {
        if (member.backlog > BACKLOG_LIMIT) member.terminate();
        else member.send(data, binary);
      }
    });
  }
}

/** `/ws/echo`: every message goes back to its sender. */
export function echoMessages(ws) {
  ws.on('message', (data, binary) => ws.send(data, binary));
}
