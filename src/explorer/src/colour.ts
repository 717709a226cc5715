// Colours of tokens, classes and mistakes; the same for eyes that see few colours.

import { interpolateViridis, schemeTableau10 } from "d3-scale-chromatic";

export type Rgb = [number, number, number];

function parse(text: string): Rgb {
  if (text.startsWith("#")) {
    return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)) as Rgb;
  }
  return text.match(/\d+/g)!.slice(0, 3).map(Number) as Rgb;
}

/** 256 colours from low to high. */
export const SCALE: Rgb[] = Array.from({ length: 256 }, (_, i) => parse(interpolateViridis(i / 255)));

/** Okabe and Ito's colours. */
/** White is in no other layer, and stands out from all of them. */
export const MASK: Rgb = [255, 255, 255];
export const BRUSHED: Rgb = [255, 0, 160];
export const PREDICTION: Rgb = [230, 159, 0];
export const FALSE_POSITIVE: Rgb = [230, 159, 0];
export const FALSE_NEGATIVE: Rgb = [204, 121, 167];
export const RIGHT: Rgb = [0, 158, 115];
export const FOUND: Rgb = [240, 228, 66];

export const CATEGORIES: readonly string[] = schemeTableau10;

export const css = ([r, g, b]: Rgb) => `rgb(${r}, ${g}, ${b})`;
