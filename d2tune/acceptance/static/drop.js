// The files of what is dropped, also of folders.

// Must be called while the event is handled: afterwards the browser forgets what was dropped.
export async function filesOf(data) {
  const files = [...data.files];
  const entries = [...data.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry());
  if (!entries.some((entry) => entry?.isDirectory)) return files;
  const groups = await Promise.all(entries.map((entry, at) => (entry?.isDirectory ? inFolder(entry) : [files[at]])));
  return groups.flat();
}

// the images of a folder and of all folders in it; other files in it are not asked for
async function inFolder(folder) {
  const reader = folder.createReader();
  const files = [];
  for (;;) {
    // a reader gives some entries at a time, and none at the end
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return files;
    for (const entry of entries.sort((a, b) => a.name.localeCompare(b.name))) {
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory) {
        files.push(...(await inFolder(entry)));
      } else {
        const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
        if (file.type.startsWith("image/")) files.push(file);
      }
    }
  }
}
