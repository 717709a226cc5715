// Slices or tokens as points of a plane, linked with the slices.

import { useSignal, useSignalEffect } from "@preact/signals";
import { brush as brushOf } from "d3-brush";
import { scaleLinear } from "d3-scale";
import { select } from "d3-selection";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { CATEGORIES, css, Rgb, SCALE } from "./colour";
import { datasetsOf, Page } from "./data";
import * as state from "./state";

const SIDE = 360;
const EDGE = 14;

interface Cloud {
  /** Where each point lies, from 0 to the side. */
  x: Float32Array;
  y: Float32Array;
}

function cloudOf(page: Page, kind: state.Points): Cloud {
  const { facts, count } = page;
  const at: [number, number][] = [];
  if (kind === "slices") {
    facts.slices.forEach((slice) => slice.plane && at.push(slice.plane));
  } else {
    for (let token = 0; token < count; token++) {
      const from = kind === "tokens" ? token * facts.components : 2 * token;
      const source = kind === "tokens" ? page.deviations : page.plane;
      at.push([source[from], source[from + 1] ?? 0]);
    }
  }
  const fit = (axis: 0 | 1, ends: [number, number]) => {
    let low = Infinity;
    let high = -Infinity;
    for (const point of at) {
      // Tokens that are not in the sample have no place.
      if (!Number.isNaN(point[axis])) {
        low = Math.min(low, point[axis]);
        high = Math.max(high, point[axis]);
      }
    }
    const scale = scaleLinear([low, high], ends);
    return Float32Array.from(at, (point) => scale(point[axis]));
  };
  return { x: fit(0, [EDGE, SIDE - EDGE]), y: fit(1, [SIDE - EDGE, EDGE]) };
}

