// Overlays of a slice, each as a small canvas that is drawn over its picture.

import { BRUSHED, FALSE_NEGATIVE, FALSE_POSITIVE, FOUND, MASK, PREDICTION, RIGHT, Rgb, SCALE } from "./colour";
import { Page, Slice } from "./data";
import { Layer } from "./state";

type Paint = (at: number) => Rgb | null;

const IGNORED = 255;

function painted(rows: number, columns: number, paint: Paint): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(columns, rows);
  for (let at = 0; at < rows * columns; at++) {
    const colour = paint(at);
    if (colour) {
      image.data.set(colour, 4 * at);
      image.data[4 * at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export function tokenColours(page: Page, slice: Slice, own: boolean): HTMLCanvasElement | null {
  if (!slice.grid) {
    return null;
  }
  const start = 3 * (slice.first + (own ? page.count : 0));
  return painted(slice.grid[0], slice.grid[1], (at) => {
    const from = start + 3 * at;
    return [page.colours[from], page.colours[from + 1], page.colours[from + 2]];
  });
}

export function similarityMap(
  slice: Slice,
  values: Float32Array,
  low: number,
  high: number,
): HTMLCanvasElement | null {
  if (!slice.grid) {
    return null;
  }
  const scale = 255 / (high - low || 1);
  return painted(slice.grid[0], slice.grid[1], (at) => {
    const step = Math.round((values[slice.first + at] - low) * scale);
    return SCALE[Math.max(0, Math.min(255, step))];
  });
}

export function foundMap(slice: Slice, values: Float32Array, cut: number): HTMLCanvasElement | null {
  return (
    slice.grid &&
    painted(slice.grid[0], slice.grid[1], (at) => (values[slice.first + at] >= cut ? FOUND : null))
  );
}

export function brushedMap(slice: Slice, brushed: ReadonlySet<number>): HTMLCanvasElement | null {
  return (
    slice.grid &&
    painted(slice.grid[0], slice.grid[1], (at) =>
      brushed.has(slice.first + at) ? BRUSHED : null,
    )
  );
}

/** Pixels of the mask that touch others: its outline. */
export function maskOutline(page: Page, slice: Slice): HTMLCanvasElement | null {
  if (slice.labels === null) {
    return null;
  }
  const [rows, columns] = slice.shown;
  const start = slice.labels;
  const inside = (row: number, column: number) => {
    const label = page.labels[start + row * columns + column];
    return label !== 0 && label !== IGNORED;
  };
  return painted(rows, columns, (at) => {
    const row = Math.floor(at / columns);
    const column = at % columns;
    if (!inside(row, column)) {
      return null;
    }
    for (let r = Math.max(0, row - 1); r <= Math.min(rows - 1, row + 1); r++) {
      for (let c = Math.max(0, column - 1); c <= Math.min(columns - 1, column + 1); c++) {
        if (!inside(r, c)) {
          return MASK;
        }
      }
    }
    return null;
  });
}

export function predictionMap(page: Page, slice: Slice, run: string, errors: boolean) {
  const found = slice.predictions.find((prediction) => prediction.run === run);
  if (!found) {
    return null;
  }
  const [rows, columns] = slice.shown;
  const { labels } = slice;
  if (errors && labels === null) {
    return null;
  }
  return painted(rows, columns, (at) => {
    const predicted = page.labels[found.labels + at] !== 0;
    if (!errors) {
      return predicted ? PREDICTION : null;
    }
    const label = page.labels[labels! + at];
    if (label === IGNORED) {
      return null;
    }
    const truly = label !== 0;
    if (truly) {
      return predicted ? RIGHT : FALSE_NEGATIVE;
    }
    return predicted ? FALSE_POSITIVE : null;
  });
}

/** What there is to show of all slices. */
export function layersOf(page: Page, clicked: boolean): { layer: Layer; name: string }[] {
  const tokens = page.facts.slices.some((slice) => slice.grid);
  const predictions = page.facts.runs.length > 0;
  const masks = page.facts.slices.some((slice) => slice.labels !== null);
  return [
    { layer: "none" as const, name: "Slice alone", there: true },
    { layer: "joint" as const, name: "Token colours, one basis", there: tokens },
    { layer: "own" as const, name: "Token colours, a basis for each dataset", there: tokens },
    { layer: "similarity" as const, name: "Similarity", there: tokens && clicked },
    { layer: "found" as const, name: "Above the threshold", there: tokens && clicked },
    { layer: "prediction" as const, name: "Prediction", there: predictions },
    { layer: "errors" as const, name: "Mistakes", there: predictions && masks },
  ].filter((item) => item.there);
}
