// Requests that the client gave up: the proof that an abort travels through a proxy.

const URLS_KEPT = 1000;

export class AbortLog {
  #count = 0;
  #urls = new Map();
  #skipped = new WeakSet();

  /** Counts this request if its connection closes before the response has been sent. */
  watch(req, res) {
    res.once('close', () => {
      if (res.writableFinished || this.#skipped.has(res)) return;
      this.#count += 1;
      if (this.#urls.size < URLS_KEPT || this.#urls.has(req.url)) {
        this.#urls.set(req.url, (this.#urls.get(req.url) ?? 0) + 1);
      }
    });
  }

  /** This response is cut by the app itself: its end says nothing about the client. */
  skip(res, result) {
    this.#skipped.add(res);
    return result;
  }

  /** `{"count": 2, "urls": {"/slow?ms=9000": 2}}` */
  toJSON() {
    return { count: this.#count, urls: Object.fromEntries(this.#urls) };
  }
}
