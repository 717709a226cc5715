// What the page holds: facts as JSON, and numbers as compressed blobs.

export interface Prediction {
  run: string;
  /** Where its labels start in the blob of labels. */
  labels: number;
  iou: number | null;
  dice: number | null;
}

export interface Slice {
  dataset: string;
  id: string;
  split: string | null;
  /** Rows and columns of the slice as stored. */
  size: [number, number];
  /** Rows and columns of the picture, the mask and the predictions. */
  shown: [number, number];
  picture: string;
  /** Rows and columns of its tokens; null without tokens. */
  grid: [number, number] | null;
  /** Number of tokens in the slices before it. */
  first: number;
  /** Where the labels of its mask start; null without a mask. */
  labels: number | null;
  predictions: Prediction[];
  /** Where the mean of its tokens lies in the plane of two principal components. */
  plane: [number, number] | null;
}

export interface Facts {
  title: string;
  version: string;
  source: string | null;
  notes: string[];
  components: number;
  scales: number[];
  meanSquare: number;
  explained: number;
  error: { largest: number; typical: number; spread: number };
  planeNames: [string, string];
  runs: string[];
  slices: Slice[];
}

export interface Page {
  facts: Facts;
  /** Deviations of unit tokens from their mean, a row a token. */
  deviations: Float32Array;
  /** Product of each unit token and the mean. */
  alongMean: Float32Array;
  /** Red, green and blue of each token: by one basis, then by one for each dataset. */
  colours: Uint8Array;
  /** Of each token its pixels of foreground, and those that count. */
  pixels: Uint32Array;
  labels: Uint8Array;
  /** Two numbers for each token: a plane that was computed before; empty without one. */
  plane: Float32Array;
  count: number;
}

async function blob(name: string): Promise<ArrayBuffer> {
  const text = document.getElementById(`blob-${name}`)?.textContent?.trim() ?? "";
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

export async function load(): Promise<Page> {
  const facts: Facts = JSON.parse(document.getElementById("facts")!.textContent!);
  const names = ["tokens", "along", "colours", "pixels", "labels", "plane"];
  const [tokens, along, colours, pixels, labels, plane] = await Promise.all(names.map(blob));
  const coordinates = new Int8Array(tokens);
  const width = facts.components;
  const deviations = new Float32Array(coordinates.length);
  for (let start = 0; start < coordinates.length; start += width) {
    for (let c = 0; c < width; c++) {
      deviations[start + c] = coordinates[start + c] * facts.scales[c];
    }
  }
  return {
    facts,
    deviations,
    alongMean: new Float32Array(along),
    colours: new Uint8Array(colours),
    pixels: new Uint32Array(pixels),
    labels: new Uint8Array(labels),
    plane: new Float32Array(plane),
    count: width ? coordinates.length / width : 0,
  };
}

/** Rows and columns of a slice's tokens, and the number of its first one. */
export function tokensOf(slice: Slice): { rows: number; columns: number; first: number } | null {
  return slice.grid && { rows: slice.grid[0], columns: slice.grid[1], first: slice.first };
}

/** Number of the token that lies at a share of the slice's height and width. */
export function tokenAt(slice: Slice, down: number, across: number): number | null {
  const grid = tokensOf(slice);
  if (!grid || down < 0 || across < 0 || down >= 1 || across >= 1) {
    return null;
  }
  return grid.first + Math.floor(down * grid.rows) * grid.columns + Math.floor(across * grid.columns);
}

/** The slice of a token, with its row and column. */
export function placeOf(facts: Facts, token: number): { slice: number; row: number; column: number } {
  let slice = 0;
  facts.slices.forEach((item, i) => {
    if (item.grid && item.first <= token) {
      slice = i;
    }
  });
  const item = facts.slices[slice];
  const inside = token - item.first;
  const columns = item.grid![1];
  return { slice, row: Math.floor(inside / columns), column: inside % columns };
}

export function datasetsOf(facts: Facts): string[] {
  return [...new Set(facts.slices.map((slice) => slice.dataset))];
}
