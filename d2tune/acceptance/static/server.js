// Requests to the server, and the judgments that it has not confirmed yet.

import { $, remember, remembered, say } from "./dom.js";

export class Refused extends Error {
  constructor(status, message, content) {
    super(message);
    this.status = status;
    this.content = content;
  }
}

let asking = null;

// whether a key was given
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    dialog.addEventListener(
      "close",
      () => {
        const key = dialog.returnValue === "ok" ? $("key").value : "";
        if (key) sessionStorage.setItem("d2tune.key", key);
        asking = null;
        resolve(Boolean(key));
      },
      { once: true },
    );
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

export async function request(path, { method = "GET", json, body, type, keepalive = false } = {}) {
  for (;;) {
    const headers = {};
    const key = sessionStorage.getItem("d2tune.key");
    if (key) headers.Authorization = `Bearer ${key}`;
    if (json !== undefined) headers["Content-Type"] = "application/json";
    else if (body !== undefined) headers["Content-Type"] = type;
    const content = json === undefined ? body : JSON.stringify(json);
    // a page that is being left may still send, but browsers take at most 64 KB of that
    const isKept = keepalive && content.length < 16_000;
    const answer = await fetch(`acceptance/${path}`, { method, headers, body: content, keepalive: isKept });
    if (answer.status === 401 && (await askForKey())) continue;
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }
}

async function refusal(answer) {
  let content = null;
  let message = `the server answered ${answer.status}`;
  try {
    content = await answer.json();
    const detail = content.detail ?? content.error ?? content.message;
    if (typeof detail === "string") message = detail;
    else if (typeof detail?.message === "string") message = detail.message;
    else if (Array.isArray(detail) && detail[0]?.msg) message = detail[0].msg;
  } catch {
    // an answer without a sentence
  }
  return new Refused(answer.status, message, content);
}

export const getJson = async (path) => (await request(path)).json();
export const getBlob = async (path) => (await request(path)).blob();

export async function download(path, name) {
  const address = URL.createObjectURL(await getBlob(path));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// Judgments are sent one after the other for each image; the latest of an image replaces one that waits. What the
// server has not confirmed is kept in the browser, so that a reload or a lost connection loses nothing.
export class Saver {
  // bodyOf(judgment, seen): what is sent
  constructor(session, { bodyOf, onSaved, onConflict, onRefused = () => {} }) {
    this.name = `unsaved.${session}`;
    this.waiting = new Map(Object.entries(remembered(this.name, {})));
    this.busy = new Set();
    this.seen = new Map();
    this.bodyOf = bodyOf;
    this.onSaved = onSaved;
    this.onConflict = onConflict;
    this.onRefused = onRefused;
    addEventListener("online", () => this.flush());
  }

  get isIdle() {
    return this.waiting.size === 0 && this.busy.size === 0;
  }

  unsaved(address) {
    return this.waiting.get(address)?.judgment ?? null;
  }

  put(address, judgment, seen) {
    this.waiting.set(address, { judgment, seen });
    this.keep();
    return this.send(address);
  }

  flush() {
    return Promise.all([...this.waiting.keys()].map((address) => this.send(address)));
  }

  keep() {
    remember(this.name, Object.fromEntries(this.waiting));
  }

  async send(address) {
    if (this.busy.has(address) || !this.waiting.has(address)) return;
    const sent = this.waiting.get(address);
    this.busy.add(address);
    try {
      const json = this.bodyOf(sent.judgment, Math.max(this.seen.get(address) ?? 0, sent.seen ?? 0) || null);
      const answer = await request(address, { method: "PUT", json, keepalive: true });
      const saved = answer.status === 204 ? null : await answer.json();
      if (saved) this.seen.set(address, saved.revision);
      this.done(address, sent);
      this.onSaved(address, saved, sent.judgment);
    } catch (error) {
      this.failed(address, sent, error);
    } finally {
      this.busy.delete(address);
    }
    if (this.waiting.has(address) && this.waiting.get(address) !== sent) await this.send(address);
  }

  done(address, sent) {
    if (this.waiting.get(address) === sent) this.waiting.delete(address);
    this.keep();
    if (this.waiting.size === 0) $("banner").hidden = true;
  }

  failed(address, sent, error) {
    const isFinal = error instanceof Refused && error.status < 500 && error.status !== 429;
    if (!isFinal) {
      $("banner").textContent = "Not saved yet: the server does not answer. It is tried again, and nothing is lost.";
      $("banner").hidden = false;
      setTimeout(() => this.send(address), 2000);
      return;
    }
    this.waiting.delete(address);
    this.keep();
    if (error.status === 409 && error.content?.saved) {
      this.seen.set(address, error.content.saved.revision);
      this.onConflict(address, error.content.saved);
    } else {
      say(`Not saved: ${error.message}`);
      this.onRefused(address);
    }
  }
}
