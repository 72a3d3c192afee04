// Theme: auto, light or dark. A classic script in <head>, so that a stored choice is
// applied before the first paint; the module system would run it too late.
(function () {
  "use strict";
  const KEY = "sluice.theme";
  const CHOICES = ["auto", "light", "dark"];
  const root = document.documentElement;

  function stored() {
    try {
      const value = window.localStorage.getItem(KEY);
      return CHOICES.includes(value) ? value : "auto";
    } catch {
      return "auto"; // storage is switched off: the system's choice stands
    }
  }

  function apply(choice) {
    if (choice === "auto") {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = choice;
    }
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      const chosen = button.dataset.themeChoice === choice;
      button.setAttribute("aria-pressed", String(chosen));
    }
  }

  function choose(event) {
    const button = event.target.closest("[data-theme-choice]");
    if (!button) return;
    const choice = button.dataset.themeChoice;
    try {
      window.localStorage.setItem(KEY, choice);
    } catch {
      // Not remembered, but applied to this page.
    }
    apply(choice);
  }

  apply(stored());
  document.addEventListener("click", choose);
  document.addEventListener("DOMContentLoaded", () => {
    for (const group of document.querySelectorAll("[data-theme-toggle]")) {
      group.hidden = false; // without this script the toggle would do nothing
    }
    apply(stored());
  });
  window.addEventListener("storage", (event) => {
    if (event.key === KEY) apply(stored());
  });
})();
