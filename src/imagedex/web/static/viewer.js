// One picture, large.

import { thumbnail } from "/web/client.js";

const SIZE = 1024;
const dialog = document.getElementById("viewer");
const picture = document.getElementById("viewer-image");
const caption = document.getElementById("viewer-path");
let showing = new AbortController();

dialog.addEventListener("close", () => {
  showing.abort();
  URL.revokeObjectURL(picture.src);
  picture.removeAttribute("src");
});

// A click beside the picture closes it, as readers expect of such a view.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

export async function view(result) {
  showing = new AbortController();
  const { signal } = showing;
  caption.textContent = result.image_path;
  picture.alt = result.image_path;
  picture.hidden = true;
  dialog.showModal();
  try {
    const blob = await thumbnail(result.image_id, SIZE, signal);
    if (signal.aborted) return;
    picture.src = URL.createObjectURL(blob);
    picture.hidden = false;
  } catch (error) {
    if (error.name !== "AbortError") caption.textContent += ` (${error.message})`;
  }
}
