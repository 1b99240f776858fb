// The search box and what was found.

import { Problem, key, query } from "/web/client.js";
import { count, element, pathLines, say } from "/web/dom.js";
import { Thumbnails } from "/web/thumbnails.js";
import { view } from "/web/viewer.js";

const form = document.getElementById("search-form");
const box = document.getElementById("query");
const topK = document.getElementById("top-k");
const line = document.getElementById("search-status");
const list = document.getElementById("results");
const thumbnails = new Thumbnails();
let current = new AbortController();
let askForKey = () => {};

export function startSearch(onUnknownKey) {
  askForKey = onUnknownKey;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search({ text: box.value });
  });
}

export function clearResults() {
  current.abort();
  thumbnails.clear();
  list.replaceChildren();
  list.classList.remove("stale");
  say(line, "");
}

async function search(asked) {
  if (!key.get()) {
    say(line, "Enter an API key first.", { isError: true });
    askForKey("");
    return;
  }
  current.abort(); // The answer to an older question must not replace that to a newer one.
  current = new AbortController();
  const { signal } = current;
  list.classList.add("stale");
  say(line, "Searching…");
  try {
    const answer = await query(asked, Number(topK.value), signal);
    if (!signal.aborted) show(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    clearResults();
    if (error.status === 401) askForKey(error.message);
    else say(line, error.message, { isError: true });
  }
}

function show(answer) {
  clearResults();
  const total = answer.index_stats.total_images;
  if (total === 0) {
    say(line, "Nothing is indexed yet. Index a folder, then search again.");
    return;
  }
  const milliseconds = Math.max(1, Math.round(answer.query_time_seconds * 1000));
  say(
    line,
    `${count(answer.results.length, "result", "results")} of ` +
      `${count(total, "image", "images")} in ${milliseconds.toLocaleString("en")} ms` +
      (answer.query_cut ? ". The text is too long for the model; its end did not count." : ""),
  );
  list.append(...answer.results.map(card));
}

function card(result) {
  const frame = element("button", {
    type: "button",
    class: "thumbnail",
    "aria-label": `Show large: ${result.image_path}`,
    onclick: () => view(result),
  });
  thumbnails.watch(frame, result.image_id, result.image_path);
  return element(
    "li",
    { class: "result", title: result.image_path },
    frame,
    element(
      "div",
      { class: "caption" },
      element(
        "span",
        { class: "figures" },
        element("span", { class: "rank", text: `#${result.rank}` }),
        element("span", { class: "score", text: `score ${result.score.toFixed(3)}` }),
      ),
      ...pathLines(result.image_path),
      element("button", {
        type: "button",
        class: "quiet like",
        text: "More like this",
        "aria-label": `More like ${result.image_path}`,
        onclick: () => search({ image_id: result.image_id }),
      }),
    ),
  );
}
