// The job list, kept up to date while the page is visible, and the form that starts a job.

import * as client from "/web/client.js";
import { count, element, pathLines, say } from "/web/dom.js";

const JOBS_SHOWN = 10;
const FAILURES_SHOWN = 50;
const ACTIVE_POLL_MILLISECONDS = 1000;
const IDLE_POLL_MILLISECONDS = 5000;
const FINAL = new Set(["completed", "failed", "cancelled"]);
const KINDS = {
  full: "Folder",
  incremental: "Single images",
  import: "Old index",
  change_model: "Another model",
};

const list = document.getElementById("jobs");
const line = document.getElementById("jobs-status");
const news = document.getElementById("job-news");
const statsList = document.getElementById("stats");
const form = document.getElementById("index-form");
const folder = document.getElementById("image-dir");
const formLine = document.getElementById("index-status");

const cards = new Map(); // By job id.
let timer = 0;
let life = 0; // Rises when the key changes; an answer that belongs to an older life is dropped.

let onUnknownKey = () => {};

export function startJobs(tellUnknownKey) {
  onUnknownKey = tellUnknownKey;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await act(formLine, async () => {
      const answer = await client.trigger(folder.value);
      say(formLine, answer.message);
    });
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) poll();
  });
}

// Begin anew, with the key that is now in use or without one.
export function resetJobs() {
  life += 1;
  cards.clear();
  list.replaceChildren();
  statsList.hidden = true;
  form.hidden = true;
  say(formLine, "");
  say(line, "Jobs appear here once a key is in use.");
  poll();
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden || !client.key.get()) return;
  const mine = life;
  let wait = IDLE_POLL_MILLISECONDS;
  try {
    if (await refresh(mine)) wait = ACTIVE_POLL_MILLISECONDS;
  } catch (error) {
    if (mine !== life) return;
    if (!(error instanceof client.Problem)) throw error;
    if (error.status === 401) {
      onUnknownKey(error.message);
      return;
    }
    if (error.status === 403) {
      say(line, "This key may search, but not see jobs.");
      return; // Asking again with the same key cannot help.
    }
    say(line, `${error.message} Trying again…`, { isError: true });
  }
  if (mine === life) {
    clearTimeout(timer); // Another poll may have set it while this one waited for its answers.
    timer = setTimeout(poll, wait);
  }
}

// Bring the list up to date; return whether a job is active.
async function refresh(mine) {
  if (statsList.hidden) await showStats(mine); // Any key may see these.
  const { jobs } = await client.jobs(JOBS_SHOWN);
  if (mine !== life) return false;
  form.hidden = false;
  say(line, jobs.length === 0 ? "No jobs yet. Index a folder to begin." : "");

  const unsettled = jobs.filter((job) => cards.get(job.job_id)?.status !== job.status ||
    !FINAL.has(job.status));
  const statuses = await Promise.all(unsettled.map((job) => client.jobStatus(job.job_id)));
  if (mine !== life) return false;
  for (const status of statuses) {
    const card = cards.get(status.job_id) ?? new JobCard(status.job_id);
    cards.set(status.job_id, card);
    card.update(status);
  }
  // Move only what is out of place, so that focus and open lists of failures stay as they are.
  const shown = jobs.map((job) => cards.get(job.job_id).root);
  if (shown.length !== list.children.length || shown.some((root, at) => list.children[at] !== root))
    list.replaceChildren(...shown);
  if (statuses.length > 0) await showStats(mine);
  return jobs.some((job) => !FINAL.has(job.status));
}

async function showStats(mine) {
  const stats = await client.stats();
  if (mine !== life) return;
  const rows = [
    ["Images", stats.num_images.toLocaleString("en")],
    ["Failed", stats.num_failed.toLocaleString("en")],
    ["Model", stats.model_name],
    ["Updated", stats.last_updated ? new Date(stats.last_updated).toLocaleString() : "never"],
  ];
  statsList.replaceChildren(
    ...rows.flatMap(([name, value]) => [
      element("dt", { text: name }),
      element("dd", { text: value }),
    ]),
  );
  statsList.hidden = false;
}

