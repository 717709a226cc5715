// One slice with its layers: clicked, dragged over, zoomed and moved with all others.

import { computed, useComputed, useSignal, useSignalEffect } from "@preact/signals";
import { select } from "d3-selection";
import { zoom as zoomOf, ZoomBehavior, zoomIdentity } from "d3-zoom";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { css, FOUND } from "./colour";
import { Page, Slice, tokenAt, tokensOf } from "./data";
import * as layers from "./layers";
import * as state from "./state";

interface Props {
  page: Page;
  slice: Slice;
  index: number;
}

type Canvas = HTMLCanvasElement & { __zoom?: unknown };

const WIDTH = 420;
const MOST = 40;

export function SliceView({ page, slice, index }: Props) {
  const canvas = useRef<Canvas>(null);
  const picture = useSignal<HTMLImageElement | null>(null);
  const cursor = useSignal<number | null>(null);
  const stroke = useRef<{ sign: 1 | -1; tokens: Set<number> } | null>(null);
  const height = Math.round((WIDTH * slice.shown[0]) / slice.shown[1]);
  const ratio = Math.min(2, globalThis.devicePixelRatio || 1);

  useEffect(() => {
    const image = new Image();
    image.onload = () => (picture.value = image);
    image.src = slice.picture;
  }, [slice]);

  const overlay = useOverlay(page, slice);
  const outline = useMemo(() => layers.maskOutline(page, slice), [slice]);
  const brushed = useComputed(() =>
    state.brushed.value.size ? layers.brushedMap(slice, state.brushed.value) : null,
  );

  useSignalEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || !picture.value) {
      return;
    }
    const { x, y, k } = state.zoom.value;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, WIDTH * ratio, height * ratio);
    context.setTransform(ratio * k, 0, 0, ratio * k, ratio * x, ratio * y);
    const draw = (what: CanvasImageSource | null, alpha = 1) => {
      if (what) {
        context.globalAlpha = alpha;
        context.drawImage(what, 0, 0, WIDTH, height);
      }
    };
    context.imageSmoothingEnabled = k < 3;
    draw(picture.value);
    context.imageSmoothingEnabled = false;
    draw(overlay.value, state.opacity.value);
    draw(brushed.value, 0.6);
    if (state.maskShown.value) {
      draw(outline);
    }
    context.globalAlpha = 1;
    marks(context, k);
  });

  function marks(context: CanvasRenderingContext2D, k: number) {
    const grid = tokensOf(slice);
    if (!grid) {
      return;
    }
    const [w, h] = [WIDTH / grid.columns, height / grid.rows];
    const frame = (token: number, colour: string, wide: number) => {
      const at = token - grid.first;
      if (at < 0 || at >= grid.rows * grid.columns) {
        return;
      }
      context.strokeStyle = colour;
      context.lineWidth = wide / k;
      context.strokeRect((at % grid.columns) * w, Math.floor(at / grid.columns) * h, w, h);
    };
    for (const { token, sign } of state.clicks.value) {
      frame(token, "#000", 4);
      frame(token, sign > 0 ? css(FOUND) : "#f4a", 2);
    }
    if (state.hovered.value !== null) {
      frame(state.hovered.value, "#fff", 1.5);
    }
    if (cursor.value !== null) {
      frame(cursor.value, "#f00", 2);
    }
  }

  const behaviour = useRef<ZoomBehavior<Canvas, unknown> | null>(null);
  useEffect(() => {
    behaviour.current = zoomOf<Canvas, unknown>()
      .scaleExtent([1, MOST])
      .translateExtent([
        [0, 0],
        [WIDTH, height],
      ])
      .extent([
        [0, 0],
        [WIDTH, height],
      ])
      .filter(
        (event) =>
          event.type === "wheel" ||
          event.button === 1 ||
          (event.touches?.length ?? 0) > 1 ||
          (state.tool.value === "pan" && !event.button && event.type !== "dblclick"),
      )
      .on("zoom", (event) => (state.zoom.value = event.transform));
    select(canvas.current!).call(behaviour.current);
  }, [height]);
  // The slices share one place and scale: d3 keeps it on the element.
  useSignalEffect(() => {
    canvas.current!.__zoom = state.zoom.value;
  });

  function tokenOf(event: PointerEvent): number | null {
    const box = canvas.current!.getBoundingClientRect();
    const scale = WIDTH / box.width;
    const [x, y] = state.zoom.value.invert([
      (event.clientX - box.left) * scale,
      (event.clientY - box.top) * scale,
    ]);
    return tokenAt(slice, y / height, x / WIDTH);
  }

  function press(event: PointerEvent) {
    if (!event.isPrimary) {
      // A second finger: the two of them zoom, and the first one chose nothing.
      stroke.current = null;
      return;
    }
    const token = tokenOf(event);
    if (state.tool.value !== "select" || event.button !== 0 || token === null) {
      return;
    }
    stroke.current = { sign: event.shiftKey ? -1 : 1, tokens: new Set() };
    if (event.pointerType !== "touch") {
      choose(token);
    }
    if (event.pointerId > 0) {
      canvas.current!.setPointerCapture(event.pointerId);
    }
  }

  /** Adds a token to the stroke, or subtracts it; everything is drawn when this returns. */
  function choose(token: number) {
    const held = stroke.current;
    if (!held || held.tokens.has(token)) {
      return;
    }
    const started = performance.now();
    held.tokens.add(token);
    state.addClicks([token], held.sign);
    document.documentElement.dataset.milliseconds = (performance.now() - started).toFixed(1);
  }

  function move(event: PointerEvent) {
    const token = tokenOf(event);
    state.hovered.value = token;
    if (token !== null) {
      choose(token);
    }
  }

  function lift(event: PointerEvent) {
    const token = tokenOf(event);
    if (token !== null) {
      choose(token);
    }
    stroke.current = null;
  }

  function key(event: KeyboardEvent) {
    const grid = tokensOf(slice);
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
    };
    if (grid && steps[event.key]) {
      const middle = (grid.rows >> 1) * grid.columns + (grid.columns >> 1);
      const at = cursor.value === null ? middle : cursor.value - grid.first;
      const [down, across] = steps[event.key];
      const row = Math.max(0, Math.min(grid.rows - 1, Math.floor(at / grid.columns) + down));
      const column = Math.max(0, Math.min(grid.columns - 1, (at % grid.columns) + across));
      cursor.value = state.hovered.value = grid.first + row * grid.columns + column;
    } else if ((event.key === "Enter" || event.key === " ") && cursor.value !== null) {
      state.addClicks([cursor.value], event.shiftKey ? -1 : 1);
    } else if ((event.key === "+" || event.key === "-") && behaviour.current) {
      behaviour.current.scaleBy(select(canvas.current!), event.key === "+" ? 1.5 : 1 / 1.5);
    } else if (event.key === "0") {
      state.zoom.value = zoomIdentity;
    } else {
      return;
    }
    event.preventDefault();
  }

  const dimmed = useComputed(
    () => state.brushedSlices.value.size > 0 && !state.brushedSlices.value.has(index),
  );
  const run = page.facts.runs[state.run.value];
  const prediction = slice.predictions.find((item) => item.run === run);
  const score = prediction?.iou == null ? "" : `, IoU ${prediction.iou.toFixed(3)}`;
  const name = `${slice.dataset}/${slice.id}`;
  return (
    <figure class={`slice${dimmed.value ? " dimmed" : ""}`} data-slice={index}>
      <canvas
        ref={canvas}
        width={WIDTH * ratio}
        height={height * ratio}
        tabIndex={0}
        role="application"
        aria-label={`Slice ${name}${score}. Arrow keys choose a token, Enter adds it, Shift and Enter subtract it, plus and minus zoom.`}
        class={state.tool.value}
        onPointerDown={press}
        onPointerMove={move}
        onPointerUp={lift}
        onPointerCancel={() => (stroke.current = null)}
        onPointerLeave={() => (state.hovered.value = null)}
        onKeyDown={key}
        onBlur={() => (cursor.value = null)}
      />
      <figcaption>
        <strong>{name}</strong>
        {slice.split && ` (${slice.split})`}
        {score}
        {slice.labels === null && ", no mask"}
        {slice.grid === null && ", no tokens"}
      </figcaption>
    </figure>
  );
}

/** The chosen layer's picture; computed anew only when what it shows has changed. */
function useOverlay(page: Page, slice: Slice) {
  return useMemo(
    () =>
      computed(() => {
        const shown = state.layer.value;
        const values = state.values.value;
        const range = state.ranges.value.get(slice.dataset);
        switch (shown) {
          case "joint":
          case "own":
            return layers.tokenColours(page, slice, shown === "own");
          case "similarity":
            return values && range ? layers.similarityMap(slice, values, range.low, range.high) : null;
          case "found":
            return values && layers.foundMap(slice, values, state.cut.value!);
          case "prediction":
          case "errors":
            return layers.predictionMap(
              page,
              slice,
              page.facts.runs[state.run.value],
              shown === "errors",
            );
          default:
            return null;
        }
      }),
    [slice],
  );
}
