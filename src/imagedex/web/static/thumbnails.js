// Load thumbnails when they come into view, a few at a time. An <img> cannot send the key, so they
// are fetched and shown as blobs, whose memory is given back when the results change.

import { thumbnail } from "/web/client.js";

const SIZE = 256;
const MOST_AT_ONCE = 6;

export class Thumbnails {
  #waiting = [];
  #loading = 0;
  #addresses = new Set();
  #stop = new AbortController();
  #observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        this.#observer.unobserve(entry.target);
        this.#waiting.push(entry.target);
      }
      this.#next();
    },
    { rootMargin: "300px" },
  );

  // `frame` gets the picture of `imageId` as an <img> once it is near the visible part.
  watch(frame, imageId, alt) {
    frame.dataset.imageId = imageId;
    frame.dataset.alt = alt;
    this.#observer.observe(frame);
  }

  clear() {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#observer.disconnect();
    this.#waiting = [];
    for (const address of this.#addresses) URL.revokeObjectURL(address);
    this.#addresses.clear();
  }

  #next() {
    while (this.#loading < MOST_AT_ONCE && this.#waiting.length > 0) {
      this.#loading += 1;
      this.#load(this.#waiting.shift(), this.#stop.signal).finally(() => {
        this.#loading -= 1;
        this.#next();
      });
    }
  }

  async #load(frame, signal) {
    try {
      const blob = await thumbnail(frame.dataset.imageId, SIZE, signal);
      if (signal.aborted) return;
      const address = URL.createObjectURL(blob);
      this.#addresses.add(address);
      const picture = new Image();
      picture.alt = frame.dataset.alt;
      picture.src = address;
      frame.replaceChildren(picture);
    } catch (error) {
      if (error.name === "AbortError") return;
      frame.textContent = "No preview";
      frame.title = error.message;
    }
  }
}
