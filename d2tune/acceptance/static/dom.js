// Small helpers to make and find elements; text is only ever set as text.

export const $ = (id) => document.getElementById(id);

export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, one]) => element.style.setProperty(key, one));
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// what an open dialog covers is neither seen nor read aloud, so that it has a status of its own
export function say(text) {
  const status = document.querySelector("dialog[open] .toast") ?? $("status");
  status.textContent = "";
  requestAnimationFrame(() => {
    status.textContent = text;
    status.classList.add("seen");
    clearTimeout(say.timer);
    say.timer = setTimeout(() => status.classList.remove("seen"), 3500);
  });
}

export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

export function percent(value) {
  return value === null ? "none" : `${(100 * value).toFixed(0)} %`;
}

export function interval(share) {
  return share.low === null ? "" : `${(100 * share.low).toFixed(0)} to ${(100 * share.high).toFixed(0)} %`;
}

export function remembered(name, fallback) {
  try {
    const text = localStorage.getItem(`d2tune.${name}`);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`d2tune.${name}`, JSON.stringify(value));
  } catch {
    // a browser that keeps nothing: the server has all judgments
  }
}
