// Build elements from data. Text always goes in as text, never as markup: names of files and
// messages of errors are strangers' words.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Show a message in a status line; only a change is written, so that screen readers hear it once.
export function say(line, text, { isError = false } = {}) {
  line.classList.toggle("error", isError);
  if (line.textContent !== text) line.textContent = text;
}

export function count(number, singular, plural) {
  return `${number.toLocaleString("en")} ${number === 1 ? singular : plural}`;
}

// A path with its file name first; <bdi> keeps right-to-left names from reordering what is around.
export function pathLines(path) {
  const cut = path.lastIndexOf("/") + 1;
  return [
    element("bdi", { class: "name", text: path.slice(cut) }),
    element("bdi", { class: "folder", text: path.slice(0, cut) }),
  ];
}