export function Scatter({ page }: { page: Page }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const svg = useRef<SVGSVGElement>(null);
  const kind = state.points.value;
  const cloud = useMemo(() => cloudOf(page, kind), [kind]);
  const owners = useMemo(() => ownersOf(page), []);
  const legend = useSignal<[string, string][]>([]);
  const shown = useMemo(
    () => page.facts.slices.flatMap((slice, i) => (slice.plane ? [i] : [])),
    [],
  );

  useSignalEffect(() => {
    const context = canvas.current!.getContext("2d")!;
    const colours = colouringOf(page, kind, owners, shown);
    legend.value = colours.legend;
    context.clearRect(0, 0, SIDE, SIDE);
    const radius = kind === "slices" ? 5 : 1;
    for (let i = 0; i < cloud.x.length; i++) {
      context.fillStyle = colours.of(i);
      if (kind === "slices") {
        context.beginPath();
        context.arc(cloud.x[i], cloud.y[i], radius, 0, 7);
        context.fill();
      } else {
        context.fillRect(cloud.x[i] - radius, cloud.y[i] - radius, 2 * radius, 2 * radius);
      }
    }
    const ring = (i: number, colour: string, wide: number) => {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.beginPath();
      context.arc(cloud.x[i], cloud.y[i], 6, 0, 7);
      context.stroke();
    };
    const place = (token: number) =>
      kind === "slices" ? shown.indexOf(owners[token]) : token;
    for (const { token, sign } of state.clicks.value) {
      ring(place(token), sign > 0 ? "#b90" : "#c05", 2);
    }
    if (state.hovered.value !== null) {
      ring(place(state.hovered.value), "#888", 1.5);
    }
  });

  useEffect(() => {
    const brush = brushOf<unknown>()
      .extent([
        [0, 0],
        [SIDE, SIDE],
      ])
      .on("brush end", ({ selection }) => {
        const inside: number[] = [];
        if (selection) {
          const [[left, top], [right, bottom]] = selection as [[number, number], [number, number]];
          for (let i = 0; i < cloud.x.length; i++) {
            const [x, y] = [cloud.x[i], cloud.y[i]];
            if (x >= left && x <= right && y >= top && y <= bottom) {
              inside.push(i);
            }
          }
        }
        if (kind === "slices") {
          state.brushedSlices.value = new Set(inside.map((i) => shown[i]));
          state.brushed.value = new Set();
        } else {
          state.brushed.value = new Set(inside);
          state.brushedSlices.value = new Set(inside.map((token) => owners[token]));
        }
      });
    const layer = select(svg.current!).selectAll<SVGGElement, unknown>("g").data<unknown>([0]).join("g");
    layer.call(brush);
    layer.call(brush.clear);
  }, [cloud]);

  const names = kind === "plane" ? ["UMAP 1", "UMAP 2"] : page.facts.planeNames;
  return (
    <section class="scatter" aria-label="Scatter of slices or tokens">
      <div class="row">
        <label>
          Points{" "}
          <select
            value={kind}
            onChange={(event) => (state.points.value = event.currentTarget.value as state.Points)}
          >
            <option value="slices">slices (mean of tokens)</option>
            <option value="tokens">tokens, principal components</option>
            {page.plane.length > 0 && <option value="plane">tokens, UMAP</option>}
          </select>
        </label>
        <label>
          Colour{" "}
          <select
            value={state.colouring.value}
            onChange={(event) =>
              (state.colouring.value = event.currentTarget.value as state.Colouring)
            }
          >
            <option value="dataset">dataset</option>
            <option value="split">split</option>
            <option value="class">class</option>
            {page.facts.runs.length > 0 && <option value="score">score of the run</option>}
            <option value="similarity">similarity</option>
          </select>
        </label>
      </div>
      <div class="plane">
        <canvas ref={canvas} width={SIDE} height={SIDE} />
        <svg ref={svg} width={SIDE} height={SIDE} aria-hidden="true" />
      </div>
      <p class="axes">
        across: {names[0]}; up: {names[1]}. Drag to brush.
      </p>
      <ul class="legend">
        {legend.value.map(([name, colour]) => (
          <li key={name}>
            <span style={{ background: colour }} /> {name}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** The slice that each token belongs to. */
function ownersOf(page: Page): Uint16Array {
  const owners = new Uint16Array(page.count);
  page.facts.slices.forEach((slice, i) => {
    if (slice.grid) {
      owners.fill(i, slice.first, slice.first + slice.grid[0] * slice.grid[1]);
    }
  });
  return owners;
}

function colouringOf(page: Page, kind: state.Points, owners: Uint16Array, shown: number[]) {
  const { slices } = page.facts;
  const values = state.values.value;
  const range = state.range.value;
  const ownerOf = (i: number) => slices[kind === "slices" ? shown[i] : owners[i]];
  const chosen = state.colouring.value;
  const scaled = (value: number, low: number, high: number): Rgb => {
    const step = Math.round((255 * (value - low)) / (high - low || 1));
    return SCALE[Math.max(0, Math.min(255, step))];
  };
  const ends = (low: string, high: string): [string, string][] => [
    [low, css(SCALE[0])],
    [high, css(SCALE[255])],
  ];
  if (chosen === "similarity" && values && range) {
    const mean = (i: number) => {
      const slice = slices[shown[i]];
      const part = values.subarray(slice.first, slice.first + slice.grid![0] * slice.grid![1]);
      return part.reduce((sum, value) => sum + value, 0) / part.length;
    };
    return {
      of: (i: number) =>
        css(scaled(kind === "slices" ? mean(i) : values[i], range.low, range.high)),
      legend: ends(`low (${range.low.toFixed(2)})`, `high (${range.high.toFixed(2)})`),
    };
  }
  if (chosen === "score" && page.facts.runs.length) {
    const run = page.facts.runs[state.run.value];
    const scores = slices.map((s) => s.predictions.find((item) => item.run === run)?.iou ?? null);
    const known = scores.filter((score) => score !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return {
      of: (i: number) => {
        const score = scores[kind === "slices" ? shown[i] : owners[i]];
        return score === null ? "#888" : css(scaled(score, low, high));
      },
      legend: known.length
        ? ends(`IoU ${low.toFixed(3)}`, `IoU ${high.toFixed(3)}`)
        : ([["no score", "#888"]] as [string, string][]),
    };
  }
  const category = (i: number): string => {
    if (chosen === "split") {
      return ownerOf(i).split ?? "no split";
    }
    if (chosen === "class") {
      if (ownerOf(i).labels === null) {
        return "no mask";
      }
      if (kind === "slices") {
        return "slices have no class";
      }
      return 2 * page.pixels[2 * i] > page.pixels[2 * i + 1] ? "foreground" : "background";
    }
    return ownerOf(i).dataset;
  };
  const names =
    chosen === "class"
      ? ["background", "foreground", "no mask", "slices have no class"]
      : chosen === "split"
        ? [...new Set(slices.map((slice) => slice.split ?? "no split"))]
        : datasetsOf(page.facts);
  const colours = new Map(names.map((name, i) => [name, CATEGORIES[i % CATEGORIES.length]]));
  const used = new Set<string>();
  const count = kind === "slices" ? shown.length : page.count;
  for (let i = 0; i < count; i++) {
    used.add(category(i));
  }
  return {
    of: (i: number) => colours.get(category(i)) ?? "#888",
    legend: names.filter((name) => used.has(name)).map((name): [string, string] => [name, colours.get(name)!]),
  };
}

