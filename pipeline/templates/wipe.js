"use strict";
// A picture with a slider is wiped away from the right, over a copy of another picture of its figure.
for (const slider of document.querySelectorAll("input.wipe")) {
  const frame = slider.parentElement.querySelector(".frame");
  const pictures = slider.closest("figure").querySelectorAll("img");
  const below = pictures[slider.dataset.below].cloneNode();
  below.alt = "";
  below.className = "below";
  frame.prepend(below);
  slider.addEventListener("input", () => frame.style.setProperty("--shown", `${slider.value}%`));
  slider.hidden = false;
}
