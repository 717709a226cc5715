// What the user has chosen. Everything drawn follows from these signals.

import { batch, computed, signal } from "@preact/signals";
import { ZoomTransform, zoomIdentity } from "d3-zoom";
import { datasetsOf, Page } from "./data";
import { Click, Range, rangeOf, similarities } from "./similarity";

export type Layer = "none" | "joint" | "own" | "similarity" | "found" | "prediction" | "errors";
export type Tool = "select" | "pan";
export type Colouring = "dataset" | "split" | "class" | "score" | "similarity";
export type Points = "slices" | "tokens" | "plane";

export const page = signal<Page | null>(null);
export const clicks = signal<Click[]>([]);
export const layer = signal<Layer>("joint");
export const run = signal(0);
export const maskShown = signal(true);
/** Whether each dataset has a scale of similarities of its own. */
export const ownScale = signal(false);
export const opacity = signal(0.75);
export const tool = signal<Tool>("select");
export const zoom = signal<ZoomTransform>(zoomIdentity);
/** Share of the way from the lowest to the highest similarity; null for the one to start with. */
export const threshold = signal<number | null>(null);
export const colouring = signal<Colouring>("dataset");
export const points = signal<Points>("slices");
/** Tokens that were brushed in the scatter. */
export const brushed = signal<ReadonlySet<number>>(new Set());
/** Slices that were brushed in the scatter. */
export const brushedSlices = signal<ReadonlySet<number>>(new Set());
export const hovered = signal<number | null>(null);

export const values = computed(() => {
  const held = page.value;
  return held && clicks.value.length ? similarities(held, clicks.value) : null;
});
export const range = computed(() => values.value && rangeOf(values.value));
/** Ends of the scale of colours for each dataset. */
export const ranges = computed(() => {
  const held = page.value;
  const all = values.value;
  if (!held || !all) {
    return new Map<string, Range>();
  }
  return new Map(
    datasetsOf(held.facts).map((name) => {
      const parts = held.facts.slices
        .filter((slice) => slice.dataset === name && slice.grid)
        .map(({ first, grid }) => all.subarray(first, first + grid![0] * grid![1]));
      const own = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
      parts.reduce((at, part) => (own.set(part, at), at + part.length), 0);
      return [name, own.length && ownScale.value ? rangeOf(own) : range.value!] as const;
    }),
  );
});
export const cut = computed(() => {
  const ends = range.value;
  return ends && (threshold.value ?? ends.start);
});

export function addClicks(tokens: readonly number[], sign: 1 | -1): void {
  const known = new Set(clicks.value.map((click) => click.token));
  const fresh = tokens.filter((token) => !known.has(token));
  if (!fresh.length) {
    return;
  }
  // Drawn once for all changes.
  batch(() => {
    clicks.value = [...clicks.value, ...fresh.map((token) => ({ token, sign }))];
    threshold.value = null;
    if (layer.value !== "found") {
      layer.value = "similarity";
    }
  });
}

export function undo(): void {
  keep(clicks.value.slice(0, -1));
}

export function clear(): void {
  keep([]);
}

function keep(left: Click[]): void {
  batch(() => {
    clicks.value = left;
    threshold.value = null;
    if (!left.length && (layer.value === "similarity" || layer.value === "found")) {
      layer.value = "joint";
    }
  });
}

/** Clicks and layer as the address keeps them. */
export function toHash(): string {
  const list = clicks.value.map(({ token, sign }) => (sign > 0 ? "" : "-") + token).join(",");
  const parts = new URLSearchParams({ layer: layer.value });
  if (list) {
    parts.set("clicks", list);
  }
  if (threshold.value !== null) {
    parts.set("threshold", threshold.value.toPrecision(6));
  }
  return `#${parts}`;
}

const LAYERS: Layer[] = ["none", "joint", "own", "similarity", "found", "prediction", "errors"];

export function fromHash(hash: string, count: number): void {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const found = (parts.get("clicks") ?? "")
    .split(",")
    .filter((text) => /^-?\d+$/.test(text))
    .map((text): Click => ({ token: Math.abs(Number(text)), sign: text.startsWith("-") ? -1 : 1 }))
    .filter((click) => click.token < count);
  clicks.value = found;
  const wanted = parts.get("layer") as Layer | null;
  if (wanted && LAYERS.includes(wanted)) {
    layer.value = wanted;
  } else if (found.length) {
    layer.value = "similarity";
  }
  const cutAt = Number(parts.get("threshold") ?? NaN);
  threshold.value = Number.isFinite(cutAt) ? cutAt : null;
}
