// One polite live region for the whole page (#announce in base.html).

/** Say `text` to assistive technology, politely, once. */
export function announce(text) {
  const region = document.getElementById("announce");
  if (!region) return;
  // The same text twice is only read again when the region was empty in between.
  region.textContent = "";
  window.setTimeout(() => {
    region.textContent = text;
  }, 50);
}
