// What is shown, and how: every choice in one bar.

import { zoomIdentity } from "d3-zoom";
import { css, FALSE_NEGATIVE, FALSE_POSITIVE, MASK, PREDICTION, RIGHT, SCALE } from "./colour";
import { datasetsOf, Page } from "./data";
import { layersOf } from "./layers";
import { download, pointsOf } from "./points";
import * as state from "./state";

export function Controls({ page }: { page: Page }) {
  const { facts } = page;
  const clicks = state.clicks.value;
  const shown = state.layer.value;
  const range = state.range.value;
  return (
    <div class="controls" role="toolbar" aria-label="What is shown">
      <label>
        Layer{" "}
        <select
          id="layer"
          value={shown}
          onChange={(event) => (state.layer.value = event.currentTarget.value as state.Layer)}
        >
          {layersOf(page, clicks.length > 0).map((item) => (
            <option key={item.layer} value={item.layer}>
              {item.name}
            </option>
          ))}
        </select>
      </label>
      {facts.runs.length > 0 && (
        <label>
          Run{" "}
          <select
            value={state.run.value}
            onChange={(event) => (state.run.value = Number(event.currentTarget.value))}
          >
            {facts.runs.map((run, i) => (
              <option key={run} value={i}>
                {run}
              </option>
            ))}
          </select>
        </label>
      )}
      <label>
        Opacity{" "}
        <input
          type="range"
          min="0"
          max="1"
          step="0.05"
          value={state.opacity.value}
          onInput={(event) => (state.opacity.value = Number(event.currentTarget.value))}
        />
      </label>
      <label>
        <input
          type="checkbox"
          checked={state.maskShown.value}
          onChange={(event) => (state.maskShown.value = event.currentTarget.checked)}
        />{" "}
        Mask's outline
      </label>
      <label>
        Drag{" "}
        <select
          value={state.tool.value}
          onChange={(event) => (state.tool.value = event.currentTarget.value as state.Tool)}
        >
          <option value="select">chooses tokens</option>
          <option value="pan">moves the slices</option>
        </select>
      </label>
      <button type="button" onClick={() => (state.zoom.value = zoomIdentity)}>
        Whole slices
      </button>
      <button type="button" disabled={!clicks.length} onClick={state.undo}>
        Undo
      </button>
      <button type="button" disabled={!clicks.length} onClick={state.clear}>
        Clear
      </button>
      {range && (
        <label>
          Threshold{" "}
          <input
            id="threshold"
            type="range"
            min={range.low}
            max={range.high}
            step={(range.high - range.low) / 500 || 0.001}
            value={state.cut.value!}
            onInput={(event) => {
              state.threshold.value = Number(event.currentTarget.value);
              state.layer.value = "found";
            }}
          />{" "}
          <output>{state.cut.value!.toFixed(3)}</output>
        </label>
      )}
      {shown === "similarity" && datasetsOf(facts).length > 1 && (
        <label>
          <input
            type="checkbox"
            checked={state.ownScale.value}
            onChange={(event) => (state.ownScale.value = event.currentTarget.checked)}
          />{" "}
          A scale for each dataset
        </label>
      )}
      {datasetsOf(facts)
        .filter((dataset) => pointsOf(facts, clicks, dataset).split("\n").length > 2)
        .map((dataset) => (
          <button
            type="button"
            key={dataset}
            onClick={() =>
              download(
                `${dataset.replace(/\W+/g, "-")}-points.csv`,
                pointsOf(facts, clicks, dataset),
              )
            }
          >
            Save points of {dataset}
          </button>
        ))}
      <Legend layer={shown} />
    </div>
  );
}

function Legend({ layer }: { layer: state.Layer }) {
  const items: [string, string][] = [];
  if (state.maskShown.value) {
    items.push(["mask's outline", css(MASK)]);
  }
  if (layer === "prediction") {
    items.push(["prediction", css(PREDICTION)]);
  }
  if (layer === "errors") {
    items.push(
      ["right", css(RIGHT)],
      ["false positive", css(FALSE_POSITIVE)],
      ["false negative", css(FALSE_NEGATIVE)],
    );
  }
  const range = state.range.value;
  return (
    <ul class="legend">
      {items.map(([name, colour]) => (
        <li key={name}>
          <span style={{ background: colour }} /> {name}
        </li>
      ))}
      {layer === "similarity" && range && (
        <li>
          {state.ownScale.value ? "low" : range.low.toFixed(2)}{" "}
          <span
            class="scale"
            style={{ background: `linear-gradient(to right, ${SCALE.filter((_, i) => i % 51 === 0).map(css).join(", ")})` }}
          />{" "}
          {state.ownScale.value ? "high" : range.high.toFixed(2)}
        </li>
      )}
    </ul>
  );
}
