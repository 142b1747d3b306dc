"use strict";
// An image with a slider is wiped away from the right, over a copy of another image of its figure.
for (const slider of document.querySelectorAll("input.wipe")) {
  const frame = slider.parentElement.querySelector(".frame");
  const images = slider.closest("figure").querySelectorAll("img");
  const below = images[slider.dataset.below].cloneNode();
  below.alt = "";
  below.className = "below";
  frame.prepend(below);
  slider.addEventListener("input", () => frame.style.setProperty("--shown", `${slider.value}%`));
  slider.hidden = false;
}
