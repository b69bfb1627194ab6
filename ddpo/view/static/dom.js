// Elements made of text, never of markup, so that a prompt cannot become part of the page.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An HTML element; attributes named on… are listeners. */
export const h = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** A number with four digits and a true minus sign; a dash for none. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3)
    ? value.toExponential(1) : String(Number(value.toPrecision(4)));
  return text.replaceAll("-", "−");
}

/** Text of a cell that is rewritten only when it changes. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Address of one image of a grid, or of its preview. */
export const imageOf = (key, iteration, cell, side = 128) =>
  `/image/${key}/${iteration}/${cell}?side=${side}`;

/** An image; small ones are enlarged without blur. */
export function picture(source, words) {
  const image = h("img", { src: source, alt: words, loading: "lazy" });
  image.addEventListener("load", () => {
    if (image.naturalHeight < 100) image.classList.add("pixelated");
  });
  image.addEventListener("error", () => {
    image.replaceWith(h("span", { class: "missing" }, "no image"));
  });
  return image;
}
