// Cosine similarity of every token to those that were clicked, and what a threshold on it finds.

import { Page, Slice } from "./data";

export interface Click {
  token: number;
  /** 1 adds, -1 subtracts. */
  sign: 1 | -1;
}

/** Mean cosine to the added tokens, less the mean cosine to the subtracted ones. */
export function similarities(page: Page, clicks: readonly Click[]): Float32Array {
  const { deviations, alongMean, facts, count } = page;
  const width = facts.components;
  const query = new Float32Array(width);
  let total = 0;
  let beside = 0;
  for (const sign of [1, -1]) {
    const chosen = clicks.filter((click) => click.sign === sign);
    const weight = sign / chosen.length;
    for (const { token } of chosen) {
      for (let c = 0; c < width; c++) {
        query[c] += weight * deviations[token * width + c];
      }
      total += weight;
      beside += weight * (alongMean[token] - facts.meanSquare);
    }
  }
  const found = new Float32Array(count);
  for (let token = 0, at = 0; token < count; token++) {
    let sum = 0;
    for (let c = 0; c < width; c++, at++) {
      sum += query[c] * deviations[at];
    }
    found[token] = sum + total * alongMean[token] + beside;
  }
  return found;
}

export interface Separation {
  /** Area under the ROC curve, pixel by pixel; null without pixels of both kinds. */
  auroc: number | null;
  iou: number;
  dice: number;
  /** The best IoU of any threshold, and that threshold. */
  bestIou: number;
  bestThreshold: number;
}

/** How well a threshold separates foreground from background in some slices with masks. */
export function separate(
  page: Page,
  values: Float32Array,
  slices: readonly Slice[],
  threshold: number,
): Separation | null {
  const tokens: number[] = [];
  for (const slice of slices) {
    if (slice.grid && slice.labels !== null) {
      for (let i = 0; i < slice.grid[0] * slice.grid[1]; i++) {
        tokens.push(slice.first + i);
      }
    }
  }
  if (!tokens.length) {
    return null;
  }
  const order = Uint32Array.from(tokens).sort((a, b) => values[b] - values[a]);
  let positives = 0;
  let negatives = 0;
  for (const token of order) {
    positives += page.pixels[2 * token];
    negatives += page.pixels[2 * token + 1] - page.pixels[2 * token];
  }
  let area = 0;
  let inside = 0;
  let outside = 0;
  let iou = 0;
  let dice = 0;
  let bestIou = -1;
  let bestThreshold = 0;
  for (let i = 0; i < order.length; ) {
    // Tokens of one value come together: half of their pairs are in the right order.
    const value = values[order[i]];
    let p = 0;
    let n = 0;
    for (; i < order.length && values[order[i]] === value; i++) {
      p += page.pixels[2 * order[i]];
      n += page.pixels[2 * order[i] + 1] - page.pixels[2 * order[i]];
    }
    area += n * (inside + p / 2);
    inside += p;
    outside += n;
    const here = inside / (positives + outside || 1);
    if (here > bestIou) {
      [bestIou, bestThreshold] = [here, value];
    }
    if (value >= threshold) {
      iou = here;
      dice = (2 * inside) / (positives + inside + outside || 1);
    }
  }
  const auroc = positives && negatives ? area / (positives * negatives) : null;
  return { auroc, iou, dice, bestIou, bestThreshold };
}

/** Ends of a scale of colours: lowest and highest value, and a threshold to start with. */
export interface Range {
  low: number;
  high: number;
  start: number;
}

export function rangeOf(values: Float32Array): Range {
  const sorted = values.slice().sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { low: at(0.01), high: sorted[sorted.length - 1], start: at(0.95) };
}
