// The REST API, as the page uses it.

// The key lives as long as the tab and is sent in a header only, so it is in no address, no
// history and no server log.
const STORAGE_NAME = "imagedex-api-key";

export const key = {
  get: () => sessionStorage.getItem(STORAGE_NAME),
  set: (value) => sessionStorage.setItem(STORAGE_NAME, value),
  forget: () => sessionStorage.removeItem(STORAGE_NAME),
};

// What the server answered instead of what was asked for; status 0 when it did not answer.
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(method, path, { body, signal } = {}) {
  const headers = { "X-API-Key": key.get() ?? "" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    throw new Problem(401, "The server does not know this key. Check it, or use another one.");
  }
  const problem = await response.json().catch(() => ({}));
  throw new Problem(
    response.status,
    problem.detail || problem.title || `The server answered ${response.status}.`,
  );
}

async function json(method, path, options) {
  return (await request(method, path, options)).json();
}

const segment = encodeURIComponent;

// `asked` has either a text or an image_id.
export const query = (asked, topK, signal) =>
  json("POST", "/api/v1/query", { body: { ...asked, top_k: topK }, signal });
export const thumbnail = async (imageId, size, signal) =>
  (await request("GET", `/api/v1/images/${segment(imageId)}/thumbnail?size=${size}`, { signal }))
    .blob();
export const stats = () => json("GET", "/api/v1/index/stats");
export const trigger = (imageDir) =>
  json("POST", "/api/v1/index/trigger", { body: { image_dir: imageDir } });
export const jobs = (limit) => json("GET", `/api/v1/index/jobs?limit=${limit}`);
export const jobStatus = (jobId) => json("GET", `/api/v1/index/status/${segment(jobId)}`);
export const cancelJob = (jobId) => json("POST", `/api/v1/index/jobs/${segment(jobId)}/cancel`);
export const retryJob = (jobId) => json("POST", `/api/v1/index/jobs/${segment(jobId)}/retry`);
export const failures = (jobId, limit) =>
  json("GET", `/api/v1/index/jobs/${segment(jobId)}/failures?limit=${limit}`);
