// The little that this page needs instead of a framework.

export const $ = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick`) and children. Texts become text, never markup. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made[name] = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * Lets `list` have exactly these rows, `{ key, version, draw }`. A row whose version is as it was keeps its element: a
 * screen reader reads out only what is new, and the keyboard's focus stays where it is.
 */
export function show(list, rows) {
  const before = new Map([...list.children].map((element) => [element.dataset.key, element]));
  const wanted = rows.map(({ key, version, draw }) => {
    const old = before.get(key);
    if (old && old.dataset.version === String(version)) return old;
    const made = draw();
    made.dataset.key = key;
    made.dataset.version = version;
    return made;
  });
  const kept = new Set(wanted);
  for (const element of before.values()) if (!kept.has(element)) element.remove();
  let next = list.firstElementChild;
  for (const element of wanted) {
    if (element === next) next = next.nextElementSibling;
    else list.insertBefore(element, next);
  }
}

/** A function that calls `draw` once before the next frame, however often it is called. */
export function soon(draw) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    const go = () => {
      isDue = false;
      draw();
    };
    if (document.hidden)
      setTimeout(go, 100); // a page that nobody looks at has no frames
    else requestAnimationFrame(go);
  };
}
