import "./style.css";
import { effect } from "@preact/signals";
import { render } from "preact";
import { Controls } from "./Controls";
import { load, Page } from "./data";
import { Scatter } from "./Scatter";
import { Scores } from "./Scores";
import { SliceView } from "./SliceView";
import * as state from "./state";

function App({ page }: { page: Page }) {
  const { facts } = page;
  return (
    <>
      <header>
        <h1>{facts.title}</h1>
        <p>
          {facts.source ? `Tokens of ${facts.source}. ` : "No tokens. "}
          {facts.slices.length} slices.
        </p>
        {facts.notes.map((note) => (
          <p class="note" key={note}>
            {note}
          </p>
        ))}
      </header>
      <Controls page={page} />
      <main>
        <div class="grid">
          {facts.slices.map((slice, index) => (
            <SliceView key={index} page={page} slice={slice} index={index} />
          ))}
        </div>
        <aside>
          {page.count > 0 && <Scores page={page} />}
          {page.count > 0 && <Scatter page={page} />}
        </aside>
      </main>
      <footer>
        {page.count > 0 && (
          <p>
            Similarities are computed from {facts.components} principal components of the unit tokens'
            deviations from their mean, in 8 bits ({(100 * facts.explained).toFixed(1)} % of the
            variance). They differ from those of the tokens by {facts.error.typical.toPrecision(2)}{" "}
            (root mean square) and at most {facts.error.largest.toPrecision(2)}, measured on pairs
            whose similarities have a standard deviation of {facts.error.spread.toPrecision(2)}.
          </p>
        )}
        <p>Made by emcache {facts.version}.</p>
      </footer>
    </>
  );
}

function fail(error: unknown): void {
  const place = document.getElementById("app")!;
  place.textContent = `This page cannot be shown here: ${error}. It needs a browser of 2023 or newer.`;
}

async function start(): Promise<void> {
  const page = await load();
  state.page.value = page;
  if (!page.count) {
    state.layer.value = page.facts.runs.length ? "prediction" : "none";
  }
  state.fromHash(location.hash, page.count);
  addEventListener("hashchange", () => state.fromHash(location.hash, page.count));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      state.clear();
    }
  });
  const place = document.getElementById("app")!;
  place.textContent = "";
  render(<App page={page} />, place);
  effect(() => history.replaceState(null, "", state.toHash()));
  document.documentElement.dataset.ready = "true";
}

// For scripts and tests: what the page computes, by the number of a token.
Object.assign(globalThis, { emcache: state });
start().catch(fail);
