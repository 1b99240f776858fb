// Wires the page together: the key, the search, the jobs.

import { key } from "/web/client.js";
import { resetJobs, startJobs } from "/web/jobs.js";
import { clearResults, startSearch } from "/web/search.js";

const form = document.getElementById("key-form");
const field = document.getElementById("key");
const inUse = document.getElementById("key-in-use");
const hint = document.getElementById("key-hint");
const problem = document.getElementById("key-problem");
const box = document.getElementById("query");

function showKeyState() {
  const hasKey = Boolean(key.get());
  form.hidden = hasKey;
  inUse.hidden = !hasKey;
  hint.hidden = hasKey;
}

// Ask for a key; `reason` says why the one that was in use is of no use.
function askForKey(reason) {
  key.forget();
  showKeyState();
  resetJobs();
  problem.textContent = reason;
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(field.value.trim());
  field.value = "";
  problem.textContent = "";
  clearResults();
  showKeyState();
  resetJobs();
  box.focus();
});

document.getElementById("forget-key").addEventListener("click", () => {
  clearResults();
  askForKey("");
});

startSearch(askForKey);
startJobs(askForKey);
showKeyState();
resetJobs();
(key.get() ? box : field).focus();