// Do what the reader asked for, tell when it cannot be done, and look at the jobs at once.
async function act(statusLine, action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof client.Problem)) throw error;
    say(statusLine, error.message, { isError: true });
    return;
  }
  poll();
}

class JobCard {
  status = null;
  #failed = 0;
  #state = element("span", { class: "state" });
  #kind = element("span", {});
  #bar = element("progress", { max: "100" });
  #figures = element("p", { class: "detail" });
  #error = element("p", { class: "error", hidden: "" });
  #failures = element("ul", { class: "failures" });
  #details = element(
    "details",
    { hidden: "", ontoggle: () => this.#showFailures() },
    element("summary", { text: "Failed images" }),
    this.#failures,
  );
  #cancel = this.#button("Cancel", client.cancelJob);
  #retry = this.#button("Retry", client.retryJob);

  constructor(jobId) {
    this.jobId = jobId;
    this.#bar.setAttribute("aria-label", `Progress of ${jobId}`);
    this.root = element(
      "li",
      { class: "job" },
      element("p", { class: "head" }, this.#kind, this.#state),
      this.#bar,
      this.#figures,
      this.#error,
      this.#details,
      element("p", { class: "actions" }, this.#cancel, this.#retry),
      element("p", { class: "id", text: jobId }),
    );
  }

  update(job) {
    const { total_images, processed_images, failed_images, percent_complete } = job.progress;
    const isFinal = FINAL.has(job.status);
    // Said once, when it happens in front of the reader.
    if (this.status && this.status !== job.status) {
      news.textContent = `Job ${job.job_id}: ${job.status}`;
    }
    this.status = job.status;
    this.root.dataset.status = job.status;
    this.#kind.textContent = KINDS[job.kind];
    this.#state.textContent = job.status;
    // Without a value the bar shows that work goes on whose size is not known yet.
    if (job.status === "running" && total_images === 0) this.#bar.removeAttribute("value");
    else this.#bar.value = percent_complete;
    this.#figures.textContent =
      `${processed_images.toLocaleString("en")} of ${count(total_images, "image", "images")}` +
      (failed_images > 0 ? `, ${failed_images.toLocaleString("en")} failed` : "") +
      this.#remaining(job);
    this.#error.textContent = job.error ?? "";
    this.#error.hidden = !job.error;
    this.#details.hidden = failed_images === 0;
    this.#cancel.hidden = isFinal;
    this.#retry.hidden = !(job.status === "failed" || job.status === "cancelled" ||
      (isFinal && failed_images > 0));
    if (failed_images !== this.#failed) {
      this.#failed = failed_images;
      this.#showFailures();
    }
  }

  #remaining(job) {
    if (!job.estimated_completion || FINAL.has(job.status)) return "";
    const seconds = Math.round((new Date(job.estimated_completion) - Date.now()) / 1000);
    if (seconds < 1) return "";
    return seconds < 90 ? `, about ${seconds} s left` : `, about ${Math.ceil(seconds / 60)} min left`;
  }

  #button(text, action) {
    return element("button", {
      type: "button",
      class: "quiet",
      text,
      hidden: "",
      onclick: () => act(line, () => action(this.jobId)),
    });
  }

  async #showFailures() {
    if (!this.#details.open) return;
    await act(line, async () => {
      const answer = await client.failures(this.jobId, FAILURES_SHOWN);
      const rest = answer.total - answer.failures.length;
      this.#failures.replaceChildren(
        ...answer.failures.map((failure) =>
          element(
            "li",
            {},
            element("span", { class: "reason", text: `${failure.reason}: ` }),
            ...pathLines(failure.image_path),
            element("span", { class: "detail", text: failure.detail }),
          ),
        ),
      );
      if (rest > 0) {
        this.#failures.append(element("li", { text: `and ${rest.toLocaleString("en")} more` }));
      }
    });
  }
}
