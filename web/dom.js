// The only place where elements are made. Text enters the page as text: nothing here reads HTML.

export const byId = (id) => document.getElementById(id);

/** Makes an element. Functions are listeners, `true` is an attribute without a value, `false` none; strings among the children are text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Sets the text only where it differs, so that a selection in it stays. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `parent` those of `items`, in their order. A child is made once for each key and then only told of changes, so that
 * focus, selection and what was folded out stay.
 */
export function makeList(parent, { keyOf, create }) {
  const known = new Map();
  return (items) => {
    const keys = new Set(items.map(keyOf));
    for (const [key, { element }] of known) {
      if (keys.has(key)) continue;
      element.remove();
      known.delete(key);
    }
    let before = parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let row = known.get(key);
      if (row === undefined) {
        row = create(item);
        known.set(key, row);
      }
      row.update(item);
      if (row.element === before) before = before.nextElementSibling;
      else parent.insertBefore(row.element, before);
    }
  };
}
