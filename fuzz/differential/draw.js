// Random choices that depend on a seed and nothing else.

/** Draws for one case: the same for the same seed and number. */
export class Draw {
  #state;

  constructor(seed, number) {
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0;
  }

  /** A number below `end` (splitmix32). */
  below(end) {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) % end;
  }

  /** True once in `times`. */
  once(times) {
    return this.below(times) === 0;
  }

  /** One of them. */
  of(choices) {
    return choices[this.below(choices.length)];
  }

  /** The usual, and once in `times` one of the odd ones. */
  odd(times, usual, odds) {
    return this.once(times) ? this.of(odds) : usual;
  }
}
